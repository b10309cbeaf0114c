//! One matrix as it lies in memory, and its rows.
//! Knows nothing of stacks, of files or of products.

use std::ops::Range;

use crate::format::{PADDING, Row};
use crate::simd::{LANES, Lanes};
use crate::tensor::Buffer;

/// How the scales and biases of groups are stored.
#[derive(Clone, Copy)]
pub(crate) enum Sides<'a> {
    /// There are none.
    None,
    /// Float32, float16, bfloat16.
    F32,
    F16,
    Bf16,
    /// One byte, with the value of each byte.
    Byte(&'a [f32; 256]),
}

impl Sides<'_> {
    /// Returns the bytes of one scale.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::None => 0,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Byte(_) => 1,
        }
    }
}

/// A matrix `[rows, columns]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// The floats or codes of all rows.
    pub(crate) bytes: &'a [u8],
    /// The scales of all rows, and the biases in the affine mode.
    pub(crate) scales: &'a [u8],
    pub(crate) biases: &'a [u8],
    pub(crate) sides: Sides<'a>,
    pub(crate) rows: usize,
    /// The bytes from one row to the next.
    pub(crate) row_bytes: usize,
    /// The groups of a row; 0 for floats.
    pub(crate) groups: usize,
    pub(crate) group_shift: u32,
    pub(crate) table: &'a [f32; 256],
}

impl<'a> View<'a> {
    /// Checks that rows of `steps` steps, each of `step_bytes` bytes, lie inside with [`PADDING`] behind them.
    pub(crate) fn check(&self, steps: usize, step_bytes: usize) {
        let inside = |bytes: &[u8], row: usize| bytes.len() >= self.rows * row + PADDING;
        let sides = self.groups * self.sides.size();
        let fits = inside(self.bytes, self.row_bytes)
            && (self.groups == 0 || inside(self.scales, sides))
            && (self.biases.is_empty() || inside(self.biases, sides));
        // The last step of a row may be a half.
        assert!(
            fits && steps * step_bytes <= self.row_bytes + step_bytes / 2,
            "BUG: a matrix lies in its memory"
        );
    }

    /// Widens the scales and biases of some rows.
    #[inline(always)]
    pub(crate) fn groups_of<L: Lanes>(&self, rows: &Range<usize>) -> Groups {
        let (start, count) = (rows.start * self.groups * self.sides.size(), rows.len() * self.groups);
        let mut groups = Groups { first: rows.start, scales: Buffer::new(0), biases: Buffer::new(0) };
        if count > 0 {
            groups.scales = widened::<L>(self.sides, &self.scales[start..], count);
            if !self.biases.is_empty() {
                groups.biases = widened::<L>(self.sides, &self.biases[start..], count);
            }
        }
        groups
    }

    /// Returns a row. Its scales and biases were widened into `groups`.
    #[inline(always)]
    pub(crate) fn row<'b>(&self, row: usize, groups: &'b Groups) -> Row<'b>
    where
        'a: 'b,
    {
        let first = (row - groups.first) * self.groups;
        let biases = if groups.biases.is_empty() { &[] } else { &groups.biases[first..first + self.groups] };
        Row {
            bytes: &self.bytes[row * self.row_bytes..],
            scales: &groups.scales[first..first + self.groups],
            biases,
            group_shift: self.group_shift,
            table: self.table,
        }
    }

    /// Returns how far ahead of a row the memory is asked for: some kilobytes, and whole blocks of `rows` rows.
    pub(crate) fn ahead(&self, rows: usize) -> usize {
        const DISTANCE: usize = 6 << 10;
        DISTANCE.next_multiple_of((rows * self.row_bytes).max(1))
    }
}

/// The bytes of a line of the cache.
pub(crate) const LINE: usize = 64;

/// The widened scales and biases of some rows.
pub(crate) struct Groups {
    /// The number of the first row.
    first: usize,
    scales: Buffer,
    biases: Buffer,
}

/// Widens the first `count` scales or biases. At least [`PADDING`] bytes follow them. As many behind them will be next,
/// so they are asked for.
#[inline(always)]
fn widened<L: Lanes>(sides: Sides<'_>, bytes: &[u8], count: usize) -> Buffer {
    let length = count * sides.size();
    for line in (0..length).step_by(LINE) {
        L::prefetch(bytes.as_ptr().wrapping_add(length + line));
    }
    let mut values = Buffer::new(count.next_multiple_of(LANES));
    let (chunks, _) = values.as_chunks_mut::<LANES>();
    match sides {
        Sides::None => {}
        Sides::F32 => {
            for (chunk, bytes) in chunks.iter_mut().zip(bytes.as_chunks().0) {
                L::from_f32(bytes).store(chunk);
            }
        }
        Sides::F16 => {
            for (chunk, bytes) in chunks.iter_mut().zip(bytes.as_chunks().0) {
                L::from_f16(bytes).store(chunk);
            }
        }
        Sides::Bf16 => {
            for (chunk, bytes) in chunks.iter_mut().zip(bytes.as_chunks().0) {
                L::from_bf16(bytes).store(chunk);
            }
        }
        Sides::Byte(table) => {
            for (chunk, bytes) in chunks.iter_mut().zip(bytes.as_chunks().0) {
                L::lookup(bytes, table).store(chunk);
            }
        }
    }
    values
}
