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
    /// Reserves memory for blocks whose sizes are rounded up by [`needed`](Self::needed). It takes none before it is
    /// written.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        let mapping =
            MmapMut::map_anon(bytes.max(1)).with_context(|| format!("no memory for {bytes} bytes"))?;
        #[cfg(target_os = "linux")]
        // A system without large pages refuses, and small ones do.
        let _ = mapping.advise(memmap2::Advice::HugePage);
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
