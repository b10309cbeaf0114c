//! Products of rows with vectors: the inner loops of every linear layer.
//! Knows nothing of threads, nor of files.
//!
//! A product is summed in sixteen lanes, in the order of the row's steps; then the lanes are summed
//! ([`Lanes::sum`]). Whether a row is multiplied with one vector or with many, the order is the same.

use std::ops::Range;

use crate::format::Format;
use crate::simd::{LANES, Lanes, for_each_set};
use crate::view::{LINE, View};

/// How many rows are multiplied with one vector at once, so that their sums do not wait for each other.
pub(crate) const ROWS: usize = 2;

/// How many rows have their scales and biases widened at once.
const BLOCK: usize = 32;

/// How many rows and vectors are multiplied with each other at once: as many as their sums fit the registers.
const TILE: [usize; 2] = [4, 6];

/// Returns the number of lanes' chunks in a step.
#[inline(always)]
const fn chunks<F: Format>() -> usize {
    if F::PAIRED { 2 } else { 1 }
}

for_each_set! {
    /// Multiplies some rows with one vector, which is arranged and has whole steps. `products` has a place for each
    /// of these rows.
    fn rows_times_vector<F: Format>(view: View<'_>, rows: Range<usize>, vector: &[f32], products: &mut [f32]) -> () => rows_times_vector_body
}

#[inline(always)]
fn rows_times_vector_body<L: Lanes, F: Format>(
    view: View<'_>,
    rows: Range<usize>,
    vector: &[f32],
    products: &mut [f32],
) {
    let (vector, _) = vector.as_chunks::<LANES>();
    view.check(vector.len() / chunks::<F>(), F::BYTES);
    for (block, products) in products.chunks_mut(BLOCK).enumerate() {
        let first = rows.start + block * BLOCK;
        block_times_vector::<L, F>(view, first..first + products.len(), vector, products);
    }
}

#[inline(always)]
fn block_times_vector<L: Lanes, F: Format>(
    view: View<'_>,
    rows: Range<usize>,
    vector: &[[f32; LANES]],
    products: &mut [f32],
) {
    let groups = view.groups_of::<L>(&rows);
    let (ahead, last) = (view.ahead(ROWS), rows.end - 1);
    for (row, products) in rows.step_by(ROWS).zip(products.chunks_mut(ROWS)) {
        // An odd row at the end is multiplied twice.
        let rows = [view.row(row, &groups), view.row((row + 1).min(last), &groups)];
        let mut sums = [L::splat(0.0); ROWS];
        for (step, chunk) in vector.chunks_exact(chunks::<F>()).enumerate() {
            for lane in 0..ROWS {
                if step.is_multiple_of(LINE / F::BYTES) {
                    L::prefetch(rows[lane].bytes.as_ptr().wrapping_add(step * F::BYTES + ahead));
                }
                let weights = F::step::<L>(&rows[lane], step);
                sums[lane] = weights[0].mul_add(L::load(&chunk[0]), sums[lane]);
                if F::PAIRED {
                    sums[lane] = weights[1].mul_add(L::load(&chunk[1]), sums[lane]);
                }
            }
        }
        for (product, sum) in products.iter_mut().zip(sums) {
            *product = sum.sum();
        }
    }
}

for_each_set! {
    /// Unpacks some rows into `weights`, in the order of their steps. `length` is the length of an unpacked row, in
    /// whole steps.
    fn unpack<F: Format>(view: View<'_>, rows: Range<usize>, length: usize, weights: &mut [f32]) -> () => unpack_body
}

#[inline(always)]
fn unpack_body<L: Lanes, F: Format>(view: View<'_>, rows: Range<usize>, length: usize, weights: &mut [f32]) {
    view.check(length / LANES / chunks::<F>(), F::BYTES);
    let groups = view.groups_of::<L>(&rows);
    for (row, weights) in rows.zip(weights.chunks_exact_mut(length)) {
        let row = view.row(row, &groups);
        let (weights, _) = weights.as_chunks_mut::<LANES>();
        for (step, chunk) in weights.chunks_exact_mut(chunks::<F>()).enumerate() {
            let weights = F::step::<L>(&row, step);
            weights[0].store(&mut chunk[0]);
            if F::PAIRED {
                weights[1].store(&mut chunk[1]);
            }
        }
    }
}

/// Takes the products of rows with vectors.
pub(crate) trait Write {
    fn write(&self, row: usize, vector: usize, product: f32);
}

for_each_set! {
    /// Multiplies unpacked rows with vectors, all of `length` numbers, which is a multiple of the lanes.
    fn multiply<W: Write>(rows: &[f32], vectors: &[f32], length: usize, write: &W) -> () => multiply_body
}

#[inline(always)]
fn multiply_body<L: Lanes, W: Write>(rows: &[f32], vectors: &[f32], length: usize, write: &W) {
    const VECTORS: usize = TILE[1];
    for (tile, vectors) in vectors.chunks(VECTORS * length).enumerate() {
        let first = tile * VECTORS;
        match vectors.len() / length {
            1 => multiply_tiles::<L, W, 1>(rows, vectors, length, first, write),
            2 => multiply_tiles::<L, W, 2>(rows, vectors, length, first, write),
            3 => multiply_tiles::<L, W, 3>(rows, vectors, length, first, write),
            4 => multiply_tiles::<L, W, 4>(rows, vectors, length, first, write),
            5 => multiply_tiles::<L, W, 5>(rows, vectors, length, first, write),
            _ => multiply_tiles::<L, W, VECTORS>(rows, vectors, length, first, write),
        }
    }
}

/// Multiplies all rows with `V` vectors, the first of which has the number `first`.
#[inline(always)]
fn multiply_tiles<L: Lanes, W: Write, const V: usize>(
    rows: &[f32],
    vectors: &[f32],
    length: usize,
    first: usize,
    write: &W,
) {
    const ROWS: usize = TILE[0];
    let vectors: [&[[f32; LANES]]; V] =
        std::array::from_fn(|index| vectors[index * length..][..length].as_chunks().0);
    for (tile, rows) in rows.chunks(ROWS * length).enumerate() {
        let count = rows.len() / length;
        // A tile at the end repeats its last row, and these products are not written.
        let rows: [&[[f32; LANES]]; ROWS] =
            std::array::from_fn(|index| rows[index.min(count - 1) * length..][..length].as_chunks().0);
        let sums = tile_sums::<L, ROWS, V>(rows, vectors, length / LANES);
        for (row, sums) in sums.into_iter().take(count).enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                write.write(tile * ROWS + row, first + vector, sum.sum());
            }
        }
    }
}

#[inline(always)]
fn tile_sums<L: Lanes, const R: usize, const V: usize>(
    rows: [&[[f32; LANES]]; R],
    vectors: [&[[f32; LANES]]; V],
    chunks: usize,
) -> [[L; V]; R] {
    let mut sums = [[L::splat(0.0); V]; R];
    for chunk in 0..chunks {
        let mut weights = [L::splat(0.0); R];
        for row in 0..R {
            weights[row] = L::load(&rows[row][chunk]);
        }
        for vector in 0..V {
            let values = L::load(&vectors[vector][chunk]);
            for row in 0..R {
                sums[row][vector] = weights[row].mul_add(values, sums[row][vector]);
            }
        }
    }
    sums
}
