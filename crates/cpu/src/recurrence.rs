//! Layers with a state: convolutions over the last tokens, and linear attention.
//! Knows no architecture.
//!
//! Each row of a state is read and written by itself, token after token. So the result of a token does not depend on how
//! many tokens were read with it, nor on the number of threads.

use crate::pool::Pool;
use crate::shapes::turned;
use crate::simd::{LANES, Lanes, Simd, for_each_set};
use crate::tensor::{Buffer, Tensor};

/// The inputs of a linear attention; see `models::runtime::Recurrence`.
pub(crate) struct Inputs<'a> {
    pub(crate) queries: &'a Tensor,
    pub(crate) keys: &'a Tensor,
    pub(crate) values: &'a Tensor,
    pub(crate) decays: &'a Tensor,
    pub(crate) replaced: Option<&'a Tensor>,
}

/// Returns what the queries read, `[tokens, value heads, value dims]`. The state is `[value heads, value dims, key dims]`.
pub(crate) fn recurrence(pool: &Pool, simd: Simd, inputs: &Inputs<'_>, state: &mut Option<Tensor>) -> Tensor {
    let Inputs { queries, keys, values, decays, replaced } = *inputs;
    let (tokens, heads, value_dims) = (values.tokens(), values.heads(), values.dims());
    let (key_heads, key_dims) = (keys.heads(), keys.dims());
    let (rows, width) = (heads * value_dims, key_dims + tokens);
    // A row of the state, and what each token reads there.
    let mut work = Buffer::new(rows * width);
    for (number, row) in work.chunks_exact_mut(width).enumerate() {
        match state {
            Some(state) => row[..key_dims].copy_from_slice(&state.values()[number * key_dims..][..key_dims]),
            None => row[..key_dims].fill(0.0),
        }
    }
    let each = rows.div_ceil(pool.threads() * 4).max(1);
    pool.for_parts(&mut work, each * width, &|part, work| {
        for (index, row) in work.chunks_exact_mut(width).enumerate() {
            let number = part * each + index;
            let head = number / value_dims;
            let at = head / (heads / key_heads).max(1) * key_dims;
            let (row, output) = row.split_at_mut(key_dims);
            let stride = key_heads * key_dims;
            let steps = Steps {
                queries: &queries.values()[at..],
                keys: &keys.values()[at..],
                stride,
                values: &values.values()[number..],
                value_stride: rows,
                decays: &decays.values()[head..],
                replaced: replaced.map(|replaced| &replaced.values()[head..]),
                heads,
            };
            read_row(simd, row, output, &steps);
        }
    });
    let mut kept = Buffer::new(rows * key_dims);
    let mut read = Buffer::new(rows * tokens);
    for (number, row) in work.chunks_exact(width).enumerate() {
        kept[number * key_dims..][..key_dims].copy_from_slice(&row[..key_dims]);
        read[number * tokens..][..tokens].copy_from_slice(&row[key_dims..]);
    }
    *state = Some(Tensor::new(kept, key_dims));
    Tensor::new(turned(&read, [rows, tokens, 1]), rows).split(heads)
}

/// What one row of a state gets from each token.
pub(crate) struct Steps<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    /// The distance of a token's key from the next one's.
    stride: usize,
    values: &'a [f32],
    value_stride: usize,
    decays: &'a [f32],
    replaced: Option<&'a [f32]>,
    /// The distance of a token's decay from the next one's.
    heads: usize,
}

for_each_set! {
    /// Takes a row of the state through all tokens, and writes what each reads.
    fn read_row(row: &mut [f32], output: &mut [f32], steps: &Steps<'_>) -> () => read_row_body
}

#[inline(always)]
fn read_row_body<L: Lanes>(row: &mut [f32], output: &mut [f32], steps: &Steps<'_>) {
    let dims = row.len();
    for (token, output) in output.iter_mut().enumerate() {
        let key = &steps.keys[token * steps.stride..][..dims];
        let query = &steps.queries[token * steps.stride..][..dims];
        let decay = steps.decays[token * steps.heads];
        row.iter_mut().for_each(|value| *value *= decay);
        let value = steps.values[token * steps.value_stride];
        let added = match steps.replaced {
            Some(replaced) => (value - dot::<L>(row, key)) * replaced[token * steps.heads],
            None => value,
        };
        for (value, key) in row.iter_mut().zip(key) {
            *value = key.mul_add(added, *value);
        }
        *output = dot::<L>(row, query);
    }
}

/// Returns the product of two rows, summed in sixteen lanes.
#[inline(always)]
fn dot<L: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = a.mul_add(*b, *sum);
        }
    }
    L::load(&sums).sum()
}

/// Returns the convolution of each channel with its row of `kernel`, `[channels, length]`; see
/// `models::runtime::Runtime::convolved`.
pub(crate) fn convolved(
    x: &Tensor,
    kernel: &[f32],
    bias: Option<&[f32]>,
    inputs: &mut Option<Tensor>,
) -> Tensor {
    let channels = x.dims();
    let length = kernel.len() / channels.max(1);
    let before = length.saturating_sub(1) * channels;
    let mut all = Buffer::new(before + x.values().len());
    match inputs {
        Some(inputs) => all[..before].copy_from_slice(inputs.values()),
        None => all[..before].fill(0.0),
    }
    all[before..].copy_from_slice(x.values());
    // Token after token, so that a channel's row is turned: the kernel lies as `[length, channels]`.
    let kernel = turned(kernel, [channels, length, 1]);
    let mut output = Buffer::new(x.values().len());
    for (token, output) in output.chunks_exact_mut(channels).enumerate() {
        match bias {
            Some(bias) => output.copy_from_slice(bias),
            None => output.fill(0.0),
        }
        for (place, factors) in kernel.chunks_exact(channels).enumerate() {
            let row = &all[(token + place) * channels..][..channels];
            for (output, (value, factor)) in output.iter_mut().zip(row.iter().zip(factors)) {
                *output = factor.mul_add(*value, *output);
            }
        }
    }
    *inputs = Some(Tensor::new(Buffer::of(&all[all.len() - before..]), channels));
    Tensor::new(output, channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], heads: usize, dims: usize) -> Tensor {
        Tensor::new(Buffer::of(values), heads * dims).split(heads)
    }

    #[test]
    fn a_convolution_sees_the_tokens_before() {
        let kernel = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0];
        let mut inputs = None;
        let at_once = convolved(&tensor(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], 1, 2), &kernel, None, &mut inputs);
        assert_eq!(at_once.values(), [100.0, 200.0, 210.0, 420.0, 321.0, 642.0]);
        let mut inputs = None;
        convolved(&tensor(&[1.0, 1.0], 1, 2), &kernel, None, &mut inputs);
        let later = convolved(&tensor(&[2.0, 2.0, 3.0, 3.0], 1, 2), &kernel, Some(&[0.5, 0.0]), &mut inputs);
        assert_eq!(later.values(), [210.5, 420.0, 321.5, 642.0]);
        assert_eq!(inputs.unwrap().values(), [2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn the_delta_rule_replaces_what_a_key_holds() {
        let keys = tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0], 1, 2);
        let values = tensor(&[5.0, 7.0, 2.0], 1, 1);
        let (decays, replaced) = (tensor(&[1.0, 0.5, 1.0], 1, 1), tensor(&[1.0, 1.0, 1.0], 1, 1));
        let pool = Pool::new(2);
        let read = |replaced| {
            let inputs = Inputs { queries: &keys, keys: &keys, values: &values, decays: &decays, replaced };
            let mut state = None;
            let output = recurrence(&pool, Simd::Portable, &inputs, &mut state);
            (output.values().to_vec(), state.unwrap().values().to_vec())
        };
        assert_eq!(read(Some(&replaced)), (vec![5.0, 7.0, 2.0], vec![2.0, 7.0]));
        assert_eq!(read(None), (vec![5.0, 7.0, 4.5], vec![4.5, 7.0]));
    }
}
