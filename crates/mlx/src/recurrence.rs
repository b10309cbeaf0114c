//! Layers with a state: convolutions over the last tokens, and linear attention.
//! Knows no architecture.

use anyhow::Result;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype, ops};

use super::Mlx;
use models::runtime::Recurrence;

/// Returns the convolution of each channel of `[1, tokens, channels]`; see `Runtime::convolved`.
pub(crate) fn convolved(
    x: &Array,
    kernel: &Array,
    bias: Option<&Array>,
    inputs: &mut Option<Array>,
) -> Result<Array> {
    let (channels, before) = (x.dim(-1), kernel.dim(1) - 1);
    let earlier = match inputs.take() {
        Some(earlier) => earlier,
        None => ops::zeros_dtype(&[1, before, channels], x.dtype())?,
    };
    let all = ops::concatenate(&[&earlier, x], 1)?;
    *inputs = Some(all.try_index((.., x.dim(1).., ..))?.contiguous()?);
    let convolved = ops::conv1d(&all, kernel, 1, 0, 1, channels)?;
    Ok(match bias {
        Some(bias) => convolved.add(bias)?,
        None => convolved,
    })
}

/// Returns `ln(1 + e^(x + bias))` within the limits, in float32.
pub(crate) fn steps(x: &Array, bias: &Array, [least, greatest]: [f32; 2]) -> Result<Array> {
    let sum = x.as_dtype(Dtype::Float32)?.add(bias.as_dtype(Dtype::Float32)?)?;
    let softplus = ops::logaddexp(sum, Array::from_f32(0.0))?;
    Ok(ops::clip(softplus, (Array::from_f32(least), Array::from_f32(greatest)))?)
}

/// Returns what the queries read; see `Runtime::recurrence`.
///
/// Tokens are computed in chunks, so that a prompt takes a few operations for each chunk and not for each token. Let `g_t` be
/// the product of the decays up to token `t`, and `S` the state before the chunk. Then the state after token `t` is
/// `g_t S + sum over s <= t of (g_t / g_s) u_s k_s'`, where `u` is what is added: `u_t = v_t` in general, and by the delta
/// rule `u_t = r_t (v_t - g_t S k_t - sum over s < t of (g_t / g_s) (k_s k_t) u_s)`. The second is a triangular system.
pub(crate) fn recurrence(inputs: &Recurrence<'_, Mlx>, state: &mut Option<Array>) -> Result<Array> {
    let (tokens, heads, value_dims) = (inputs.values.dim(1), inputs.values.dim(2), inputs.values.dim(3));
    let mut before = match state.take() {
        Some(state) => state,
        None => ops::zeros_dtype(&[heads, value_dims, inputs.keys.dim(3)], Dtype::Float32)?,
    };
    let chunks = Chunks::new(inputs, tokens.min(CHUNK))?;
    let mut read = Vec::with_capacity(usize::try_from(chunks.count)?);
    for chunk in 0..chunks.count {
        let (output, after) = chunks.read(chunk, &before)?;
        read.push(output);
        before = after;
    }
    *state = Some(before);
    // `[heads, tokens, dims]`, and some tokens that fill the last chunk.
    let read = ops::concatenate(&read, 1)?.try_index((.., ..tokens, ..))?;
    Ok(read.swap_axes(0, 1)?.expand_dims(0)?.as_dtype(inputs.queries.dtype())?)
}

/// How many tokens are computed together.
const CHUNK: i32 = 64;

/// The inputs in float32, each `[heads, chunks, length, dims]`.
struct Chunks {
    count: i32,
    queries: Array,
    keys: Array,
    values: Array,
    /// `g_t`, and `g_t / g_s` for `s <= t`.
    decays: [Array; 2],
    /// For the delta rule: `r_t`, and the inverse of the system's matrix.
    replaced: Option<[Array; 2]>,
}

impl Chunks {
    fn new(inputs: &Recurrence<'_, Mlx>, length: i32) -> Result<Self> {
        let tokens = inputs.values.dim(1);
        let count = (tokens + length - 1) / length;
        let each = inputs.values.dim(2) / inputs.keys.dim(2);
        // Tokens that fill the last chunk are zeros, and change nothing: the logarithm of their decay is 0.
        let cut = |x: &Array| -> Result<Array> {
            let by_head = x.as_dtype(Dtype::Float32)?.squeeze_axes(&[0])?.swap_axes(0, 1)?;
            let filled = count * length - tokens;
            let whole = match filled {
                0 => by_head,
                _ => {
                    let zeros = ops::zeros_dtype(&[by_head.dim(0), filled, by_head.dim(2)], Dtype::Float32)?;
                    ops::concatenate(&[by_head, zeros], 1)?
                }
            };
            Ok(whole.reshape(&[whole.dim(0), count, length, whole.dim(2)])?)
        };
        let keys = cut(&repeated(inputs.keys, each)?)?;
        let sums = cut(&inputs.log_decays.expand_dims(-1)?)?.cumsum(2, None, None)?;
        let [all, before] = triangles(length)?;
        let between = sums.subtract(sums.swap_axes(2, 3)?)?;
        let never = Array::from_f32(f32::NEG_INFINITY);
        let between = ops::select(all, between, never)?.exp()?;
        let replaced = match inputs.replaced {
            Some(replaced) => {
                let replaced = cut(&replaced.expand_dims(-1)?)?;
                let products = ops::matmul(&keys, keys.swap_axes(2, 3)?)?.multiply(&between)?;
                let system = ops::select(before, products, Array::from_f32(0.0))?.multiply(&replaced)?;
                let inverse = inverse(&system)?;
                Some([replaced, inverse])
            }
            None => None,
        };
        Ok(Self {
            count,
            queries: cut(&repeated(inputs.queries, each)?)?,
            keys,
            values: cut(inputs.values)?,
            decays: [sums.exp()?, between],
            replaced,
        })
    }

    /// Returns what the tokens of a chunk read, and the state after it.
    fn read(&self, chunk: i32, state: &Array) -> Result<(Array, Array)> {
        let at = |x: &Array| x.try_index((.., chunk, .., ..));
        let (queries, keys, values) = (at(&self.queries)?, at(&self.keys)?, at(&self.values)?);
        let (decays, between) = (at(&self.decays[0])?, at(&self.decays[1])?);
        let states = state.swap_axes(1, 2)?;
        let added = match &self.replaced {
            Some([replaced, inverse]) => {
                let held = ops::matmul(&keys, &states)?.multiply(&decays)?;
                ops::matmul(at(inverse)?, values.subtract(held)?.multiply(at(replaced)?)?)?
            }
            None => values,
        };
        let products = ops::matmul(&queries, keys.swap_axes(1, 2)?)?.multiply(&between)?;
        let earlier = ops::matmul(&queries, &states)?.multiply(&decays)?;
        let read = ops::matmul(products, &added)?.add(earlier)?;
        // The last row of what lies between tokens is what is left of each at the end.
        let left = between.try_index((.., -1.., ..))?.swap_axes(1, 2)?;
        let kept = state.multiply(decays.try_index((.., -1.., ..))?)?;
        let after = ops::matmul(added.multiply(left)?.swap_axes(1, 2)?, keys)?.add(kept)?;
        Ok((read, after))
    }
}

/// Returns which `s` are at most `t`, and which are less, `[length, length]`.
fn triangles(length: i32) -> Result<[Array; 2]> {
    let columns = Array::arange::<_, i32>(None, length, None)?;
    let rows = columns.expand_dims(1)?;
    Ok([rows.ge(&columns)?, rows.gt(&columns)?])
}

/// Returns the inverse of `1 + x`, where `x` is zero on and above the diagonal. Rows are found one after the other, each from
/// those before it, for all heads and chunks at once.
fn inverse(x: &Array) -> Result<Array> {
    let length = x.dim(-1);
    let identity = Array::eye::<f32>(length, None, None)?;
    let first = identity.try_index((..1, ..))?;
    let mut rows = ops::broadcast_to(first, &[x.dim(0), x.dim(1), 1, length])?;
    for row in 1..length {
        let own = x.try_index((.., .., row..row + 1, ..row))?;
        let unit = identity.try_index((row..row + 1, ..))?;
        let next = unit.subtract(ops::matmul(own, &rows)?)?;
        rows = ops::concatenate(&[rows, next], 2)?;
    }
    Ok(rows)
}

/// Returns each head of `[1, tokens, heads, dims]` so many times.
fn repeated(x: &Array, each: i32) -> Result<Array> {
    if each == 1 {
        return Ok(x.clone());
    }
    let shape = [x.dim(0), x.dim(1), x.dim(2), each, x.dim(3)];
    let broadcast = ops::broadcast_to(x.expand_dims(3)?, &shape)?;
    Ok(broadcast.reshape(&[x.dim(0), x.dim(1), x.dim(2) * each, x.dim(3)])?)
}

#[cfg(test)]
mod tests {
    use mlx_rs::ops::indexing::Ellipsis;

    use super::*;

    /// Numbers between -1 and 1 that look random.
    fn numbers(seed: u64, shape: &[i32]) -> Array {
        let count: i32 = shape.iter().product();
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..count).map(|_| next()).collect();
        Array::from_slice(&values, shape)
    }

    /// Returns what all tokens read, computed `step` at a time.
    fn read(tokens: i32, step: i32, is_delta: bool) -> Vec<f32> {
        let unit =
            |x: Array| x.divide(x.square().unwrap().sum_axis(-1, true).unwrap().sqrt().unwrap()).unwrap();
        let queries = unit(numbers(1, &[1, tokens, 2, 8]));
        let keys = unit(numbers(2, &[1, tokens, 2, 8]));
        let values = numbers(3, &[1, tokens, 4, 6]);
        let log_decays = numbers(4, &[1, tokens, 4]).abs().unwrap().negative().unwrap();
        let replaced = ops::sigmoid(numbers(5, &[1, tokens, 4])).unwrap();
        let (mut state, mut all) = (None, Vec::new());
        for start in (0..tokens).step_by(usize::try_from(step).unwrap()) {
            let part = |x: &Array| x.try_index((.., start..(start + step).min(tokens), Ellipsis)).unwrap();
            let own = is_delta.then(|| part(&replaced));
            let inputs = Recurrence {
                queries: &part(&queries),
                keys: &part(&keys),
                values: &part(&values),
                log_decays: &part(&log_decays),
                replaced: own.as_ref(),
            };
            let output = recurrence(&inputs, &mut state).unwrap();
            all.extend(super::super::results::numbers(&output).unwrap());
        }
        all
    }

    #[test]
    fn chunks_give_what_single_tokens_give() {
        for is_delta in [false, true] {
            let alone = read(150, 1, is_delta);
            for step in [150, 64, 37] {
                let together = read(150, step, is_delta);
                let worst = alone.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{worst} in steps of {step}, delta rule: {is_delta}");
            }
        }
    }
}
