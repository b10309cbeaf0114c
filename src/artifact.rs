//! An artifact: a sorted list of files with their digests.
//! Knows nothing of where the bytes lie, nor of who made them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The blake3 digest of the content.
    pub digest: Digest,
    /// Where the file lies in the artifact: relative, with `/` between its parts.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Differs from run to run (times, machine), so it is kept and shown but never compared.
    pub volatile: bool,
}

/// A path in a file list that could lead out of the artifact's folder.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a relative path below the artifact's folder")]
pub struct InvalidPath(pub String);

impl FileEntry {
    /// Checks that the path is relative and stays below the artifact's folder.
    pub fn check(&self) -> Result<(), InvalidPath> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        if self.path.split('/').all(plain) { Ok(()) } else { Err(InvalidPath(self.path.clone())) }
    }
}

/// What a node made: files, sorted by path. Carries no times and no absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Artifact {
    files: Vec<FileEntry>,
}

impl Artifact {
    /// Makes an artifact of `files`, in any order.
    pub fn new(mut files: Vec<FileEntry>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Returns the entry of the file at `path`.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        let found = self.files.binary_search_by(|file| file.path.as_str().cmp(path));
        found.ok().and_then(|index| self.files.get(index))
    }

    /// Returns the sum of the files' lengths in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Returns the digest of the whole list: the name of this very folder.
    pub fn digest(&self) -> Digest {
        digest_of_list(self.files.iter())
    }

    /// Returns the digest of what is the same on every run: what the lock holds, what the nodes below see
    /// as their input, what two machines compare.
    pub fn reproducible_digest(&self) -> Digest {
        digest_of_list(self.files.iter().filter(|file| !file.volatile))
    }
}

/// Returns the blake3 of the canonical JSON `[[path, size, digest], …]`.
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
    }
}
