//! A file that arrives in chunks, in any order: each written where it belongs, the whole synced and hashed as it grows.
//! Knows nothing of where the chunks come from.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::store::{Chunk, read_range};
use artifact::{AtPath, Digest, HashingWriter};

/// How many bytes are written before the disk is told to, so that it need not do all at the end.
const SYNCED_TOGETHER: u64 = 32 << 20;

/// How much is read at a time to be hashed.
const BLOCK_BYTES: u64 = 1 << 20;

/// The file, opened.
pub(super) struct Arrival<'a> {
    path: &'a Path,
    file: File,
    places: &'a [(u64, Chunk)],
    /// Whether somebody has begun with it before us.
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

impl<'a> Arrival<'a> {
    /// Opens the file at `path`, or makes it, with the room for `places`.
    pub(super) fn open(path: &'a Path, size: u64, places: &'a [(u64, Chunk)]) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.at("write", path)?;
        let begun = file.metadata().at("read", path)?.len() > 0;
        file.set_len(size).at("write", path)?;
        let state = Mutex::new(State { arrived: vec![false; places.len()], is_over: false });
        Ok(Self { path, file, places, begun, unsynced: AtomicU64::new(0), state, grown: Condvar::new() })
    }

    /// Puts a chunk in place: as it arrived before a break, which its hash tells, else as `bring` brings it.
    pub(super) fn put<E: From<anyhow::Error>>(
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

    fn read(&self, range: Range<u64>) -> anyhow::Result<Vec<u8>> {
        Ok(read_range(&self.file, &range).at("read", self.path)?)
    }

    /// Writes, and has the disk work while the next chunks arrive.
    fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all_at(bytes, at).at("write", self.path)?;
        let length = bytes.len() as u64;
        if self.unsynced.fetch_add(length, Ordering::Relaxed) + length > SYNCED_TOGETHER {
            self.unsynced.store(0, Ordering::Relaxed);
            self.file.sync_data().at("sync", self.path)?;
        }
        Ok(())
    }

    /// Returns what says, when it is dropped, that no more chunks will come, however that came about.
    pub(super) fn over(&self) -> Over<'_, 'a> {
        Over(self)
    }

    /// Hashes the whole in order, each chunk when it is in place; nothing if they do not all come.
    pub(super) fn digest(&self) -> anyhow::Result<Option<Digest>> {
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

    /// Returns the first chunk that is not what its name says.
    pub(super) fn damaged(&self) -> anyhow::Result<Option<Chunk>> {
        for (at, chunk) in self.places {
            if Digest::of(&self.read(*at..*at + chunk.length)?) != chunk.digest {
                return Ok(Some(*chunk));
            }
        }
        Ok(None)
    }

    /// Waits for a chunk; returns whether it is there.
    fn wait_for(&self, index: usize) -> bool {
        let is_there = |state: &State| state.arrived.get(index) == Some(&true);
        let state = self.grown.wait_while(self.state(), |state| !is_there(state) && !state.is_over);
        is_there(&state.unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of an arrival.
pub(super) struct Over<'o, 'a>(&'o Arrival<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.grown.notify_all();
    }
}
