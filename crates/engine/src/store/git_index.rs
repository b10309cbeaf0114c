//! Whether git tracks a path: reads the list of tracked files in a repository's index. Git itself is not run,
//! because a checkout may configure programs that git then starts.
//! Knows nothing of what is done with such a path.
//!
//! The format is `gitformat-index(5)`, versions 2 to 4.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::owned_file;

/// The longest index that is read, in bytes: several million files.
const LONGEST: u64 = 1 << 30;

/// The length of an entry before its flags, in bytes: with a SHA-1, and with a SHA-256.
const ENTRY: [usize; 2] = [60, 72];

/// Returns a tracked path that is `path` or lies below it, relative to `path`, and for which `counts` is
/// true. Returns `None` if there is no repository around `path`, or if its index cannot be read.
pub(super) fn tracked_below(path: &Path, counts: &dyn Fn(&str) -> bool) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().ok()?;
    let (work_tree, git) = folder.ancestors().find_map(|above| Some((above, git_folder(above)?)))?;
    let inside = folder.strip_prefix(work_tree).ok()?.join(path.file_name()?);
    let index = owned_file::read(&git.join("index"), LONGEST).ok()?;
    let prefix = inside.as_os_str().as_bytes();
    let below = |name: &[u8]| {
        let rest = name.strip_prefix(prefix)?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
        Some(String::from_utf8_lossy(rest).into_owned()).filter(|rest| counts(rest))
    };
    ENTRY.iter().find_map(|entry| find(&index, *entry, &below))
}

/// Returns the folder with the index of the work tree at `above`, if it is one. In a linked work tree or a
/// submodule, `.git` is a file that names it.
fn git_folder(above: &Path) -> Option<PathBuf> {
    let git = above.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = owned_file::read(&git, 4096).ok()?;
    let named = std::str::from_utf8(&text).ok()?.strip_prefix("gitdir:")?.trim();
    Some(above.join(named)).filter(|folder| fs::metadata(folder).is_ok_and(|metadata| metadata.is_dir()))
}

/// Returns what `wanted` makes of the first path for which it makes something. `entry` is the length of an entry
/// before its flags.
fn find(index: &[u8], entry: usize, wanted: &dyn Fn(&[u8]) -> Option<String>) -> Option<String> {
    let number = |at: usize| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?));
    let version = (index.get(..4)? == b"DIRC").then(|| number(4)).flatten()?;
    let count = number(8)?;
    let mut at = 12;
    let mut name = Vec::new();
    for _ in 0..count {
        let flags = u16::from_be_bytes(index.get(at + entry..at + entry + 2)?.try_into().ok()?);
        let is_extended = flags & 0x4000 != 0;
        let start = at + entry + 2 + if is_extended { 2 } else { 0 };
        let rest = index.get(start..)?;
        if version == 4 {
            // The name follows from the one before: so many bytes of it are dropped, and others are added.
            let (dropped, length) = offset_varint(rest)?;
            let added = rest.get(length..)?;
            let end = added.iter().position(|byte| *byte == 0)?;
            name.truncate(name.len().checked_sub(dropped)?);
            name.extend_from_slice(added.get(..end)?);
            at = start + length + end + 1;
        } else {
            let end = rest.iter().position(|byte| *byte == 0)?;
            name.clear();
            name.extend_from_slice(rest.get(..end)?);
            // One to eight zero bytes make the entry a multiple of eight bytes long.
            at += (start - at + end) / 8 * 8 + 8;
        }
        if let Some(found) = wanted(&name) {
            return Some(found);
        }
    }
    None
}

/// Reads a number as git's pack files encode offsets; returns it and its length in bytes.
fn offset_varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = usize::from(bytes.first()? & 0x7f);
    let mut length = 1;
    while bytes.get(length - 1)? & 0x80 != 0 {
        value =
            value.checked_add(1)?.checked_mul(128)?.checked_add(usize::from(bytes.get(length)? & 0x7f))?;
        length += 1;
    }
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn git(folder: &Path, args: &[&str]) {
        let mut command = Command::new("git");
        command.current_dir(folder).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
        assert!(command.output().unwrap().status.success(), "git {args:?}");
    }

    #[test]
    fn finds_what_git_tracks_in_every_version_of_the_index() {
        let formats = ["sha1", "sha256"];
        for (version, format) in
            ["2", "3", "4"].iter().flat_map(|version| formats.map(|format| (*version, format)))
        {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("repository");
            fs::create_dir_all(root.join("project/cache/actions")).unwrap();
            git(&root, &["init", "-q", &format!("--object-format={format}")]);
            for name in ["a", "b/c", "project/cache/actions/KEY.json", "project/cache-notes", "z"] {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
            let tracked = |counts: &dyn Fn(&str) -> bool| tracked_below(&root.join("project/cache"), counts);
            assert_eq!(tracked(&|_| true), None, "nothing is tracked yet");
            git(&root, &["add", "a", "b", "z", "project/cache-notes"]);
            git(&root, &["update-index", "--index-version", version]);
            assert_eq!(tracked(&|_| true), None, "version {version}");
            git(&root, &["add", "-f", "project/cache"]);
            git(&root, &["update-index", "--index-version", version]);
            assert_eq!(tracked(&|_| true).as_deref(), Some("actions/KEY.json"), "version {version}");
            assert_eq!(tracked(&|name| !name.starts_with("actions/")), None);
        }
        assert_eq!(tracked_below(Path::new("/nowhere/cache"), &|_| true), None);
    }

    proptest::proptest! {
        #[test]
        fn survives_whatever_it_is_given(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let index = [b"DIRC\0\0\0\x04\0\0\0\x09", bytes.as_slice()].concat();
            for entry in ENTRY {
                let _ = find(&index, entry, &|_| None);
            }
        }
    }
}
