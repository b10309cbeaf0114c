//! The memory of the weights: large blocks without a second copy, on large pages where the system has them.
//! Knows nothing of matrices.
//!
//! With pages of 4 KiB, a processor that reads weights from end to end spends a third of its time with looking up
//! where pages lie.
#![expect(unsafe_code, reason = "blocks of one mapping are written before they are shared, and never after")]

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use memmap2::{MmapMut, MmapRaw};

use crate::format::PADDING;

/// What blocks are aligned to, in bytes: a line of the cache.
const ALIGNMENT: usize = 64;

/// The size of a large page in bytes.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

/// Clearing pages takes the bandwidth of the memory, which a few threads use up.
#[cfg(target_os = "linux")]
const MOST_THREADS: usize = 8;

/// Memory that blocks are cut from.
pub struct Arena {
    mapping: Arc<MmapRaw>,
    used: Cell<usize>,
}

/// Bytes that do not change any more.
pub(crate) struct Block {
    mapping: Arc<MmapRaw>,
    start: usize,
    length: usize,
}

impl Arena {
    /// Takes memory for blocks whose sizes are rounded up by [`needed`](Self::needed).
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let mapping =
            MmapMut::map_anon(bytes.max(1)).with_context(|| format!("no memory for {bytes} bytes"))?;
        #[cfg(target_os = "linux")]
        {
            // A system without large pages refuses, and small ones do.
            let _ = mapping.advise(memmap2::Advice::HugePage);
            populate(&mapping);
        }
        Ok(Self { mapping: Arc::new(MmapRaw::from(mapping)), used: Cell::new(0) })
    }

    /// Returns how many bytes a block of so many bytes takes.
    pub(crate) fn needed(bytes: usize) -> Option<usize> {
        bytes.checked_add(PADDING)?.checked_next_multiple_of(ALIGNMENT)
    }

    /// Cuts off a block and lets `fill` write it.
    pub(crate) fn block(&self, length: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Block> {
        let start = self.used.get();
        let end = Self::needed(length).and_then(|needed| start.checked_add(needed));
        let end = end.filter(|end| *end <= self.mapping.len());
        ensure!(end.is_some(), "BUG: the memory for weights was counted too small");
        self.used.set(end.unwrap_or(start));
        // SAFETY: the range is inside the mapping, which is zeroed, and no other block has it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.mapping.as_mut_ptr().add(start), length) };
        fill(bytes)?;
        Ok(Block { mapping: Arc::clone(&self.mapping), start, length })
    }
}

/// Asks the system for the pages of a mapping, with several threads at once. A page that is asked for while a file is read into
/// it takes several times as long. A system that does not know this request gives pages when they are written.
#[cfg(target_os = "linux")]
fn populate(mapping: &MmapMut) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let part = mapping.len().div_ceil(threads).next_multiple_of(LARGE_PAGE);
    std::thread::scope(|scope| {
        for start in (0..mapping.len()).step_by(part) {
            let length = part.min(mapping.len() - start);
            scope.spawn(move || mapping.advise_range(memmap2::Advice::PopulateWrite, start, length));
        }
    });
}

impl Block {
    /// Returns the bytes, with [`PADDING`] zeros behind them.
    pub(crate) fn padded(&self) -> &[u8] {
        // SAFETY: the range is inside the mapping, and nobody writes it any more.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().add(self.start), self.length + PADDING) }
    }
}

// SAFETY: blocks are only read.
unsafe impl Send for Block {}
// SAFETY: blocks are only read.
unsafe impl Sync for Block {}
