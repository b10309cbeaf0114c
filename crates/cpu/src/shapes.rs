//! Tensors cut, joined and turned.
//! Knows nothing of what the numbers mean.

use std::ops::Range;

use crate::tensor::{Buffer, Tensor};

/// Returns these columns of the last axis.
pub(crate) fn columns(x: &Tensor, columns: Range<usize>) -> Tensor {
    let (dims, width) = (x.dims(), columns.len());
    let mut values = Buffer::new(x.values().len() / dims.max(1) * width);
    for (row, from) in values.chunks_exact_mut(width.max(1)).zip(x.values().chunks_exact(dims)) {
        row.copy_from_slice(&from[columns.clone()]);
    }
    Tensor::new(values, width * x.heads()).split(x.heads())
}

/// Joins tensors along the last axis. The first has the other axes.
pub(crate) fn joined(parts: &[&Tensor]) -> Tensor {
    let heads = parts.first().map_or(1, |part| part.heads());
    let width: usize = parts.iter().map(|part| part.dims()).sum();
    let rows = parts.first().map_or(0, |part| part.values().len() / part.dims().max(1));
    let mut values = Buffer::new(rows * width);
    let mut from = 0;
    for part in parts {
        let own = part.values().chunks_exact(part.dims());
        for (row, own) in values.chunks_exact_mut(width).zip(own) {
            row[from..from + own.len()].copy_from_slice(own);
        }
        from += part.dims();
    }
    Tensor::new(values, width * heads).split(heads)
}

/// Returns `[rows, columns, dims]` as `[columns, rows, dims]`.
pub(crate) fn turned(x: &[f32], [rows, columns, dims]: [usize; 3]) -> Buffer {
    let mut values = Buffer::new(x.len());
    for row in 0..rows {
        for column in 0..columns {
            let own = &x[(row * columns + column) * dims..][..dims];
            values[(column * rows + row) * dims..][..dims].copy_from_slice(own);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_cut_and_joined() {
        let x = Tensor::new(Buffer::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), 4).split(2);
        let (first, second) = (columns(&x, 0..1), columns(&x, 1..2));
        assert_eq!((first.values(), first.heads(), first.dims()), ([1.0, 3.0, 5.0, 7.0].as_slice(), 2, 1));
        let back = joined(&[&second, &first]);
        assert_eq!(back.values(), [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0]);
        assert_eq!((back.heads(), back.dims(), back.tokens()), (2, 2, 2));
    }

    #[test]
    fn rows_become_columns() {
        let turned = turned(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2, 1]);
        assert_eq!(*turned, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }
}
