//! Whether git tracks a path: reads the list of tracked files in a repository's index. Git itself is not run,
//! because a checkout may configure programs that git then starts.
//! Knows nothing of what is done with such a path.
//!
//! The format is `gitformat-index(5)`, versions 2 to 4.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::owned_file;
use artifact::fold;

/// The longest index that is read, in bytes: several million files.
const LONGEST: u64 = 1 << 30;

/// The length of an entry before its flags, in bytes: with a SHA-1, and with a SHA-256.
const ENTRY: [usize; 2] = [60, 72];

/// What git tracks at or below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tracked {
    /// Nothing, or there is no repository around the path.
    Nothing,
    /// This, relative to the path, and perhaps more.
    File(String),
    /// There is an index, but it is not one that is understood here.
    Unknown,
}

/// Returns what git tracks at or below `path`, as far as `counts` is true of it, relative to `path`. Names that
/// differ only in case are the same here, as they are on many disks.
pub(super) fn tracked_below(path: &Path, counts: &dyn Fn(&str) -> bool) -> Tracked {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = || {
        let folder = folder.canonicalize().ok()?;
        let (work_tree, git) = folder.ancestors().find_map(|above| Some((above, git_folder(above)?)))?;
        Some((folder.strip_prefix(work_tree).ok()?.join(path.file_name()?), git))
    };
    let Some((inside, git)) = place() else { return Tracked::Nothing };
    let index = match owned_file::read(&git.join("index"), LONGEST) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Tracked::Nothing,
        Err(_) => return Tracked::Unknown,
        Ok(index) => index,
    };
    let prefix = fold(&inside.to_string_lossy());
    let below = |name: &[u8]| {
        let name = String::from_utf8_lossy(name);
        let folded = fold(&name);
        let rest = folded.strip_prefix(&prefix)?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
        Some(rest.to_owned()).filter(|rest| counts(rest))
    };
    let read = ENTRY.iter().find_map(|entry| find(&index, *entry, &below));
    read.unwrap_or(Tracked::Unknown)
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
/// before its flags. Returns `None` if the index is not of this form.
fn find(index: &[u8], entry: usize, wanted: &dyn Fn(&[u8]) -> Option<String>) -> Option<Tracked> {
    let number = |at: usize| Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?));
    let version = (index.get(..4)? == b"DIRC").then(|| number(4)).flatten()?;
    if !(2..=4).contains(&version) {
        return None;
    }
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
            return Some(Tracked::File(found));
        }
    }
    // The checksum at the end is as long as the hash in an entry.
    let end = index.len().checked_sub(entry - 40)?;
    while at < end {
        let length = usize::try_from(number(at + 4)?).ok()?;
        // The entries of a split index are in another file.
        if index.get(at..at + 4)? == b"link" {
            return Some(Tracked::Unknown);
        }
        at = at.checked_add(8)?.checked_add(length)?;
    }
    (at == end).then_some(Tracked::Nothing)
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
            assert_eq!(tracked(&|_| true), Tracked::Nothing, "nothing is tracked yet");
            git(&root, &["add", "a", "b", "z", "project/cache-notes"]);
            git(&root, &["update-index", "--index-version", version]);
            assert_eq!(tracked(&|_| true), Tracked::Nothing, "version {version}");
            git(&root, &["add", "-f", "project/cache"]);
            git(&root, &["update-index", "--index-version", version]);
            let record = Tracked::File("actions/key.json".to_owned());
            assert_eq!(tracked(&|_| true), record, "version {version}");
            assert_eq!(tracked(&|name| !name.starts_with("actions/")), Tracked::Nothing);
            assert_eq!(tracked_below(&root.join("project/CACHE"), &|_| true), record, "another disk");
            git(&root, &["update-index", "--split-index"]);
            assert_ne!(tracked(&|_| true), Tracked::Nothing);
        }
        assert_eq!(tracked_below(Path::new("/nowhere/cache"), &|_| true), Tracked::Nothing);
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
