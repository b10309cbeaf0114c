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
use super::{LONGEST_LIST, LONGEST_RECORD, Share, chunk_name, file_name, may_be_cut};
use crate::attestation::Claim;
use crate::sign::Envelope;
use crate::store::{ChunkList, Held, RemoteError};
use artifact::{Digest, FileEntry};

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
        let records = self.claims(&remote.list("actions")?)?;
        let is_current = |claim: &Claim| current.contains(&claim.key);
        // Others with the very same artifact take no room of their own; of a benchmark it is what was measured.
        let claims = records.iter().filter_map(|(_, claim)| claim.as_ref());
        let kept = claims.filter(|claim| is_current(claim));
        let kept: HashSet<_> = kept.map(|claim| claim.action.artifact.digest()).collect();
        let goes = |(held, claim): &(Held, Option<Claim>)| match claim {
            Some(claim) if kept.contains(&claim.action.artifact.digest()) => false,
            Some(_) => spare.older_than.is_some_and(|limit| age(held) > limit),
            None => age(held) > spare.grace,
        };
        let (gone, left): (Vec<_>, Vec<_>) = records.into_iter().partition(goes);
        let named = self.names(&left)?;
        let contents = [remote.list("files")?, remote.list("chunks")?].concat();
        let (contents, rest): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|held| !named.contains(&held.name) && age(held) > spare.grace);
        let left_bytes = left.iter().map(|(held, _)| held).chain(&rest).map(|held| held.size).sum();
        let records = gone.into_iter().map(|(held, _)| held).collect();
        Ok(Waste { records, contents, left_records: left.len(), left_bytes })
    }

    /// Reads what records say, in their order; nothing of one that is none.
    fn claims(&self, records: &[Held]) -> Result<Vec<(Held, Option<Claim>)>, RemoteError> {
        let claims = Mutex::new(Vec::new());
        each(
            records,
            |held| held.size,
            |held| {
                let claim = self.read_claim(held)?;
                lock(&claims).push((held.clone(), claim));
                Ok::<_, RemoteError>(())
            },
        )?;
        let mut claims = claims.into_inner().unwrap_or_else(PoisonError::into_inner);
        claims.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(claims)
    }

    /// Returns the names that the files of records lie under.
    fn names(&self, records: &[(Held, Option<Claim>)]) -> Result<HashSet<String>, RemoteError> {
        let named: Mutex<HashSet<String>> = Mutex::default();
        let claims: Vec<_> = records.iter().filter_map(|(_, claim)| claim.as_ref()).collect();
        each(
            &claims,
            |_| 0,
            |claim| claim.action.artifact.files().iter().try_for_each(|file| self.mark(file, &named)),
        )?;
        Ok(named.into_inner().unwrap_or_else(PoisonError::into_inner))
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
