//! A file that arrives in chunks in any order, and is synced and hashed while it grows.
//! Knows nothing of where the chunks come from.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::store::{Chunk, owned_file, read_range};
use artifact::{AtPath, Digest, HashingWriter, IoError};

/// How many bytes are written before a sync, so that little is left for the last sync.
const SYNCED_TOGETHER: u64 = 32 << 20;

/// How many bytes are read at a time for hashing.
const BLOCK_BYTES: u64 = 1 << 20;

/// The file, opened, and which of its chunks are in place.
pub(super) struct PartialFile<'a> {
    path: &'a Path,
    file: File,
    places: &'a [(u64, Chunk)],
    /// Whether the file already had content when it was opened: an earlier attempt may have written chunks.
    begun: bool,
    unsynced: AtomicU64,
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    /// Which chunks are in place.
    arrived: Vec<bool>,
    is_over: bool,
}

impl<'a> PartialFile<'a> {
    /// Opens or creates the file at `path` and sets its length to `size` bytes. `places` are the chunks and
    /// their offsets in bytes.
    pub(super) fn open(path: &'a Path, size: u64, places: &'a [(u64, Chunk)]) -> Result<Self, IoError> {
        let file = owned_file::open_for_writing(path).at("write", path)?;
        let begun = file.metadata().at("read", path)?.len() > 0;
        file.set_len(size).at("write", path)?;
        let state = Mutex::new(State { arrived: vec![false; places.len()], is_over: false });
        Ok(Self { path, file, places, begun, unsynced: AtomicU64::new(0), state, grown: Condvar::new() })
    }

    /// Puts a chunk in place. If an earlier attempt wrote it, which its hash tells, it stays; otherwise
    /// `bring` supplies the bytes.
    pub(super) fn put<E: From<IoError>>(
        &self,
        index: usize,
        bring: impl Fn(&Chunk) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let Some((at, chunk)) = self.places.get(index) else { return Ok(()) };
        if !self.begun || Digest::of(&self.read(*at..*at + chunk.length)?) != chunk.digest {
            self.write(*at, &bring(chunk)?)?;
        }
        if let Some(arrived) = self.state().arrived.get_mut(index) {
            *arrived = true;
        }
        self.grown.notify_all();
        Ok(())
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, IoError> {
        read_range(&self.file, &range).at("read", self.path)
    }

    /// Writes `bytes` at the offset `at`. Syncs from time to time, so that the disk works while the next
    /// chunks arrive.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.file.write_all_at(bytes, at).at("write", self.path)?;
        let length = bytes.len() as u64;
        if self.unsynced.fetch_add(length, Ordering::Relaxed) + length > SYNCED_TOGETHER {
            self.unsynced.store(0, Ordering::Relaxed);
            self.file.sync_data().at("sync", self.path)?;
        }
        Ok(())
    }

    /// Returns a guard. Dropping it, for whatever reason, tells `digest` that no more chunks will come.
    pub(super) fn over(&self) -> Over<'_, 'a> {
        Over(self)
    }

    /// Hashes the whole file in order and waits for each chunk. Returns `None` if no more chunks will come
    /// and one is missing.
    pub(super) fn digest(&self) -> Result<Option<Digest>, IoError> {
        let mut whole = HashingWriter::new(io::sink());
        for (index, (at, chunk)) in self.places.iter().enumerate() {
            if !self.wait_for(index) {
                return Ok(None);
            }
            let end = at + chunk.length;
            let mut from = *at;
            while from < end {
                let block = self.read(from..end.min(from + BLOCK_BYTES))?;
                whole.write_all(&block).at("hash", self.path)?;
                from += block.len() as u64;
            }
        }
        Ok(Some(whole.finish().1))
    }

    /// Returns the first chunk whose bytes do not match its digest.
    pub(super) fn damaged(&self) -> Result<Option<Chunk>, IoError> {
        for (at, chunk) in self.places {
            if Digest::of(&self.read(*at..*at + chunk.length)?) != chunk.digest {
                return Ok(Some(*chunk));
            }
        }
        Ok(None)
    }

    /// Waits until the chunk is in place or no more chunks will come; returns whether it is in place.
    fn wait_for(&self, index: usize) -> bool {
        let is_there = |state: &State| state.arrived.get(index) == Some(&true);
        let state = self.grown.wait_while(self.state(), |state| !is_there(state) && !state.is_over);
        is_there(&state.unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the arrival of a file when it is dropped.
pub(super) struct Over<'o, 'a>(&'o PartialFile<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.grown.notify_all();
    }
}
