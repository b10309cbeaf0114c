//! How much is in the cache, and how much it does not take because the same content is stored once.
//! Knows nothing of how it came there.

use std::collections::HashSet;

use super::LocalStore;
use crate::error::Result;
use artifact::Digest;

/// What is in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many contents.
    pub objects: usize,
    /// How many bytes these have.
    pub bytes: u64,
    /// How many records.
    pub records: usize,
    /// The sizes of the stored files that the records name, of each record once, less the sizes of the contents behind
    /// them, of each content once: what it would take in addition if every record had its files for itself.
    pub saved: u64,
}

impl LocalStore {
    /// Counts what is there. What a record names and is not stored, such as the files of a source, does not count.
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
