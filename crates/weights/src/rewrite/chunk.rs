//! Cuts a weight into chunks of blocks, and counts how far a rewrite is.
//! Knows nothing of what is done with a block.

use std::ops::Range;

use crate::checkpoint::Weight;
use crate::error::Result;
use artifact::Tick;

/// How many weights a block has. As float32 they take 128 KiB, which fits the L2 cache together with the
/// bytes that the block is read from and written to.
const BLOCK_WEIGHTS: usize = 1 << 15;

/// How many blocks a chunk has.
const CHUNK_BLOCKS: usize = 64;

/// Cuts a weight into blocks of rows, and groups the blocks into chunks. No block reaches into the next
/// matrix of a stack. There is at least one chunk, so that a tensor without elements is written too.
pub(super) fn chunks(weight: &Weight) -> Vec<Vec<Range<usize>>> {
    if weight.rows() * weight.columns() == 0 {
        return vec![Vec::new()];
    }
    let matrix = weight.matrix_rows();
    let height = (BLOCK_WEIGHTS / weight.columns()).max(1);
    let matrices = (0..weight.rows()).step_by(matrix);
    let blocks = matrices.flat_map(|first| {
        let end = first + matrix;
        (first..end).step_by(height).map(move |row| row..end.min(row + height))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.chunks(CHUNK_BLOCKS).map(<[_]>::to_vec).collect()
}

/// Returns the range of rows that a chunk covers.
pub(super) fn span(chunk: &[Range<usize>]) -> Range<usize> {
    match (chunk.first(), chunk.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

pub(super) fn part_of<'a>(bytes: &'a mut [u8], rows: &Range<usize>, row_bytes: usize) -> &'a mut [u8] {
    &mut bytes[rows.start * row_bytes..rows.end * row_bytes]
}

/// Splits the bytes of a chunk into the bytes of each of its blocks.
pub(super) fn split<'a>(
    mut bytes: &'a mut [u8],
    chunk: &[Range<usize>],
    row_bytes: usize,
) -> Vec<&'a mut [u8]> {
    let mut places = Vec::with_capacity(chunk.len());
    for rows in chunk {
        let (place, rest) = bytes.split_at_mut(rows.len() * row_bytes);
        places.push(place);
        bytes = rest;
    }
    places
}

/// Counts the bytes of the source that are done, and reports the count to `tick`.
pub(super) struct Progress<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) tick: Tick<'a>,
}

impl Progress<'_> {
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        Ok((self.tick)(self.done.min(self.total), self.total)?)
    }

    pub(super) fn add_rows(&mut self, weight: &Weight, rows: &Range<usize>) -> Result<()> {
        self.add(weight.stored() / weight.rows().max(1) as u64 * rows.len() as u64)
    }
}
