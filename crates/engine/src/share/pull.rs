//! Downloads the files of an artifact: only the chunks that no local file has. The whole file is hashed.
//! Knows nothing of why they are wanted.
//!
//! A file arrives in `cache/tmp/DIGEST.partial`. After an interruption the next attempt finds the chunks that
//! arrived by their hashes and fetches the rest. No other note of the progress is kept.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::budget::each;
use super::packing::unpack;
use super::partial_file::PartialFile;
use super::sources::Sources;
use super::{LONGEST_LIST, Share, chunk_name, file_name};
use crate::Error;
use crate::store::{Chunk, ChunkList, LONGEST_CHUNK, LocalStore, RemoteError, Stat, is_content};
use artifact::{Artifact, AtPath, Digest, FileEntry, Interrupted, IoError, Tick, in_one_line, start};

/// Why an artifact did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    /// A file that a record names is missing from the remote, or its content does not match its digest.
    #[error("{0}")]
    Lost(String),
    /// The remote does not answer, or refuses.
    #[error(transparent)]
    Down(#[from] RemoteError),
    /// Somebody asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A local file cannot be read or written.
    #[error("{}", in_one_line(.0))]
    LocalIo(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted(interrupted) => Self::Interrupted(interrupted),
            Error::Remote(error) => Self::Down(error),
            error => Self::LocalIo(error),
        }
    }
}

impl From<IoError> for Miss {
    fn from(error: IoError) -> Self {
        Self::LocalIo(error.into())
    }
}

/// The progress of one pull, in bytes.
struct PullProgress<'a> {
    tick: Tick<'a>,
    done: AtomicU64,
    total: u64,
}

impl PullProgress<'_> {
    fn add(&self, bytes: u64) -> Result<(), Interrupted> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.tick)(done, self.total)
    }
}

impl Share {
    /// Downloads the files of `artifact` that `store` does not have; returns the states and digests of all
    /// files. After a failure, the files that did arrive are kept. The user is told if the remote is down or
    /// lacks a file.
    ///
    /// # Errors
    ///
    /// Fails if the remote does not answer or lacks a file, a local file cannot be read or written, or `tick`
    /// asks to stop.
    pub fn pull(
        &self,
        store: &LocalStore,
        artifact: &Artifact,
        tick: Tick<'_>,
    ) -> Result<Vec<(Stat, Digest)>, Miss> {
        let progress = PullProgress { tick, done: AtomicU64::new(0), total: artifact.size() };
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

    /// Downloads small files in parallel, because each waits for an answer and for the disk. Large files
    /// follow one after the other, because the chunks of each are downloaded in parallel.
    fn pull_files(
        &self,
        store: &LocalStore,
        artifact: &Artifact,
        progress: &PullProgress<'_>,
    ) -> Result<Vec<(Stat, Digest)>, Miss> {
        let stats = Mutex::new(Vec::new());
        let pull = |file: &&FileEntry| {
            let stat = self.pull_file(store, file, progress).map_err(|miss| match miss {
                // The partial file is named after a digest, so the error gets the file's own name too.
                Miss::LocalIo(error) => {
                    Miss::LocalIo(Error::Within { place: file.path.clone(), source: Box::new(error) })
                }
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

    fn pull_file(
        &self,
        store: &LocalStore,
        file: &FileEntry,
        progress: &PullProgress<'_>,
    ) -> Result<Stat, Miss> {
        let object = store.object_path(&file.digest);
        let go_on = || (progress.tick)(progress.done.load(Ordering::Relaxed), progress.total);
        // Another process may be downloading the same file. When it is done, the file is in the store.
        let (partial, _lock) = store.partial_file(&file.digest, &go_on)?;
        if is_content(&object, &file.digest) {
            progress.add(file.size)?;
            return Ok(Stat::at(&object).at("read", &object)?);
        }
        let list = self.chunks_of(file)?;
        let sources = Sources::find(store, &list)?;
        if let Err(miss) = self.fill(&partial, file, &list, &sources, progress) {
            // An interrupted download is continued later. If the remote has lost or damaged the file, what
            // arrived is removed.
            if matches!(miss, Miss::Lost(_)) {
                std::fs::remove_file(&partial).at("remove", &partial)?;
            }
            return Err(miss);
        }
        let stat = store.put_partial(&partial, &file.digest)?;
        if list.count() > 1 {
            store.put_chunk_list(&file.digest, &list)?;
        }
        Ok(stat)
    }

    /// Returns the chunks of a file. A file that cannot be cut is one chunk, and so is one without a list in
    /// the remote that is no longer than a chunk may be.
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
                ChunkList::parse(&json, file.size).map_err(|error| lost(file, &error.to_string()))
            }
            Some(None) if file.size <= LONGEST_CHUNK => Ok(ChunkList::of_one(file.digest, file.size)),
            _ => Err(lost(file, "the list of its chunks is gone or too long")),
        }
    }

    /// Writes the chunks of `file` that `partial` lacks, and checks the digest of the whole file.
    fn fill(
        &self,
        partial: &Path,
        file: &FileEntry,
        list: &ChunkList,
        sources: &Sources,
        progress: &PullProgress<'_>,
    ) -> Result<(), Miss> {
        let places: Vec<_> = list.places().collect();
        let arrival = PartialFile::open(partial, file.size, &places)?;
        let indices: Vec<_> = (0..places.len()).collect();
        let length = |index: &usize| places.get(*index).map_or(0, |(_, chunk)| chunk.length);
        let digest = thread::scope(|scope| {
            // The whole file is hashed too: the chunk list is unsigned, and a plain chunk is not hashed when
            // it arrives.
            let whole = start(scope, || arrival.digest());
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
            let digest = match whole {
                Ok(whole) => whole.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => arrival.digest(),
            };
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

    /// Returns the bytes of a chunk from another local file, else from the remote.
    fn find(&self, file: &FileEntry, chunk: &Chunk, sources: &Sources) -> Result<Vec<u8>, Miss> {
        let Some(bytes) = sources.get(chunk) else { return self.fetch(file, chunk) };
        self.state().traffic.already_here += chunk.length;
        Ok(bytes)
    }

    /// Fetches a chunk. Its length is checked here; the bytes of a plain chunk are checked when the whole
    /// file is hashed.
    pub(super) fn fetch(&self, file: &FileEntry, chunk: &Chunk) -> Result<Vec<u8>, Miss> {
        let name = chunk_name(&chunk.digest);
        let damaged = |what: &str| damaged(file, chunk, what);
        // A chunk that does not shrink is stored plain, so no object is longer than its chunk.
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
