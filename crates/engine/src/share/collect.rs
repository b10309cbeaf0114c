//! Garbage collection in the remote: removes old records, and contents that no record names.
//! Knows nothing of nodes; is told which keys are current.
//!
//! A remote has many writers and no locks. So contents that were written within the grace period are kept: a
//! record that names them may follow. One race remains. A writer learns that a content exists just before it
//! is removed, and then writes a record that names it. Whoever reads that record gets a miss, builds the node
//! and uploads it again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::budget::each;
use super::{LONGEST_LIST, LONGEST_RECORD, Share, chunk_name, file_name, may_be_cut};
use crate::attestation::Claim;
use crate::sign::Envelope;
use crate::store::{ChunkList, RemoteError, RemoteObject};
use artifact::{Digest, FileEntry};

/// How old an object must be before it is removed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The age from which a record that is not current is removed; if `None`, such records are kept.
    pub older_than: Option<Duration>,
    /// The age from which a content that no record names, or a record that cannot be read, is removed.
    pub grace: Duration,
}

/// What will be removed; decided before anything is removed.
#[derive(Debug, Default)]
pub struct RemoteGcPlan {
    /// The records to remove.
    pub records: Vec<RemoteObject>,
    /// The chunks and chunk lists to remove.
    pub contents: Vec<RemoteObject>,
    /// How many records are kept.
    pub left_records: usize,
    /// How many bytes are kept.
    pub left_bytes: u64,
}

impl RemoteGcPlan {
    /// Returns how many bytes are removed.
    pub fn bytes(&self) -> u64 {
        self.records.iter().chain(&self.contents).map(|held| held.size).sum()
    }
}

impl Share {
    /// Decides what to remove. `current` holds the keys that are in use, and `asked` returns the files that a request to
    /// a worker names. A failed read ends this: nothing is removed on incomplete knowledge.
    ///
    /// # Errors
    ///
    /// Fails if the remote cannot be opened, refuses, or does not answer.
    pub fn plan_gc(
        &self,
        current: &HashSet<Digest>,
        retention: Retention,
        asked: &(dyn Fn(&[u8]) -> Vec<FileEntry> + Sync),
    ) -> Result<RemoteGcPlan, RemoteError> {
        let remote = self.remote()?;
        let now = SystemTime::now();
        let age = |held: &RemoteObject| now.duration_since(held.modified).unwrap_or_default();
        let mut listed = remote.list("actions")?;
        listed.retain(|held| is_record_name(&held.name));
        let records = self.claims(&listed)?;
        let is_current = |claim: &Claim| current.contains(&claim.key);
        // A record with the same artifact as a current one is kept too: its contents stay anyway. For a
        // benchmark, the artifact is the measurement.
        let claims = records.iter().filter_map(|(_, claim)| claim.as_ref());
        let kept = claims.filter(|claim| is_current(claim));
        let kept: HashSet<_> = kept.map(|claim| claim.action.artifact.digest()).collect();
        let goes = |(held, claim): &(RemoteObject, Option<Claim>)| match claim {
            Some(claim) if kept.contains(&claim.action.artifact.digest()) => false,
            Some(_) => retention.older_than.is_some_and(|limit| age(held) > limit),
            None => age(held) > retention.grace,
        };
        let (gone, left): (Vec<_>, Vec<_>) = records.into_iter().partition(goes);
        let mut named = self.names(&left)?;
        // A request that is young may still be worked on. The others, and what was answered, are of no use.
        let mut texts = [remote.list("requests")?, remote.list("outcomes")?].concat();
        texts.retain(|held| is_text_name(&held.name));
        // An outcome says under which class of machine a measurement is kept.
        let left_keys: HashSet<_> = left.iter().filter_map(|(_, claim)| Some(claim.as_ref()?.key)).collect();
        let is_of_record = |held: &RemoteObject| {
            let key = held.name.strip_prefix("outcomes/").and_then(|name| name.strip_suffix(".json"));
            key.and_then(|key| key.parse().ok()).is_some_and(|key: Digest| left_keys.contains(&key))
        };
        let is_spare = |held: &RemoteObject| age(held) > retention.grace && !is_of_record(held);
        let (texts, open): (Vec<_>, Vec<_>) = texts.into_iter().partition(is_spare);
        named.extend(self.names_asked(&open, asked)?);
        let mut contents = [remote.list("files")?, remote.list("chunks")?].concat();
        // Only what has a name of ours is removed.
        contents.retain(|held| is_content_name(&held.name));
        let (contents, rest): (Vec<_>, Vec<_>) =
            contents.into_iter().partition(|held| !named.contains(&held.name) && age(held) > retention.grace);
        let left_bytes =
            left.iter().map(|(held, _)| held).chain(&rest).chain(&open).map(|held| held.size).sum();
        let records = gone.into_iter().map(|(held, _)| held).chain(texts).collect();
        Ok(RemoteGcPlan { records, contents, left_records: left.len(), left_bytes })
    }

    /// Reads the claims in `records`; returns them sorted by name, with `None` for what is not a record.
    fn claims(&self, records: &[RemoteObject]) -> Result<Vec<(RemoteObject, Option<Claim>)>, RemoteError> {
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

    /// Returns the names of all chunks and chunk lists that `records` need.
    fn names(&self, records: &[(RemoteObject, Option<Claim>)]) -> Result<HashSet<String>, RemoteError> {
        let named: Mutex<HashSet<String>> = Mutex::default();
        let claims: Vec<_> = records.iter().filter_map(|(_, claim)| claim.as_ref()).collect();
        each(
            &claims,
            |_| 0,
            |claim| claim.action.artifact.files().iter().try_for_each(|file| self.mark(file, &named)),
        )?;
        Ok(named.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the names of all chunks and chunk lists that requests need.
    fn names_asked(
        &self,
        texts: &[RemoteObject],
        asked: &(dyn Fn(&[u8]) -> Vec<FileEntry> + Sync),
    ) -> Result<HashSet<String>, RemoteError> {
        let named: Mutex<HashSet<String>> = Mutex::default();
        let requests: Vec<_> = texts.iter().filter(|held| held.name.starts_with("requests/")).collect();
        each(
            &requests,
            |held| held.size,
            |held| {
                let json = match self.remote()?.get(&held.name, LONGEST_RECORD) {
                    Err(RemoteError::TooLong { .. }) => None,
                    found => found?,
                };
                let text = json.and_then(|json| Envelope::parse(&json).ok()).map(|envelope| envelope.payload);
                let files = text.map(|text| asked(&text)).unwrap_or_default();
                files.iter().try_for_each(|file| self.mark(file, &named))
            },
        )?;
        Ok(named.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes the objects in `waste`. Records are removed first, so if this is interrupted, no record names
    /// a content that is gone.
    ///
    /// # Errors
    ///
    /// Fails if the remote cannot be opened, refuses, or does not answer; some objects may be gone by then.
    pub fn collect(&self, plan: &RemoteGcPlan) -> Result<(), RemoteError> {
        for held in [&plan.records, &plan.contents] {
            each(held, |_| 0, |held| self.remote()?.remove(&held.name))?;
        }
        Ok(())
    }

    /// Reads the claim in a record. The signature is not checked: the records of untrusted signers keep their
    /// contents too.
    fn read_claim(&self, held: &RemoteObject) -> Result<Option<Claim>, RemoteError> {
        let json = match self.remote()?.get(&held.name, LONGEST_RECORD) {
            Err(RemoteError::TooLong { .. }) => None,
            found => found?,
        };
        let payload = json.and_then(|json| Envelope::parse(&json).ok()).map(|envelope| envelope.payload);
        Ok(payload.and_then(|payload| Claim::parse(&payload).ok()))
    }

    /// Adds the names of the chunks and the chunk list of `file` to `named`.
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

/// Whether a name is that of a record: `actions/KEY.json`.
fn is_record_name(name: &str) -> bool {
    let key = name.strip_prefix("actions/").and_then(|name| name.strip_suffix(".json"));
    key.is_some_and(|key| key.parse::<Digest>().is_ok())
}

/// Whether a name is that of a request to a worker or of its outcome: `requests/KEY.json`.
fn is_text_name(name: &str) -> bool {
    let key = ["requests/", "outcomes/"].iter().find_map(|folder| name.strip_prefix(folder));
    key.and_then(|name| name.strip_suffix(".json")).is_some_and(|key| key.parse::<Digest>().is_ok())
}

/// Whether a name is that of a chunk or of a list of chunks: `chunks/ab/cdef…`, `files/ab/cdef…`.
fn is_content_name(name: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    matches!(parts.as_slice(), ["files" | "chunks", first @ .., last] if first.len() == 1
        && format!("{}{last}", first.concat()).parse::<Digest>().is_ok())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
