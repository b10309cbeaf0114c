//! An artifact: a sorted list of files with their digests.
//! Knows nothing of where the bytes lie, nor of who made them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::fold::fold;

/// The longest name of a file, in bytes. File systems have this limit.
const LONGEST_NAME: usize = 255;

/// The longest path of a file in an artifact, in bytes. It leaves room for the folder before it.
const LONGEST_PATH: usize = 2048;

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The blake3 digest of the content.
    pub digest: Digest,
    /// The path of the file, relative to the artifact's folder, with `/` between its parts.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Whether the content differs from run to run (times, machine); if so, it is kept and shown, never
    /// compared.
    pub volatile: bool,
}

/// A path in a file list that could lead out of the artifact's folder.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a relative path below the artifact's folder, or has a name that is too long", shortened(.0))]
pub struct InvalidPath(pub String);

/// Returns a path for a message: control characters are escaped, and a long path is cut.
fn shortened(path: &str) -> String {
    let mut chars = path.chars().flat_map(char::escape_debug);
    let mut out: String = chars.by_ref().take(120).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// A list of files that no folder can hold.
#[derive(Debug, thiserror::Error)]
pub enum InvalidList {
    /// A path is not a plain relative path below the artifact's folder.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// Two files have the same path.
    #[error("`{}` is listed twice", .0.escape_debug())]
    Twice(String),
    /// Two paths differ only in case or in how their letters are composed. Many disks do not tell them apart.
    #[error("`{}` and `{}` are one file on a disk that does not tell case apart", .0.escape_debug(), .1.escape_debug())]
    Alike(String, String),
    /// A path is listed as a file, but is also the folder of another file.
    #[error("`{}` is listed as a file, and as the folder of another", .0.escape_debug())]
    Folder(String),
    /// The lengths of the files add up to 2^64 bytes or more.
    #[error("the files are longer than 2^64 bytes in all")]
    Size,
}

impl FileEntry {
    /// Checks that the path is relative and stays below the artifact's folder.
    ///
    /// # Errors
    /// Fails when a part of the path is empty, `.` or `..`, contains a backslash or a NUL, or is longer than a
    /// file name may be.
    pub fn check(&self) -> Result<(), InvalidPath> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        let short = |part: &str| part.len() <= LONGEST_NAME;
        if self.path.len() <= LONGEST_PATH && self.path.split('/').all(|part| plain(part) && short(part)) {
            Ok(())
        } else {
            Err(InvalidPath(self.path.clone()))
        }
    }
}

/// The output of a node: files, sorted by path. It holds no times and no absolute paths.
///
/// The list is shared and stores its digests, because a plan passes it on and asks for them at every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact(Arc<List>);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    digest: Digest,
    files: Vec<FileEntry>,
    reproducible: Digest,
}

impl Artifact {
    /// Makes an artifact of `files`, which may be in any order.
    pub fn new(mut files: Vec<FileEntry>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let digest = digest_of_list(files.iter());
        let volatile = files.iter().any(|file| file.volatile);
        let reproducible =
            if volatile { digest_of_list(files.iter().filter(|file| !file.volatile)) } else { digest };
        Self(Arc::new(List { digest, files, reproducible }))
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.0.files
    }

    /// Returns the entry of the file at `path`, if there is one.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        let found = self.files().binary_search_by(|file| file.path.as_str().cmp(path));
        found.ok().and_then(|index| self.files().get(index))
    }

    /// Returns the files in the folder `path` of this artifact, with their paths in that folder; or the one file at
    /// `path`, with its name. If there is nothing at `path`, the artifact has no files.
    pub fn below(&self, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let inside = |file: &FileEntry| match file.path.strip_prefix(path)? {
            "" => Some(FileEntry { path: name.to_owned(), ..file.clone() }),
            rest => Some(FileEntry { path: rest.strip_prefix('/')?.to_owned(), ..file.clone() }),
        };
        Self::new(self.files().iter().filter_map(inside).collect())
    }

    /// Returns the folders of this artifact, as paths, each once.
    pub fn folders(&self) -> BTreeSet<&str> {
        let parents = |file: &FileEntry| file.path.match_indices('/').map(|(end, _)| end).collect::<Vec<_>>();
        self.files().iter().flat_map(|file| parents(file).into_iter().map(|end| &file.path[..end])).collect()
    }

    /// Checks that a folder can hold these files. A list that comes from outside must be checked.
    ///
    /// # Errors
    /// Fails on a path that is not below the folder, on a path that is listed twice, on a file that is also
    /// the folder of another file, and when the lengths add up to 2^64 bytes or more.
    pub fn check(&self) -> Result<(), InvalidList> {
        self.files().iter().try_for_each(FileEntry::check)?;
        let sizes = self.files().iter().map(|file| file.size);
        sizes.into_iter().try_fold(0, u64::checked_add).ok_or(InvalidList::Size)?;
        // Paths are compared part by part, so that the files in a folder come right after the folder's own
        // name: `a`, `a/b`, `a-b`.
        let mut paths: Vec<_> = self.files().iter().map(|file| file.path.as_str()).collect();
        paths.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        for (path, next) in paths.iter().zip(paths.iter().skip(1)) {
            match next.strip_prefix(path) {
                Some("") => return Err(InvalidList::Twice((*path).to_owned())),
                Some(rest) if rest.starts_with('/') => return Err(InvalidList::Folder((*path).to_owned())),
                _ => {}
            }
        }
        let mut folded = HashMap::new();
        for path in paths {
            if let Some(other) = folded.insert(fold(path), path) {
                return Err(InvalidList::Alike(other.to_owned(), path.to_owned()));
            }
        }
        Ok(())
    }

    /// Returns the sum of the files' lengths in bytes.
    pub fn size(&self) -> u64 {
        self.files().iter().map(|file| file.size).sum()
    }

    /// Returns the digest of the whole list, volatile files included: it identifies exactly this folder.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Returns the digest of the files that are the same on every run. The lock holds it, the nodes below see
    /// it
    /// as their input, and two machines compare it.
    pub fn reproducible_digest(&self) -> Digest {
        self.0.reproducible
    }
}

/// In human-readable formats an artifact is its list of files. In the binary format of our own caches the
/// digests are stored too, so that they are not computed again.
impl Serialize for Artifact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.files().serialize(serializer)
        } else {
            List::serialize(&self.0, serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Artifact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Vec::deserialize(deserializer).map(Self::new)
        } else {
            List::deserialize(deserializer).map(|list| Self(Arc::new(list)))
        }
    }
}

/// Returns the blake3 digest of the canonical JSON `[[path, size, digest], …]`.
fn digest_of_list<'a>(files: impl Iterator<Item = &'a FileEntry>) -> Digest {
    let list: Vec<_> = files.map(|file| (file.path.as_str(), file.size, file.digest)).collect();
    Digest::of_json(&list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, volatile: bool) -> FileEntry {
        FileEntry { digest: Digest::of(path.as_bytes()), path: path.to_owned(), size: 1, volatile }
    }

    #[test]
    fn order_of_files_does_not_matter() {
        let one = Artifact::new(vec![entry("b", false), entry("a", false)]);
        let two = Artifact::new(vec![entry("a", false), entry("b", false)]);
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.file("b").unwrap().path, "b");
    }

    #[test]
    fn a_folder_inside_is_an_artifact_of_its_own() {
        let files = ["a/1/x", "a/1/y/z", "a/10/x", "b"].map(|path| entry(path, false));
        let whole = Artifact::new(files.to_vec());
        let paths = |path: &str| {
            let below = whole.below(path);
            below.files().iter().map(|file| file.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(paths("a/1"), ["x", "y/z"]);
        assert_eq!(paths("a/1/x"), ["x"]);
        assert_eq!(paths("b"), ["b"]);
        assert_eq!(paths("a/2"), [""; 0]);
    }

    #[test]
    fn volatile_files_do_not_count_as_content() {
        let one = Artifact::new(vec![entry("results.json", false), entry("timings.json", true)]);
        let two = Artifact::new(vec![entry("results.json", false)]);
        assert_ne!(one.digest(), two.digest());
        assert_eq!(one.reproducible_digest(), two.reproducible_digest());
    }

    #[test]
    fn refuses_paths_that_lead_out() {
        for path in ["../x", "/etc/passwd", "a//b", "a/./b", "a/..", "", "a\\b"] {
            assert!(entry(path, false).check().is_err(), "{path}");
        }
        assert!(entry("onnx/model.bin", false).check().is_ok());
        assert!(entry(&"n".repeat(255), false).check().is_ok());
        assert!(entry(&"n".repeat(256), false).check().unwrap_err().to_string().len() < 300);
        assert!(entry(&"n/".repeat(2000), false).check().is_err());
    }

    #[test]
    fn refuses_lists_that_no_folder_can_hold() {
        let check = |paths: &[&str]| {
            Artifact::new(paths.iter().map(|path| entry(path, false)).collect())
                .check()
                .map_err(|e| e.to_string())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["a", "a-b", "ab/c", "b/a", "b/b"]), Ok(()));
        assert_eq!(check(&["b", "a", "b"]), Err("`b` is listed twice".to_owned()));
        let alike = |a: &str, b: &str| {
            Err(format!("`{a}` and `{b}` are one file on a disk that does not tell case apart"))
        };
        assert_eq!(check(&["README.md", "readme.md"]), alike("README.md", "readme.md"));
        assert_eq!(check(&["\u{e9}", "e\u{301}"]).map_err(|error| error.contains("are one file")), Err(true));
        let folder = |path: &str| Err(format!("`{path}` is listed as a file, and as the folder of another"));
        assert_eq!(check(&["a/b", "a-b", "a", "a.b"]), folder("a"));
        assert_eq!(check(&["x/a/b/c", "x/a", "x/a-/b"]), folder("x/a"));
        assert!(
            check(&["a", "../\u{1b}[2J"]).unwrap_err().contains("`../\\u{1b}[2J` is not a relative path")
        );
        let huge = |path: &str| FileEntry { size: u64::MAX, ..entry(path, false) };
        assert!(Artifact::new(vec![huge("a"), huge("b")]).check().is_err());
    }
}
