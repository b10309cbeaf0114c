//! Sending an artifact to the team: the chunks that the remote lacks, the lists of them, and last the record.
//! Knows nothing of who will want it.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::each;
use super::packing::pack;
use super::{Kind, Share, Tick, chunk_name, file_name, open, record_name, seal};
use crate::store::{Action, Chunk, ChunkList, LocalStore, RemoteError, read_range};
use artifact::{AtPath, Digest, FileEntry, Interrupted, IoError};

/// Why an artifact was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// There is no key to sign with.
    #[error("there is no signing key; `pipeline keys init` makes one")]
    NoKey,
    /// The remote does not answer, or refuses.
    #[error(transparent)]
    Down(#[from] RemoteError),
    /// The remote does not answer, or refuses, and the user knows.
    #[error("the remote fails")]
    Told,
    /// Somebody asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The disk here failed, or what lies on it is not what it should be.
    #[error("{0:#}")]
    Here(#[from] anyhow::Error),
}

impl From<IoError> for Unsent {
    fn from(error: IoError) -> Self {
        Self::Here(error.into())
    }
}

impl Share {
    /// Sends the action of `key`, signed: its files if they travel, then its record. What the remote has is not sent. One
    /// that refuses may still be read; one that is silent is left alone.
    pub fn push(
        &self,
        store: &LocalStore,
        key: &Digest,
        kind: Kind,
        action: &Action,
        tick: Tick<'_>,
    ) -> Result<(), Unsent> {
        let sent = self.push_action(store, key, kind, action, tick);
        let Err(Unsent::Down(error)) = &sent else { return sent };
        let mut state = self.state();
        state.is_down |= matches!(error, RemoteError::Silent { .. });
        if std::mem::replace(&mut state.is_told, true) { Err(Unsent::Told) } else { sent }
    }

    fn push_action(
        &self,
        store: &LocalStore,
        key: &Digest,
        kind: Kind,
        action: &Action,
        tick: Tick<'_>,
    ) -> Result<(), Unsent> {
        let envelope = self.statement(store, key, kind, action)?;
        if kind != Kind::Source {
            let (done, total) = (AtomicU64::new(0), action.artifact.size());
            let add = |bytes: u64| tick(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
            // Small files side by side, because each takes the time of two answers; of large ones the chunks.
            let push = |file: &&FileEntry| self.push_file(store, file, &add);
            let (large, small): (Vec<_>, Vec<_>) =
                action.artifact.files().iter().partition(|file| super::may_be_cut(&file.path, file.size));
            each(&small, |file| 2 * file.size, push)?;
            large.iter().try_for_each(push)?;
        }
        // A record that we believe and that says the same stays, whoever signed it: others may not believe us.
        let same = |theirs: Action| theirs.artifact == action.artifact;
        if !self.record(key, kind).is_some_and(same) {
            self.remote()?.put(&record_name(key, kind), envelope)?;
        }
        Ok(())
    }

    /// Returns the statement that goes out: the one that is kept, whoever of us signed it, else our own.
    fn statement(
        &self,
        store: &LocalStore,
        key: &Digest,
        kind: Kind,
        action: &Action,
    ) -> Result<Vec<u8>, Unsent> {
        if let Some(kept) = store.attestation(key)
            && let Ok((claim, _)) = open(&kept, &self.believed())
            && claim.key == *key
            && claim.action.artifact == action.artifact
        {
            return Ok(kept);
        }
        let own = self.settings.own.as_ref().ok_or(Unsent::NoKey)?;
        let envelope = seal(key, kind, action, own);
        store.attest(key, &envelope)?;
        Ok(envelope)
    }

    fn push_file(
        &self,
        store: &LocalStore,
        file: &FileEntry,
        add: &(dyn Fn(u64) -> Result<(), Interrupted> + Sync),
    ) -> Result<(), Unsent> {
        let path = store.object_path(&file.digest);
        let list = cut(store, &path, file)?;
        let opened = File::open(&path).at("read", &path)?;
        let places: Vec<_> = list.places().collect();
        each(
            &places,
            |(_, chunk)| 2 * chunk.length,
            |(at, chunk)| {
                self.push_chunk(&path, &opened, *at, chunk)?;
                Ok::<_, Unsent>(add(chunk.length)?)
            },
        )?;
        let name = file_name(&file.digest);
        if list.count() > 1 && !self.has(&name)? {
            self.remote()?.put(&name, list.to_json())?;
        }
        Ok(())
    }

    fn push_chunk(&self, path: &Path, file: &File, at: u64, chunk: &Chunk) -> Result<(), Unsent> {
        let name = chunk_name(&chunk.digest);
        if self.has(&name)? {
            self.state().traffic.already_there += chunk.length;
            return Ok(());
        }
        let bytes = read_range(file, &(at..at + chunk.length)).at("read", path)?;
        // What is sent under this name is what the name says, or nothing is.
        if Digest::of(&bytes) != chunk.digest {
            let problem = "was altered since it was stored; `pipeline build` makes it again";
            return Err(anyhow::anyhow!("{} {problem}", path.display()).into());
        }
        let bytes = if self.settings.compress { pack(bytes) } else { bytes };
        let sent = bytes.len() as u64;
        self.remote()?.put(&name, bytes)?;
        self.state().traffic.sent += sent;
        Ok(())
    }

    /// Whether the remote has something under `name`. Once damage was found in it, all that is sent is sent anew: what
    /// was damaged there is right again when the nodes that stumbled over it are built.
    fn has(&self, name: &str) -> Result<bool, RemoteError> {
        if self.state().is_damaged {
            return Ok(false);
        }
        self.remote()?.size(name).map(|size| size.is_some())
    }
}

/// Returns how a stored file is cut. Where that is known the file is not read.
fn cut(store: &LocalStore, path: &Path, file: &FileEntry) -> anyhow::Result<ChunkList> {
    if !super::may_be_cut(&file.path, file.size) {
        return Ok(ChunkList::of_one(file.digest, file.size));
    }
    if let Some(list) = store.chunk_list(&file.digest) {
        return Ok(list);
    }
    let list = ChunkList::of_file(path, &file.path)?;
    if list.count() > 1 {
        store.keep_chunk_list(&file.digest, &list)?;
    }
    Ok(list)
}
