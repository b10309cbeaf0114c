//! The records of the local cache, as far as they are believed.
//! Knows nothing of the remote.
//!
//! Whoever can write to the cache can put a record there. Ordinary builds believe all of them: the cache is
//! this user's. A build that must match the lock, with keys that are trusted, believes what this machine made
//! and what a trusted key signed.

use std::collections::HashMap;

use super::{SharePolicy, vouched};
use crate::sign::PublicKey;
use crate::store::{Action, LocalStore};
use artifact::Digest;

/// The records of a cache, and who is believed.
#[derive(Clone, Copy, Debug)]
pub struct LocalRecords<'a> {
    store: &'a LocalStore,
    /// The keys whose statements count; `None` if every record counts.
    believed: Option<&'a Believed>,
}

/// Which records count in a build that must match the lock.
#[derive(Clone, Debug, Default)]
pub struct Believed {
    /// The keys whose statements count.
    pub keys: Vec<PublicKey>,
    /// For the key of an action, the reproducible digest of its artifact in `pipeline.lock`.
    pub locked: HashMap<Digest, Digest>,
}

impl<'a> LocalRecords<'a> {
    /// Sets who is believed: the holders of these keys and this machine, or everybody if it is `None`.
    pub fn new(store: &'a LocalStore, believed: Option<&'a Believed>) -> Self {
        Self { store, believed }
    }

    /// Whether only some records are believed.
    pub fn are_strict(&self) -> bool {
        self.believed.is_some()
    }

    /// Returns the action recorded under `key`, if its record is believed.
    pub fn get(&self, key: &Digest, policy: &SharePolicy) -> Option<Action> {
        let record = self.store.record(key)?;
        let Some(believed) = self.believed.filter(|_| !record.made_here) else { return Some(record.action) };
        let is_locked = believed.locked.get(key);
        if is_locked.is_some_and(|locked| *locked != record.action.artifact.reproducible_digest()) {
            return None;
        }
        let (claim, _) = vouched(&self.store.attestation(key)?, &believed.keys, key, policy).ok()?;
        let is_same =
            claim.action.artifact == record.action.artifact && claim.action.failure == record.action.failure;
        is_same.then_some(record.action)
    }
}
