//! Bringing the files of an artifact here: only the chunks that no file here has, each hashed, then the whole.
//! Knows nothing of why they are wanted.
//!
//! A file arrives in `cache/tmp/DIGEST.partial`. What arrived before a break is found again by its hash, so the next
//! attempt fetches the rest, and no note is kept of how far one came.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::arrival::Arrival;
use super::budget::each;
use super::packing::unpack;
use super::sources::Sources;
use super::{LONGEST_LIST, Share, Tick, chunk_name, file_name};
use crate::store::{Chunk, ChunkList, LONGEST_CHUNK, LocalStore, RemoteError, Stat};
use artifact::{Artifact, AtPath, Digest, FileEntry, Interrupted, IoError};

/// Why an artifact did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    /// Something that a record names is not in the remote, or is not what its name says.
    #[error("{0}")]
    Lost(String),
    /// The remote does not answer.
    #[error(transparent)]
    Down(#[from] RemoteError),
    /// Somebody asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The disk here failed.
    #[error("{0:#}")]
    Here(#[from] anyhow::Error),
}

impl From<IoError> for Miss {
    fn from(error: IoError) -> Self {
        Self::Here(error.into())
    }
}

/// How far a pull has come.
struct Progress<'a> {
    tick: Tick<'a>,
    done: AtomicU64,
    total: u64,
}

impl Progress<'_> {
    fn add(&self, bytes: u64) -> Result<(), Interrupted> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.tick)(done, self.total)
    }
}

impl Share {
    /// Brings the files of `artifact` that are not here into `store`; returns the states of all of them. On a miss, which
    /// the user is told of, the files that did arrive are kept.
    pub fn pull(
        &self,
        store: &LocalStore,
        artifact: &Artifact,
        tick: Tick<'_>,
    ) -> Result<Vec<(Stat, Digest)>, Miss> {
        let progress = Progress { tick, done: AtomicU64::new(0), total: artifact.size() };
        let pulled = self.pull_files(store, artifact, &progress);
        match &pulled {
            Err(Miss::Down(error)) => self.failed(error),
            Err(Miss::Lost(problem)) => {
                self.state().is_damaged = true;
                self.notice(problem.clone());
            }
            _ => {}
        }
        pulled
    }

    /// Brings small files side by side, because each takes the time of an answer and of the disk, and large ones one after
    /// the other, because each has chunks to be brought side by side.
    fn pull_files(
        &self,
        store: &LocalStore,
        artifact: &Artifact,
        progress: &Progress<'_>,
    ) -> Result<Vec<(Stat, Digest)>, Miss> {
        let stats = Mutex::new(Vec::new());
        let pull = |file: &&FileEntry| {
            let stat = self.pull_file(store, file, progress).map_err(|miss| match miss {
                // What arrives has no name of its own yet.
                Miss::Here(error) => Miss::Here(error.context(file.path.clone())),
                miss => miss,
            })?;
            stats.lock().unwrap_or_else(PoisonError::into_inner).push((stat, file.digest));
            Ok::<(), Miss>(())
        };
        let (large, small): (Vec<_>, Vec<_>) =
            artifact.files().iter().partition(|file| super::may_be_cut(&file.path, file.size));
        each(&small, |file| 2 * file.size, pull)?;
        large.iter().try_for_each(pull)?;
        Ok(stats.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn pull_file(&self, store: &LocalStore, file: &FileEntry, progress: &Progress<'_>) -> Result<Stat, Miss> {
        let object = store.object_path(&file.digest);
        let go_on = || (progress.tick)(progress.done.load(Ordering::Relaxed), progress.total);
        // Another process may be bringing the same file; then it is here when that one is done.
        let (partial, _lock) = store.arrival(&file.digest, &go_on)?;
        if Digest::of_file(&object).is_ok_and(|(digest, _)| digest == file.digest) {
            progress.add(file.size)?;
            return Ok(Stat::at(&object).at("read", &object)?);
        }
        let list = self.chunks_of(file)?;
        let sources = Sources::find(store, &list)?;
        if let Err(miss) = self.fill(&partial, file, &list, &sources, progress) {
            // What breaks off is gone on with; what cannot be had is not.
            if matches!(miss, Miss::Lost(_)) {
                std::fs::remove_file(&partial).at("remove", &partial)?;
            }
            return Err(miss);
        }
        let stat = store.take_in(&partial, &file.digest)?;
        if list.count() > 1 {
            store.keep_chunk_list(&file.digest, &list)?;
        }
        Ok(stat)
    }

    /// Asks which chunks make up a file. One that is short and has no list is a chunk itself.
    pub(super) fn chunks_of(&self, file: &FileEntry) -> Result<ChunkList, Miss> {
        if !super::may_be_cut(&file.path, file.size) {
            return Ok(ChunkList::of_one(file.digest, file.size));
        }
        let name = file_name(&file.digest);
        let json = match self.remote()?.get(&name, LONGEST_LIST) {
            Err(RemoteError::TooLong { .. }) => None,
            found => Some(found?),
        };
        match json {
            Some(Some(json)) => {
                ChunkList::parse(&json, file.size).map_err(|error| lost(file, &format!("{error:#}")))
            }
            Some(None) if file.size <= LONGEST_CHUNK => Ok(ChunkList::of_one(file.digest, file.size)),
            _ => Err(lost(file, "the list of its chunks is gone or too long")),
        }
    }

    /// Fills `partial` with the chunks of `file` that it does not have yet, until it is the file.
    fn fill(
        &self,
        partial: &Path,
        file: &FileEntry,
        list: &ChunkList,
        sources: &Sources,
        progress: &Progress<'_>,
    ) -> Result<(), Miss> {
        let places: Vec<_> = list.places().collect();
        let arrival = Arrival::open(partial, file.size, &places)?;
        let indices: Vec<_> = (0..places.len()).collect();
        let length = |index: &usize| places.get(*index).map_or(0, |(_, chunk)| chunk.length);
        let digest = thread::scope(|scope| {
            // The chunks are what the list says, but the list is only the storage's word.
            let whole = scope.spawn(|| arrival.digest());
            let over = arrival.over();
            let filled = each(
                &indices,
                |index| 2 * length(index),
                |index| {
                    arrival.put(*index, |chunk| self.find(file, chunk, sources))?;
                    Ok::<_, Miss>(progress.add(length(index))?)
                },
            );
            drop(over);
            let digest = whole.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            filled.and_then(|()| Ok(digest?))
        })?;
        if digest == Some(file.digest) {
            return Ok(());
        }
        Err(match arrival.damaged()? {
            Some(chunk) => damaged(file, &chunk, "is damaged: its content is not what its name says"),
            None => lost(file, "its chunks do not make up the file"),
        })
    }

    /// Returns the bytes of a chunk from another file here, else from the remote.
    fn find(&self, file: &FileEntry, chunk: &Chunk, sources: &Sources) -> Result<Vec<u8>, Miss> {
        let Some(bytes) = sources.get(chunk) else { return self.fetch(file, chunk) };
        self.state().traffic.already_here += chunk.length;
        Ok(bytes)
    }

    /// Fetches a chunk. Its length is right; whether its bytes are is seen when the whole is hashed.
    pub(super) fn fetch(&self, file: &FileEntry, chunk: &Chunk) -> Result<Vec<u8>, Miss> {
        let name = chunk_name(&chunk.digest);
        let damaged = |what: &str| damaged(file, chunk, what);
        // What does not shrink is sent as it is, so nothing is longer than the chunk.
        let arrived = match self.remote()?.get(&name, chunk.length) {
            Ok(found) => found.ok_or_else(|| damaged("is gone"))?,
            Err(RemoteError::TooLong { size, .. }) => {
                return Err(damaged(&format!("has {size} bytes instead of {}", chunk.length)));
            }
            Err(error) => return Err(error.into()),
        };
        self.state().traffic.fetched += arrived.len() as u64;
        unpack(arrived, chunk).ok_or_else(|| damaged("is damaged: its content is not what its name says"))
    }
}

fn damaged(file: &FileEntry, chunk: &Chunk, what: &str) -> Miss {
    lost(file, &format!("{} {what}", chunk_name(&chunk.digest)))
}

fn lost(file: &FileEntry, problem: &str) -> Miss {
    Miss::Lost(format!("the remote does not have `{}` as its record says: {problem}", file.path))
}
