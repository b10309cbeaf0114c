//! A part of a tensor seen as a tensor of its own, without a copy: an offset, and a size and a stride for each
//! dimension, as in NumPy.
//! Knows nothing of files: whoever fills the rows of a view reads the bytes.

use super::strips::{Strips, Turned};
use crate::error::Result;

/// A view of a tensor that is stored row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where the view starts, in elements of the tensor.
    offset: usize,
    /// The dimensions, outermost first.
    dims: Vec<Dim>,
}

/// One dimension of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dim {
    size: usize,
    /// The distance between neighbours, in elements of the tensor.
    stride: usize,
}

impl View {
    /// Returns the view of a whole tensor of this shape. A shape that no machine has room for is refused when the
    /// weight is checked, not here.
    pub(super) fn whole(shape: &[usize]) -> Self {
        let mut stride = 1;
        let mut dims: Vec<_> = shape
            .iter()
            .rev()
            .map(|size| {
                let dim = Dim { size: *size, stride };
                stride = stride.saturating_mul(*size);
                dim
            })
            .collect();
        dims.reverse();
        Self { offset: 0, dims }
    }

    /// Returns the size of each dimension, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|dim| dim.size).collect()
    }

    /// Returns the stride of each dimension, outermost first, in elements of the tensor.
    pub fn strides(&self) -> Vec<usize> {
        self.dims.iter().map(|dim| dim.stride).collect()
    }

    /// Returns where the view starts, in elements of the tensor.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the view is its tensor from the first to the last element, in the order in which they are stored.
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && self.is_contiguous()
    }

    /// Whether the rows of the view are rows of the tensor. Only then can it be a view of packed codes.
    pub(super) fn keeps_rows(&self) -> bool {
        let columns = self.columns();
        let is_row = |dim: &Dim| dim.size <= 1 || dim.stride.is_multiple_of(columns.max(1));
        let last = self.dims.last().is_none_or(|dim| dim.size <= 1 || dim.stride == 1);
        last && self.dims.split_last().is_none_or(|(_, rows)| rows.iter().all(is_row))
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.dims.iter().rev().all(|dim| {
            let fits = dim.size <= 1 || dim.stride == expected;
            expected = expected.saturating_mul(dim.size);
            fits
        })
    }

    /// Returns the number of rows: the product of all sizes but the last.
    pub(super) fn rows(&self) -> usize {
        let rows = self.dims.split_last().map_or(&[][..], |(_, rows)| rows);
        rows.iter().fold(1, |all, dim| all.saturating_mul(dim.size))
    }

    /// Returns the length of a row.
    fn columns(&self) -> usize {
        self.dims.last().map_or(1, |dim| dim.size)
    }

    /// Returns the view with the dimensions `a` and `b`, counted from the innermost, exchanged.
    pub(super) fn swap(mut self, a: usize, b: usize) -> Option<Self> {
        let last = self.dims.len().checked_sub(1)?;
        let (a, b) = (last.checked_sub(a)?, last.checked_sub(b)?);
        self.dims.swap(a, b);
        Some(self)
    }

    /// Returns the view with the dimension `at`, counted from the outermost, moved to the end.
    pub(super) fn last(mut self, at: usize) -> Option<Self> {
        if at >= self.dims.len() {
            return None;
        }
        let dim = self.dims.remove(at);
        self.dims.push(dim);
        Some(self)
    }

    /// Returns the elements `from` to `from + size` of the dimension `at`, counted from the innermost.
    pub(super) fn slice(mut self, at: usize, from: usize, size: usize) -> Option<Self> {
        let at = self.dims.len().checked_sub(at + 1)?;
        let dim = self.dims.get_mut(at)?;
        if from.checked_add(size)? > dim.size {
            return None;
        }
        self.offset += from * dim.stride;
        dim.size = size;
        Some(self)
    }

    /// Returns the part `number` of `count` equal ones along the dimension `at`, counted from the innermost.
    pub(super) fn part(self, at: usize, number: usize, count: usize) -> Option<Self> {
        let index = self.dims.len().checked_sub(at + 1)?;
        let size = self.dims.get(index)?.size;
        let each = size.checked_div(count).filter(|each| each * count == size)?;
        self.slice(at, number * each, each)
    }

    /// Returns each `count`-th element along the dimension `at`, counted from the innermost, from the element
    /// `number` on.
    pub(super) fn every(mut self, at: usize, number: usize, count: usize) -> Option<Self> {
        let index = self.dims.len().checked_sub(at + 1)?;
        let dim = self.dims.get_mut(index)?;
        let size = dim.size.checked_div(count).filter(|each| each * count == dim.size)?;
        self.offset += number * dim.stride;
        (dim.size, dim.stride) = (size, dim.stride * count);
        Some(self)
    }

    /// Returns the matrix `number` of a stack.
    pub(super) fn at(mut self, number: usize) -> Option<Self> {
        let dim = *self.dims.first().filter(|dim| number < dim.size)?;
        self.offset += number * dim.stride;
        self.dims.remove(0);
        Some(self)
    }

    /// Returns the view with its outermost dimension split into one of `outer` and one of what is left.
    pub(super) fn split(mut self, outer: usize) -> Option<Self> {
        let dim = *self.dims.first()?;
        let inner = dim.size.checked_div(outer).filter(|inner| inner * outer == dim.size)?;
        let outer = Dim { size: outer, stride: dim.stride * inner };
        self.dims.splice(..1, [outer, Dim { size: inner, stride: dim.stride }]);
        Some(self)
    }

    /// Returns the view in another shape of as many elements, if its elements follow each other in the tensor.
    pub(super) fn reshape(self, shape: &[usize]) -> Option<Self> {
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let fits = self.is_contiguous() && count(shape)? == count(&self.shape())?;
        fits.then(|| Self { offset: self.offset, ..Self::whole(shape) })
    }

    /// Fills `out` with whole rows, from row `first` on. A row takes `row_bytes` bytes. `read` reads bytes of
    /// `tensor` from a place on, and `strips` keeps what is read of transposed matrices.
    ///
    /// # Errors
    /// Fails if `read` does.
    pub(super) fn fill(
        &self,
        (tensor, strips): (&str, &Strips),
        row_bytes: usize,
        first: usize,
        out: &mut [u8],
        mut read: impl FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let columns = self.columns().max(1);
        // Exact: for packed codes all strides but that within a row are multiples of a row.
        let bytes = |elements: usize| elements * row_bytes / columns;
        let step = self.dims.last().filter(|dim| dim.size > 1).map_or(1, |dim| dim.stride);
        let lines = self.lines();
        let (mut row, mut rest) = (first, out);
        while !rest.is_empty() && row_bytes > 0 {
            let (start, size_of_run, stride) = lines.run(row);
            let count = (size_of_run - row % size_of_run).min(rest.len() / row_bytes);
            let (now, later) = rest.split_at_mut(count * row_bytes);
            let start = self.offset + start;
            match (step, stride) {
                (1, _) if stride == columns => read(bytes(start), now)?,
                (1, _) => {
                    for (number, line) in now.chunks_exact_mut(row_bytes).enumerate() {
                        read(bytes(start + number * stride), line)?;
                    }
                }
                (2..=MOST_SKIPPED, _) => {
                    let element = row_bytes / columns;
                    let mut span = vec![0; ((columns - 1) * step + 1) * element];
                    for (number, line) in now.chunks_exact_mut(row_bytes).enumerate() {
                        read(bytes(start + number * stride), &mut span)?;
                        pick(&span, step, element, line.chunks_exact_mut(element));
                    }
                }
                _ => {
                    // The whole innermost dimension of the rows, so that a strip is the same for all its blocks.
                    let within = row % size_of_run;
                    let start = start - within * stride;
                    let element = row_bytes / columns;
                    let turned = Turned { start, rows: size_of_run, stride, columns, step, element };
                    strips.fill(tensor, turned, within, now, &mut read)?;
                }
            }
            (rest, row) = (later, row + count);
        }
        Ok(())
    }

    /// Returns the dimensions of the rows, with those that follow each other seamlessly taken together.
    fn lines(&self) -> Lines {
        let mut dims: Vec<Dim> = Vec::new();
        for dim in self.dims.iter().rev().skip(1).filter(|dim| dim.size != 1) {
            match dims.last_mut() {
                Some(inner) if dim.stride == inner.size * inner.stride => inner.size *= dim.size,
                _ => dims.push(*dim),
            }
        }
        Lines(dims)
    }
}

/// The dimensions of the rows of a view, innermost first.
struct Lines(Vec<Dim>);

impl Lines {
    /// Returns where a row starts, how many rows the innermost dimension has, and the distance between these.
    fn run(&self, row: usize) -> (usize, usize, usize) {
        let (mut start, mut left) = (0, row);
        for dim in &self.0 {
            start += left % dim.size.max(1) * dim.stride;
            left /= dim.size.max(1);
        }
        let inner = self.0.first().copied().unwrap_or(Dim { size: 1, stride: 1 });
        (start, inner.size.max(1), inner.stride)
    }
}

/// The largest stride within a row at which a row is read with all that lies between its elements. With a larger
/// one, the rows are read column by column.
const MOST_SKIPPED: usize = 8;

/// Copies each `step`-th element of `span` to its place.
fn pick<'a>(span: &[u8], step: usize, element: usize, places: impl Iterator<Item = &'a mut [u8]>) {
    for (place, value) in places.zip(span.chunks_exact(element).step_by(step)) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns `count` rows of a view from row `first` on. The tensor holds the numbers from 0.
    fn rows(view: &View, first: usize, count: usize) -> Vec<u16> {
        let columns = view.shape().last().copied().unwrap_or(1);
        let mut out = vec![0; count * columns * 2];
        let read = |from: usize, bytes: &mut [u8]| {
            for (number, value) in bytes.chunks_exact_mut(2).enumerate() {
                value.copy_from_slice(&u16::try_from(from / 2 + number).unwrap().to_le_bytes());
            }
            Ok(())
        };
        view.fill(("t", &Strips::default()), columns * 2, first, &mut out, read).unwrap();
        out.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()
    }

    fn all(view: &View) -> Vec<u16> {
        rows(view, 0, view.rows())
    }

    #[test]
    fn halves_every_second_row_and_columns() {
        let whole = View::whole(&[2, 4, 3]);
        assert!(whole.is_whole());
        let half = whole.clone().part(1, 1, 2).unwrap();
        assert_eq!(
            (half.shape(), all(&half)),
            (vec![2, 2, 3], vec![6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23])
        );
        assert!(half.keeps_rows() && !half.is_whole());
        let odd = whole.clone().every(1, 1, 2).unwrap();
        assert_eq!(all(&odd), [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23]);
        assert!(odd.keeps_rows());
        let columns = View::whole(&[2, 6]).every(0, 1, 2).unwrap();
        assert_eq!(all(&columns), [1, 3, 5, 7, 9, 11]);
        assert!(!columns.keeps_rows());
        let last = whole.at(1).unwrap();
        assert_eq!((last.shape(), all(&last)[0]), (vec![4, 3], 12));
        assert_eq!(View::whole(&[3, 2]).part(1, 0, 2), None);
        assert_eq!(View::whole(&[3, 2]).slice(1, 2, 2), None);
    }

    #[test]
    fn a_transposed_matrix_is_read_column_by_column() {
        let view = View::whole(&[3, 20]).swap(0, 1).unwrap();
        assert_eq!(view.shape(), [20, 3]);
        assert_eq!(rows(&view, 1, 2), [1, 21, 41, 2, 22, 42]);
        assert!(!view.keeps_rows());
        // The heads of a matrix, each transposed.
        let heads = View::whole(&[4, 20]).split(2).unwrap().swap(0, 1).unwrap();
        assert_eq!(rows(&heads, 19, 2), [19, 39, 40, 60]);
    }

    #[test]
    fn another_shape_only_of_what_lies_together() {
        let view = View::whole(&[2, 6]).reshape(&[4, 3]).unwrap();
        assert_eq!(rows(&view, 3, 1), [9, 10, 11]);
        assert_eq!(View::whole(&[2, 6]).reshape(&[5, 3]), None);
        assert_eq!(View::whole(&[2, 6]).swap(0, 1).unwrap().reshape(&[4, 3]), None);
        // Swapping with a dimension of 1 moves nothing.
        assert!(View::whole(&[5, 1, 4]).swap(0, 1).unwrap().is_whole());
        assert_eq!(all(&View::whole(&[])), [0]);
    }

    proptest! {
        #[test]
        fn any_rows_are_those_of_the_definition(
            shape in prop::collection::vec(1usize..5, 3),
            (halved, skipped, swapped) in any::<(bool, bool, bool)>(),
            (first, count) in (0usize..40, 1usize..40),
        ) {
            let shape = [shape[0], shape[1] * 4, shape[2] * 12];
            let mut view = View::whole(&shape);
            if halved { view = view.part(1, 1, 2).unwrap(); }
            if skipped { view = view.every(0, 1, 12).unwrap(); }
            if swapped { view = view.swap(0, 1).unwrap(); }
            let (first, count) = (first % view.rows(), count.min(view.rows() - first % view.rows()));
            let (sizes, strides) = (view.shape(), view.strides());
            let expected: Vec<u16> = (first * sizes[2]..(first + count) * sizes[2]).map(|element| {
                let index = [element / sizes[2] / sizes[1], element / sizes[2] % sizes[1], element % sizes[2]];
                let place: usize = index.iter().zip(&strides).map(|(index, stride)| index * stride).sum();
                u16::try_from(view.offset() + place).unwrap()
            }).collect();
            prop_assert_eq!(rows(&view, first, count), expected);
        }
    }
}
