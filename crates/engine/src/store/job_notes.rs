//! Notes on the jobs of workers: which worker makes an action, and as which attempt. A later build reads them, and finds
//! the jobs again.
//! Knows nothing of workers: a note is bytes.

use std::collections::HashMap;
use std::path::PathBuf;

use super::cache_folder::make_folder;
use super::files::{list, remove};
use super::{LocalStore, owned_file};
use artifact::{Digest, IoError};

/// The longest note that is read, in bytes.
const LONGEST: u64 = 1 << 16;

impl LocalStore {
    /// Returns all notes, by the key of the action.
    pub fn job_notes(&self) -> HashMap<Digest, Vec<u8>> {
        let paths = list(&self.root().join("jobs")).unwrap_or_default();
        let read = |path: PathBuf| {
            let key = path.file_stem()?.to_str()?.parse().ok()?;
            Some((key, owned_file::read(&path, LONGEST).ok()?))
        };
        paths.into_iter().filter_map(read).collect()
    }

    /// Writes the note on an action.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn put_job_note(&self, key: &Digest, note: &[u8]) -> Result<(), IoError> {
        make_folder(&self.root().join("jobs"))?;
        self.write(&self.job_path(key), note)
    }

    /// Removes the note on an action, if there is one. A note that stays is of no consequence.
    pub fn remove_job_note(&self, key: &Digest) {
        let _ = remove(&self.job_path(key));
    }

    fn job_path(&self, key: &Digest) -> PathBuf {
        self.root().join("jobs").join(format!("{key}.json"))
    }
}
