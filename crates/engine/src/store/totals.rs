//! How much is in the cache, and how much space it saves because equal contents are stored once.
//! Knows nothing of how the contents came there.

use std::collections::HashSet;

use super::LocalStore;
use crate::error::Result;
use artifact::Digest;

/// What is in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many contents are stored.
    pub objects: usize,
    /// The size of these contents, in bytes.
    pub bytes: u64,
    /// How many records are stored.
    pub records: usize,
    /// How many more bytes the cache would have if every record had its own copy of its files. Files that are
    /// not stored do not count.
    pub saved: u64,
}

impl LocalStore {
    /// Counts the contents and the records. Files that a record names but the cache does not store, such as
    /// those of a source, do not count.
    ///
    /// # Errors
    /// Fails if the cache cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        let stored = self.stored()?;
        let size = |digest: &Digest| stored.get(digest).map_or(0, |(size, _)| *size);
        let bytes = stored.values().map(|(size, _)| size).sum();
        let mut totals = Totals { objects: stored.len(), bytes, ..Totals::default() };
        let mut seen = HashSet::new();
        for (key, _) in self.actions()? {
            let Some(action) = self.action(&key) else { continue };
            totals.records += 1;
            let again = action.artifact.files().iter().filter(|file| !seen.insert(file.digest));
            totals.saved = again.map(|file| size(&file.digest)).fold(totals.saved, u64::saturating_add);
        }
        Ok(totals)
    }
}
