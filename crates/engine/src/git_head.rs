//! The commit that is checked out around a project.
//! Knows nothing of what is in it. Git itself is not asked: it may not be installed, and a configuration that came with
//! a checkout could make it run something.

use std::path::{Path, PathBuf};

use crate::store::owned_file;

/// The longest file of git that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Returns the commit in hexadecimal, or `None` if the folder is not in a repository, or if that has no commit.
pub(crate) fn commit(folder: &Path) -> Option<String> {
    // The folder that a program works in is given as no path at all.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.canonicalize().ok()?;
    let git = folder.ancestors().find_map(|folder| git_folder(&folder.join(".git")))?;
    let head = read(&git.join("HEAD"))?;
    let Some(reference) = head.strip_prefix("ref: ") else { return hexadecimal(&head) };
    // The branches of another working tree are in the main one.
    let common = read(&git.join("commondir")).map_or_else(|| git.clone(), |common| git.join(common));
    let is_plain = !reference.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if !reference.starts_with("refs/") || !is_plain {
        return None;
    }
    let loose = read(&common.join(reference)).and_then(|text| hexadecimal(&text));
    loose.or_else(|| packed(&common, reference))
}

/// Returns the folder of git. In another working tree, `.git` is a file that names it.
fn git_folder(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let text = read(path)?;
    Some(path.parent()?.join(text.strip_prefix("gitdir: ")?))
}

fn packed(common: &Path, reference: &str) -> Option<String> {
    let text = read(&common.join("packed-refs"))?;
    let line = text.lines().filter_map(|line| line.split_once(' ')).find(|(_, name)| *name == reference);
    line.and_then(|(commit, _)| hexadecimal(commit))
}

fn read(path: &Path) -> Option<String> {
    let bytes = owned_file::read(path, LONGEST).ok()?;
    Some(String::from_utf8(bytes).ok()?.trim().to_owned())
}

fn hexadecimal(text: &str) -> Option<String> {
    let is_commit = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_commit_is_found_loose_packed_and_alone() {
        let root = tempfile::tempdir().unwrap();
        let (project, git) = (root.path().join("a/b"), root.path().join(".git"));
        fs::create_dir_all(&project).unwrap();
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(commit(&project), None);
        fs::write(git.join("packed-refs"), format!("# pack\n{} refs/heads/main\n", "1".repeat(40))).unwrap();
        assert_eq!(commit(&project), Some("1".repeat(40)));
        fs::write(git.join("refs/heads/main"), "2".repeat(40)).unwrap();
        assert_eq!(commit(&project), Some("2".repeat(40)));
        fs::write(git.join("HEAD"), "3".repeat(40)).unwrap();
        assert_eq!(commit(&project), Some("3".repeat(40)));
        fs::write(git.join("HEAD"), "ref: ../../secret").unwrap();
        assert_eq!(commit(&project), None);
    }
}
