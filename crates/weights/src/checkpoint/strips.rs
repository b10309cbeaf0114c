//! Rows of transposed matrices, read in strips: many rows at once, which several blocks then take their own from.
//! Knows nothing of weights. Reading the rows of one block alone would take a few bytes from each place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// How many bytes a strip has at most, unless one row has more.
const STRIP_BYTES: usize = 2 << 20;

/// How many strips are kept. Each thread works on one, and the next chunk begins before the last one ends.
const KEPT: usize = 8;

/// How many columns are read before they are written: so many that a row gets a whole cache line.
const COLUMNS: usize = 32;

/// A part of a tensor that is transposed. Its elements lie `stride` apart within a column, and its columns `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    /// Where the first row starts, in elements of the tensor.
    pub(super) start: usize,
    /// How many rows there are.
    pub(super) rows: usize,
    /// The distance between rows, in elements.
    pub(super) stride: usize,
    /// How many columns there are.
    pub(super) columns: usize,
    /// The distance between columns, in elements.
    pub(super) step: usize,
    /// The size of an element in bytes.
    pub(super) element: usize,
}

/// The strips that were read last.
#[derive(Debug, Default)]
pub(super) struct Strips(Mutex<VecDeque<(Key, Strip)>>);

/// The tensor of a strip, and what it is of that tensor.
type Key = (String, Turned);

/// The rows of a strip, once they are read.
type Strip = Arc<Mutex<Option<Vec<u8>>>>;

impl Strips {
    /// Fills `out` with whole rows of `turned`, from row `first` on. `read` reads bytes of `tensor` from a place on.
    ///
    /// # Errors
    /// Fails if `read` does.
    pub(super) fn fill(
        &self,
        tensor: &str,
        turned: Turned,
        first: usize,
        out: &mut [u8],
        read: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let row_bytes = turned.columns * turned.element;
        let height = (STRIP_BYTES / row_bytes.max(1)).max(1);
        let (mut row, mut rest) = (first, out);
        while !rest.is_empty() && row_bytes > 0 {
            let begin = row / height * height;
            let rows = height.min(turned.rows - begin);
            let part = Turned { start: turned.start + begin * turned.stride, rows, ..turned };
            let strip = self.strip((tensor.to_owned(), part));
            // A thread that panics leaves nothing half done: the rows are put there at once.
            let mut place = strip.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = match &mut *place {
                Some(bytes) => bytes,
                empty => empty.insert(part.read(read)?),
            };
            let count = (rows - (row - begin)).min(rest.len() / row_bytes);
            let (now, later) = rest.split_at_mut(count * row_bytes);
            now.copy_from_slice(&bytes[(row - begin) * row_bytes..][..count * row_bytes]);
            (rest, row) = (later, row + count);
        }
        Ok(())
    }

    /// Returns the strip with this key, which may still be empty.
    fn strip(&self, key: Key) -> Strip {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, strip)) = kept.iter().find(|(known, _)| *known == key) {
            return Arc::clone(strip);
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let strip = Strip::default();
        kept.push_back((key, Arc::clone(&strip)));
        strip
    }
}

impl Turned {
    /// Reads all rows, one after the other.
    fn read(self, read: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>) -> Result<Vec<u8>> {
        let Self { start, rows, stride, columns, step, element } = self;
        let span = ((rows - 1) * stride + 1) * element;
        let mut rows_bytes = vec![0; rows * columns * element];
        let mut lines = vec![0; COLUMNS * span];
        for column in (0..columns).step_by(COLUMNS) {
            let count = COLUMNS.min(columns - column);
            for (number, line) in lines.chunks_exact_mut(span).take(count).enumerate() {
                read((start + (column + number) * step) * element, line)?;
            }
            let places = rows_bytes.chunks_exact_mut(columns * element);
            let places = places.map(|row| &mut row[column * element..][..count * element]);
            match element {
                2 => turn::<2>(&lines, span, stride, places),
                4 => turn::<4>(&lines, span, stride, places),
                8 => turn::<8>(&lines, span, stride, places),
                _ => turn::<1>(&lines, span, stride, places),
            }
        }
        Ok(rows_bytes)
    }
}

/// Puts the first elements of all lines into the first row, the second ones into the second.
fn turn<'a, const N: usize>(
    lines: &[u8],
    span: usize,
    stride: usize,
    rows: impl Iterator<Item = &'a mut [u8]>,
) {
    for (number, row) in rows.enumerate() {
        let from = number * stride * N;
        let elements = row.as_chunks_mut::<N>().0.iter_mut().zip(lines.chunks_exact(span));
        for (element, line) in elements {
            element.copy_from_slice(&line[from..from + N]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_across_strips_are_those_of_the_matrix() {
        // A matrix of 1000 by 700 float32 that is stored transposed: its strips have 748 rows of 2800 bytes.
        let (rows, columns) = (1000, 700);
        let turned = Turned { start: 0, rows, stride: 1, columns, step: rows, element: 4 };
        let mut reads = 0;
        let mut read = |from: usize, bytes: &mut [u8]| {
            reads += 1;
            for (number, value) in bytes.chunks_exact_mut(4).enumerate() {
                value.copy_from_slice(&u32::try_from(from / 4 + number).unwrap().to_le_bytes());
            }
            Ok(())
        };
        let strips = Strips::default();
        for first in [0, 740, 990] {
            let mut out = vec![0; 10 * columns * 4];
            strips.fill("a", turned, first, &mut out, &mut read).unwrap();
            for (number, value) in out.as_chunks().0.iter().enumerate() {
                let (row, column) = (first + number / columns, number % columns);
                assert_eq!(u32::from_le_bytes(*value) as usize, column * rows + row);
            }
        }
        // Both strips were read once.
        assert_eq!(reads, 2 * columns);
    }
}
