//! Uploads an artifact to the remote: the chunks that it lacks, their chunk lists, and last the record.
//! Knows nothing of who will want it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::each;
use super::packing::pack;
use super::{Share, SharePolicy, chunk_name, file_name, record_name, seal, vouched};
use crate::Error;
use crate::store::{Action, Chunk, ChunkList, LocalStore, RemoteError, is_content, read_range};
use artifact::{AtPath, Digest, FileEntry, Interrupted, IoError, Tick, in_one_line};

/// Whether an action without a trusted statement is signed with our own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// It ran here, or the user vouches for it.
    Allowed,
    /// Somebody else made it, and nobody who is trusted vouches for it.
    Refused,
}

/// An action to upload.
pub struct Outgoing<'a> {
    /// Its key.
    pub key: &'a Digest,
    /// What of it is shared.
    pub policy: &'a SharePolicy,
    /// The action.
    pub action: &'a Action,
    /// Whether our own key may sign it.
    pub signing: Signing,
    /// Returns where a file of its artifact lies.
    pub place: &'a dyn Fn(&FileEntry) -> PathBuf,
}

/// Why an artifact was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// There is no key to sign with.
    #[error("there is no signing key; `pipeline keys init` makes one")]
    NoKey,
    /// It was not made here, and nobody who is trusted signed it.
    #[error(
        "it was not made here and no trusted key signed it, so it is not signed with your key; `pipeline verify` \
         makes it again and compares, `pipeline push --adopt` signs it as it is"
    )]
    NotOurs,
    /// The remote does not answer, or refuses.
    #[error(transparent)]
    Down(#[from] RemoteError),
    /// The remote does not answer, or refuses, and the user was already told that it fails.
    #[error("the remote fails")]
    AlreadyReported,
    /// Somebody asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A local file cannot be read or written, or its content was altered.
    #[error("{}", in_one_line(.0))]
    LocalIo(Error),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted(interrupted) => Self::Interrupted(interrupted),
            Error::Remote(error) => Self::Down(error),
            error => Self::LocalIo(error),
        }
    }
}

impl From<IoError> for Unsent {
    fn from(error: IoError) -> Self {
        Self::LocalIo(error.into())
    }
}

impl Share {
    /// Uploads an action: first its files, if they are shared, then its signed record. What the remote already
    /// has is skipped. If the remote refuses, records are still read from it; if it does not answer in time,
    /// they are not.
    ///
    /// # Errors
    ///
    /// Fails if there is no key to sign with or it may not sign this, the remote refuses or does not answer, a
    /// local file cannot be read or was altered, or `tick` asks to stop.
    pub fn push(&self, store: &LocalStore, outgoing: &Outgoing<'_>, tick: Tick<'_>) -> Result<(), Unsent> {
        let sent = self.push_action(store, outgoing, tick);
        let Err(Unsent::Down(error)) = &sent else { return sent };
        let mut state = self.state();
        state.is_down |= matches!(error, RemoteError::Silent { .. });
        if std::mem::replace(&mut state.is_told, true) { Err(Unsent::AlreadyReported) } else { sent }
    }

    fn push_action(&self, store: &LocalStore, outgoing: &Outgoing<'_>, tick: Tick<'_>) -> Result<(), Unsent> {
        let Outgoing { key, policy, action, .. } = *outgoing;
        let statement = self.statement(store, outgoing)?;
        if *policy != SharePolicy::Source {
            let (done, total) = (AtomicU64::new(0), action.artifact.size());
            let add = |bytes: u64| tick(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
            let files: Vec<_> = action.artifact.files().iter().collect();
            let stored = |file: &FileEntry| store.object_path(&file.digest);
            self.push_files(store, &files, &stored, &add)?;
        }
        // A trusted record with the same artifact is not replaced, whoever signed it: others may not trust
        // our key.
        let same = |theirs: Action| theirs.artifact == action.artifact && theirs.recipe == action.recipe;
        if !self.record(key, policy).is_some_and(same) {
            self.remote()?.put(&record_name(key, policy), statement)?;
        }
        Ok(())
    }

    /// Uploads the contents of files: small ones in parallel, because each waits for two answers. Large files go one
    /// after the other, with their chunks in parallel.
    pub(super) fn push_files(
        &self,
        store: &LocalStore,
        files: &[&FileEntry],
        place: &(dyn Fn(&FileEntry) -> PathBuf + Sync),
        add: &(dyn Fn(u64) -> Result<(), Interrupted> + Sync),
    ) -> Result<(), Unsent> {
        let push = |file: &&&FileEntry| self.push_file(store, file, &place(file), add);
        let (large, small): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| super::may_be_cut(&file.path, file.size));
        each(&small, |file| 2 * file.size, push)?;
        large.iter().try_for_each(push)
    }

    /// Returns the statement to upload: the one in the local cache if it is trusted and still right, whoever
    /// signed it, else a new one signed with our own key, if that is allowed.
    fn statement(&self, store: &LocalStore, outgoing: &Outgoing<'_>) -> Result<Vec<u8>, Unsent> {
        let Outgoing { key, policy, action, signing, place } = *outgoing;
        if let Some(kept) = store.attestation(key)
            && let Ok((claim, _)) = vouched(&kept, &self.believed(), key, policy)
            && claim.action.artifact == action.artifact
        {
            return Ok(kept);
        }
        let own = self.settings.own.ok_or(Unsent::NoKey)?;
        if signing == Signing::Refused {
            return Err(Unsent::NotOurs);
        }
        let envelope = seal(key, policy, action, own, place)?;
        store.put_attestation(key, &envelope)?;
        Ok(envelope)
    }

    fn push_file(
        &self,
        store: &LocalStore,
        file: &FileEntry,
        path: &Path,
        add: &(dyn Fn(u64) -> Result<(), Interrupted> + Sync),
    ) -> Result<(), Unsent> {
        // A chunk list may have been made from a file that was damaged already, so the file is hashed first.
        if !is_content(path, &file.digest) {
            return Err(altered(path).into());
        }
        let list = cut(store, path, file)?;
        let opened = File::open(path).at("read", path)?;
        let places: Vec<_> = list.places().collect();
        each(
            &places,
            |(_, chunk)| 2 * chunk.length,
            |(at, chunk)| {
                self.push_chunk(path, &opened, *at, chunk)?;
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
        // A name in the remote promises its content, so altered bytes are not uploaded.
        if Digest::of(&bytes) != chunk.digest {
            return Err(altered(path).into());
        }
        let bytes = if self.settings.compress { pack(bytes) } else { bytes };
        let sent = bytes.len() as u64;
        self.remote()?.put(&name, bytes)?;
        self.state().traffic.sent += sent;
        Ok(())
    }

    /// Whether the remote has an object under `name`. After damage was found in the remote, the answer is
    /// always no, so everything is uploaded again. This repairs damaged objects when the affected nodes are
    /// built.
    pub(super) fn has(&self, name: &str) -> Result<bool, RemoteError> {
        if self.state().is_damaged {
            return Ok(false);
        }
        self.remote()?.size(name).map(|size| size.is_some())
    }
}

fn altered(path: &Path) -> Error {
    let problem = "was altered since it was stored; `pipeline verify --store --repair` puts it right";
    Error::Store(format!("{} {problem}", path.display()))
}

/// Returns the chunks of a stored file. The file is read only if it can be cut and its chunk list is not
/// kept.
fn cut(store: &LocalStore, path: &Path, file: &FileEntry) -> crate::Result<ChunkList> {
    if !super::may_be_cut(&file.path, file.size) {
        return Ok(ChunkList::of_one(file.digest, file.size));
    }
    if let Some(list) = store.chunk_list(&file.digest) {
        return Ok(list);
    }
    let list = ChunkList::of_file(path, &file.path)?;
    if list.count() > 1 {
        store.put_chunk_list(&file.digest, &list)?;
    }
    Ok(list)
}
