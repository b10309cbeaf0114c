//! Collecting what nobody needs in the remote: old records, and the contents that no record names.
//! Knows nothing of nodes; is told which keys are current.
//!
//! A remote has many writers and no locks. So nothing is removed that was written within the grace period: it may be on
//! its way into a record. A writer who was told that a content is there, just before it goes, leaves a record with a hole:
//! for whoever finds it a miss, which is built and sent again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::budget::each;
use super::{LONGEST_RECORD, Share, chunk_name, file_name, may_be_cut};
use crate::artifact::FileEntry;
use crate::attestation::Claim;
use crate::digest::Digest;
use crate::sign::Envelope;
use crate::store::{ChunkList, Held, RemoteError};

/// The longest list of chunks that is read, in bytes.
const LONGEST_LIST: u64 = 64 << 20;

/// What may go.
#[derive(Clone, Copy, Debug)]
pub struct Spare {
    /// Records that are not current and were written so long ago; none if nothing is said.
    pub older_than: Option<Duration>,
    /// Contents without a record that were written so long ago.
    pub grace: Duration,
}

/// What goes, decided before anything is removed.
#[derive(Debug, Default)]
pub struct Waste {
    /// The records.
    pub records: Vec<Held>,
    /// The contents and lists.
    pub contents: Vec<Held>,
    /// How many records stay.
    pub left_records: usize,
    /// How many bytes stay.
    pub left_bytes: u64,
}

impl Waste {
    /// Returns how many bytes go.
    pub fn bytes(&self) -> u64 {
        self.records.iter().chain(&self.contents).map(|held| held.size).sum()
    }
}

impl Share {
    /// Decides what goes. `current` are the keys of what is in use. Whatever cannot be read now ends this: on
    /// incomplete knowledge nothing is removed.
    pub fn waste(&self, current: &HashSet<Digest>, spare: Spare) -> Result<Waste, RemoteError> {
        let remote = self.remote()?;
        let now = SystemTime::now();
        let age = |held: &Held| now.duration_since(held.modified).unwrap_or_default();
        let named: Mutex<HashSet<String>> = Mutex::default();
        let (gone, left) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let push = |list: &Mutex<Vec<Held>>, held: &Held| lock(list).push(held.clone());
        // Before the contents are listed: what is written in between is younger than the grace period.
        each(
            &remote.list("actions")?,
            |held| held.size,
            |held| {
                let claim = self.read_claim(held)?;
                let is_current = claim.as_ref().is_some_and(|claim| current.contains(&claim.key));
                let limit = if claim.is_some() { spare.older_than } else { Some(spare.grace) };
                if !is_current && limit.is_some_and(|limit| age(held) > limit) {
                    push(&gone, held);
                    return Ok(());
                }
                push(&left, held);
                let files = claim.iter().flat_map(|claim| claim.action.artifact.files());
                files.into_iter().try_for_each(|file| self.mark(file, &named))
            },
        )?;
        let named = named.into_inner().unwrap_or_else(PoisonError::into_inner);
        let contents = [remote.list("files")?, remote.list("chunks")?].concat();
        let (contents, rest): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|held| !named.contains(&held.name) && age(held) > spare.grace);
        let (mut records, left) = (std::mem::take(&mut *lock(&gone)), std::mem::take(&mut *lock(&left)));
        records.sort_by(|a, b| a.name.cmp(&b.name));
        let left_bytes = left.iter().chain(&rest).map(|held| held.size).sum();
        Ok(Waste { records, contents, left_records: left.len(), left_bytes })
    }

    /// Removes what goes: the records first, so that whatever interrupts this, no record names what is gone.
    pub fn remove(&self, waste: &Waste) -> Result<(), RemoteError> {
        for held in [&waste.records, &waste.contents] {
            each(held, |_| 0, |held| self.remote()?.remove(&held.name))?;
        }
        Ok(())
    }

    /// Reads what a record names. Who signed it does not matter here: a stranger's record keeps its contents, too.
    fn read_claim(&self, held: &Held) -> Result<Option<Claim>, RemoteError> {
        let json = match self.remote()?.get(&held.name, LONGEST_RECORD) {
            Err(RemoteError::TooLong { .. }) => None,
            found => found?,
        };
        let payload = json.and_then(|json| Envelope::parse(&json).ok()).map(|envelope| envelope.payload);
        Ok(payload.and_then(|payload| Claim::parse(&payload).ok()))
    }

    /// Notes the names that a file of a record lies under.
    fn mark(&self, file: &FileEntry, named: &Mutex<HashSet<String>>) -> Result<(), RemoteError> {
        let mut names = vec![chunk_name(&file.digest), file_name(&file.digest)];
        if may_be_cut(&file.path, file.size) {
            let json = match self.remote()?.get(&file_name(&file.digest), LONGEST_LIST) {
                Err(RemoteError::TooLong { .. }) => None,
                found => found?,
            };
            let list = json.and_then(|json| ChunkList::parse(&json, file.size).ok());
            names.extend(list.iter().flat_map(ChunkList::places).map(|(_, chunk)| chunk_name(&chunk.digest)));
        }
        lock(named).extend(names);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
