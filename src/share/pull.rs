//! Bringing the files of an artifact here: only the chunks that no file here has, each hashed, then the whole.
//! Knows nothing of why they are wanted.
//!
//! A file arrives in `cache/tmp/DIGEST.partial`. What arrived before a break is found again by its hash, so the next
//! attempt fetches the rest, and no note is kept of how far one came.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::each;
use super::packing::unpack;
use super::sources::Sources;
use super::{Share, Tick, chunk_name, file_name};
use crate::artifact::{Artifact, FileEntry};
use crate::digest::Digest;
use crate::failure::{AtPath, Interrupted};
use crate::store::{Chunk, ChunkList, LONGEST_CHUNK, LocalStore, RemoteError, Stat, read_range};

/// The longest list of chunks that is read, in bytes.
const LONGEST_LIST: u64 = 64 << 20;

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
        let pulled = artifact.files().iter().map(|file| {
            match self.pull_file(store, file, &progress) {
                Ok(stat) => Ok((stat, file.digest)),
                // What arrives has no name of its own yet.
                Err(Miss::Here(error)) => Err(Miss::Here(error.context(file.path.clone()))),
                Err(miss) => Err(miss),
            }
        });
        let pulled: Result<_, Miss> = pulled.collect();
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
        let sources = Sources::find(self, store, &list)?;
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
        let arriving = File::options().read(true).write(true).create(true).truncate(false).open(partial);
        let arriving = arriving.at("write", partial)?;
        arriving.set_len(file.size).at("write", partial)?;
        let places: Vec<_> = list.places().collect();
        let bytes = |(_, chunk): &(u64, Chunk)| 2 * chunk.length;
        each(&places, bytes, |(at, chunk)| {
            let range = *at..*at + chunk.length;
            if Digest::of(&read_range(&arriving, &range).at("read", partial)?) != chunk.digest {
                let bytes = self.find(file, chunk, sources)?;
                arriving.write_all_at(&bytes, *at).at("write", partial)?;
            }
            Ok::<_, Miss>(progress.add(chunk.length)?)
        })?;
        // The chunks are what the list says, but the list is only the storage's word.
        let (digest, _) = Digest::of_file(partial).at("read", partial)?;
        if digest == file.digest { Ok(()) } else { Err(lost(file, "its chunks do not make up the file")) }
    }

    /// Returns the bytes of a chunk from another file here, else from the remote.
    fn find(&self, file: &FileEntry, chunk: &Chunk, sources: &Sources) -> Result<Vec<u8>, Miss> {
        let Some(bytes) = sources.get(chunk) else { return self.fetch(file, chunk) };
        self.state().traffic.already_here += chunk.length;
        Ok(bytes)
    }

    pub(super) fn fetch(&self, file: &FileEntry, chunk: &Chunk) -> Result<Vec<u8>, Miss> {
        let name = chunk_name(&chunk.digest);
        let damaged = |what: &str| lost(file, &format!("{name} {what}"));
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

fn lost(file: &FileEntry, problem: &str) -> Miss {
    Miss::Lost(format!("the remote does not have `{}` as its record says: {problem}", file.path))
}
