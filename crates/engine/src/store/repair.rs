//! Puts a damaged content right: from an intact copy in `artifacts/`, or by removing it, so that it is made
//! again.
//! Knows nothing of how the damage was found.
//!
//! On a file system with clones, a file in `artifacts/` is a copy of its own, and survives what happens to the
//! stored one. With hard links both are the same file.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::files::{is_content, list, remove};
use super::{ArtifactsDir, LocalStore, file_system};
use crate::error::Result;
use artifact::{AtPath, Digest, FileEntry};

/// What was done about a damaged content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It was not damaged any more.
    Sound,
    /// It was copied from this file.
    Copied(PathBuf),
    /// No intact copy was found, so it was removed. A build makes it again.
    Removed,
}

impl LocalStore {
    /// Puts the content of `digest` right. [`Self::prepare`] must be called before.
    ///
    /// # Errors
    /// Fails if the cache cannot be read or written.
    pub fn repair(&self, digest: &Digest, artifacts_dir: &ArtifactsDir) -> Result<Repair> {
        let object = self.object_path(digest);
        if is_content(&object, digest) {
            return Ok(Repair::Sound);
        }
        let _gc_lock = self.gc_lock()?;
        let Some(copy) =
            self.copies(digest, artifacts_dir)?.into_iter().find(|path| is_content(path, digest))
        else {
            remove(&object)?;
            return Ok(Repair::Removed);
        };
        let unfinished = self.workspace().join(digest.short());
        remove(&unfinished)?;
        if reflink_copy::reflink(&copy, &unfinished).is_err() {
            file_system::copy(&copy, &unfinished).at("copy to", &unfinished)?;
        }
        File::open(&unfinished).and_then(|file| file.sync_all()).at("sync", &unfinished)?;
        if !is_content(&unfinished, digest) {
            return Err(io::Error::other("the copy is not what was copied"))
                .at("copy", &copy)
                .map_err(Into::into);
        }
        self.put_object(&unfinished, &object)?;
        Ok(Repair::Copied(copy))
    }

    /// Returns where `artifacts/` has files that should have this content.
    fn copies(&self, digest: &Digest, artifacts_dir: &ArtifactsDir) -> Result<Vec<PathBuf>> {
        let mut copies = Vec::new();
        let folders = list(artifacts_dir.root())?;
        for (key, _) in self.actions()? {
            let Some(action) = self.action(&key) else { continue };
            let end = format!("-{}", action.artifact.digest().short());
            let same = |file: &&FileEntry| file.digest == *digest;
            for file in action.artifact.files().iter().filter(same) {
                let ours = folders.iter().filter(|folder| folder.to_string_lossy().ends_with(&end));
                copies.extend(ours.map(|folder| folder.join(&file.path)));
            }
        }
        copies.retain(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()));
        Ok(copies)
    }
}
