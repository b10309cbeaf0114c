//! Counters over all builds and transfers on a cache: hits, misses, and bytes transferred.
//! Knows nothing of single nodes. Errors are ignored; a damaged file resets the counts.

use serde::{Deserialize, Serialize};

use super::checksum::{strip_checksum, with_checksum};
use super::{KeyLock, LocalStore, owned_file};

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 16;

/// The counts of one build, or of all. A field that an older file does not have is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Nodes taken from this cache.
    pub local_hits: u64,
    /// Nodes taken from the remote.
    pub remote_hits: u64,
    /// Nodes whose stage ran.
    pub misses: u64,
    /// Bytes downloaded from the remote.
    pub bytes_fetched: u64,
    /// Bytes uploaded to the remote.
    pub bytes_sent: u64,
    /// Bytes not uploaded, because the remote had them already.
    pub bytes_not_sent: u64,
}

impl Counters {
    /// Adds the counts of another build.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.local_hits, other.local_hits),
            (&mut self.remote_hits, other.remote_hits),
            (&mut self.misses, other.misses),
            (&mut self.bytes_fetched, other.bytes_fetched),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.bytes_not_sent, other.bytes_not_sent),
        ];
        for (count, more) in pairs {
            *count = count.saturating_add(more);
        }
    }
}

impl LocalStore {
    /// Returns the counts of all builds on this cache.
    pub fn counters(&self) -> Counters {
        let bytes = owned_file::read(&self.counters_path(), LONGEST).unwrap_or_default();
        strip_checksum(&bytes).and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// Adds the counts of a build. Builds that end at the same time wait for each other. If the lock or the
    /// file cannot be written, the build is not counted.
    pub fn count(&self, build: &Counters) {
        if *build == Counters::default() {
            return;
        }
        let Ok(_lock) = KeyLock::wait(&self.tmp().join("stats.lock")) else { return };
        let mut all = self.counters();
        all.add(build);
        if let Ok(body) = serde_json::to_vec(&all) {
            self.put_cache_file(&self.counters_path(), &with_checksum(&body));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn counts_on_and_forgets_what_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let store = LocalStore::new(folder.path().to_owned());
        let build = Counters { local_hits: 2, misses: u64::MAX, ..Counters::default() };
        store.count(&build);
        store.count(&build);
        assert_eq!(store.counters(), Counters { local_hits: 4, ..build });
        fs::write(store.counters_path(), "{}").unwrap();
        assert_eq!(store.counters(), Counters::default());
        // As an older program wrote it.
        fs::write(store.counters_path(), with_checksum(br#"{"misses":3}"#)).unwrap();
        assert_eq!(store.counters(), Counters { misses: 3, ..Counters::default() });
    }
}
