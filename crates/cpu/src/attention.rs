//! Softmax attention of queries over cached keys and values.
//! Knows no architecture.
//!
//! The product of a query with a key is summed over the dimensions in their order. The weights of the keys are summed in
//! sixteen lanes, a key in the lane of its position modulo 16. The values are summed in the order of their positions. So
//! the result of a token does not depend on how many tokens were read with it.

use crate::cache::{Cache, Held};
use crate::elementwise::{self, exponentials, softcap};
use crate::math::exp;
use crate::pool::{Pool, Shares};
use crate::simd::{LANES, Lanes, Simd, for_each_set};
use crate::tensor::Buffer;

/// How many queries of one head are a task.
const QUERIES: usize = 8;

/// How many blocks of keys are multiplied with a query at once, so that their sums do not wait for each other.
const BLOCKS: usize = 4;

/// The queries of some new tokens.
pub(crate) struct Queries<'a> {
    /// `[tokens, heads, dims]`
    pub(crate) values: &'a [f32],
    pub(crate) heads: usize,
    /// How many key/value heads they share.
    pub(crate) kv_heads: usize,
    pub(crate) dims: usize,
    pub(crate) value_dims: usize,
    /// How products become weights.
    pub(crate) weighting: Weighting<'a>,
}

/// How the products of queries and keys become weights.
#[derive(Clone, Copy)]
pub(crate) struct Weighting<'a> {
    /// The factor on the products.
    pub(crate) scale: f32,
    /// Scaled products `p` become `softcap * tanh(p / softcap)`.
    pub(crate) softcap: Option<f32>,
    /// For each head, a number beside the scaled products that takes its part of the softmax.
    pub(crate) sinks: Option<&'a [f32]>,
}

/// Returns the attention `[tokens, heads * value_dims]` of the last tokens that the cache has seen.
pub(crate) fn attention(pool: &Pool, simd: Simd, queries: &Queries<'_>, cache: &Cache) -> Buffer {
    let Queries { values, heads, kv_heads, dims, value_dims, weighting } = *queries;
    let tokens = values.len() / (heads * dims).max(1);
    let first = cache.seen() - tokens;
    let mut output = Buffer::new(tokens * heads * value_dims);
    let parts = tokens.div_ceil(QUERIES);
    let shares = Shares::new(&mut output);
    pool.run(heads * parts, &|task| {
        let (head, part) = (task / parts, task % parts);
        let held = cache.held(head / (heads / kv_heads).max(1));
        for token in part * QUERIES..((part + 1) * QUERIES).min(tokens) {
            let visible = cache.visible(first + token);
            let places = visible.start - held.first..visible.end - held.first;
            let row = token * heads + head;
            #[expect(unsafe_code, reason = "each task writes the outputs of its own queries")]
            let output = unsafe { shares.part(row * value_dims, value_dims) };
            attend(simd, &values[row * dims..][..dims], &held, places, (weighting, head), output);
        }
    });
    output
}

/// Writes the attention of one query over the keys at `places` into `output`.
fn attend(
    simd: Simd,
    query: &[f32],
    held: &Held<'_>,
    places: std::ops::Range<usize>,
    (weighting, head): (Weighting<'_>, usize),
    output: &mut [f32],
) {
    let blocks = places.start / LANES..places.end.div_ceil(LANES);
    let start = blocks.start * LANES;
    let mut weights = Buffer::new(blocks.len() * LANES);
    let keys = &held.keys[blocks.start * held.key_dims * LANES..blocks.end * held.key_dims * LANES];
    scores(simd, query, keys, &mut weights);
    let scale = match weighting.softcap {
        Some(cap) => {
            weights.iter_mut().for_each(|weight| *weight *= weighting.scale);
            softcap(simd, &mut weights, cap);
            1.0
        }
        None => weighting.scale,
    };
    // The first and the last block may have keys that are not seen.
    weights[..places.start - start].fill(f32::NEG_INFINITY);
    weights[places.end - start..].fill(f32::NEG_INFINITY);
    let largest = weighting.sinks.map(|sinks| (sinks[head], elementwise::largest(&weights) * scale));
    let sum =
        exponentials(simd, &mut weights, scale) + largest.map_or(0.0, |(sink, largest)| exp(sink - largest));
    let rows = &held.values[places.start * held.value_dims..places.end * held.value_dims];
    let mut values = Buffer::new(held.value_dims);
    weighted_sum(simd, &weights[places.start - start..places.end - start], rows, &mut values);
    for (output, value) in output.iter_mut().zip(values.iter()) {
        *output = value / sum;
    }
}

for_each_set! {
    /// Writes the products of a query with blocks of sixteen keys, `[blocks, dims, 16]`.
    fn scores(query: &[f32], keys: &[f32], products: &mut [f32]) -> () => scores_body
}

#[inline(always)]
fn scores_body<L: Lanes>(query: &[f32], keys: &[f32], products: &mut [f32]) {
    let (keys, _) = keys.as_chunks::<LANES>();
    let (products, _) = products.as_chunks_mut::<LANES>();
    let dims = query.len();
    for (keys, products) in keys.chunks(BLOCKS * dims).zip(products.chunks_mut(BLOCKS)) {
        if let Ok(products) = <&mut [[f32; LANES]; BLOCKS]>::try_from(&mut *products) {
            block_scores::<L, BLOCKS>(query, keys, products);
        } else {
            for (keys, product) in keys.chunks(dims).zip(products) {
                block_scores::<L, 1>(query, keys, std::array::from_mut(product));
            }
        }
    }
}

#[inline(always)]
fn block_scores<L: Lanes, const B: usize>(
    query: &[f32],
    keys: &[[f32; LANES]],
    products: &mut [[f32; LANES]; B],
) {
    let dims = query.len();
    let mut sums = [L::splat(0.0); B];
    for dim in 0..dims {
        let value = L::splat(query[dim]);
        for block in 0..B {
            sums[block] = value.mul_add(L::load(&keys[block * dims + dim]), sums[block]);
        }
    }
    for block in 0..B {
        sums[block].store(&mut products[block]);
    }
}

for_each_set! {
    /// Adds the rows of values, each multiplied with its weight.
    fn weighted_sum(weights: &[f32], rows: &[f32], sum: &mut [f32]) -> () => weighted_sum_body
}

#[inline(always)]
fn weighted_sum_body<L: Lanes>(weights: &[f32], rows: &[f32], sum: &mut [f32]) {
    let width = sum.len();
    let (chunks, _) = sum.as_chunks_mut::<LANES>();
    let mut first = 0;
    for chunks in chunks.chunks_mut(BLOCKS) {
        if let Ok(chunks) = <&mut [[f32; LANES]; BLOCKS]>::try_from(&mut *chunks) {
            sum_chunks::<L, BLOCKS>(weights, rows, (first, width), chunks);
        } else {
            for (index, chunk) in chunks.iter_mut().enumerate() {
                let at = (first + index * LANES, width);
                sum_chunks::<L, 1>(weights, rows, at, std::array::from_mut(chunk));
            }
        }
        first += BLOCKS * LANES;
    }
}

/// Sums some chunks of the rows, which begin at `first` of each row of `width` numbers.
#[inline(always)]
fn sum_chunks<L: Lanes, const C: usize>(
    weights: &[f32],
    rows: &[f32],
    (first, width): (usize, usize),
    sum: &mut [[f32; LANES]; C],
) {
    let mut sums = [L::splat(0.0); C];
    for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
        let (chunks, _) = row[first..].as_chunks::<LANES>();
        let weight = L::splat(*weight);
        for chunk in 0..C {
            sums[chunk] = weight.mul_add(L::load(&chunks[chunk]), sums[chunk]);
        }
    }
    for chunk in 0..C {
        sums[chunk].store(&mut sum[chunk]);
    }
}
