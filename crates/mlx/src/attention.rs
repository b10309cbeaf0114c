//! Attention over a key/value cache.
//! Knows no architecture.

use anyhow::{Context, Result};
use mlx_rs::{Array, fast, ops};

use super::Mlx;
use super::activations::softcapped;
use super::cache::Cache;
use super::mask::Mask;
use super::rope::Rope;
use models::runtime::{AttentionOptions, Heads};

/// Rotates, caches and attends; see `Runtime::attention`.
pub(crate) fn attention(
    heads: &Heads<'_, Mlx>,
    options: &AttentionOptions<'_, Mlx>,
    mask: &Mask,
    cache: &mut Cache,
) -> Result<Array> {
    let (batch, tokens) = (heads.queries.dim(0), heads.queries.dim(1));
    let by_head = |tensor: &Array| tensor.transpose_axes(&[0, 2, 1, 3]);
    let turned = |tensor: &Array, offset: i32| match options.rope {
        Some(rope) => Rope::forward(rope, &by_head(tensor)?, offset),
        None => Ok(by_head(tensor)?),
    };
    // The keys of another layer are in its cache already.
    let offset = if heads.own.is_some() { cache.offset() } else { cache.offset() - tokens };
    let queries = turned(heads.queries, offset)?;
    let [keys, values] = match heads.own {
        Some([keys, values]) => cache.update_and_fetch(turned(keys, offset)?, by_head(values)?)?,
        None => cache.fetched().context("BUG: the other layer has no keys")?,
    };
    let output = match options.softcap {
        Some(cap) => capped(&queries, [&keys, &values], (options.scale, cap), mask)?,
        None => {
            let mask = mask.as_argument();
            fast::scaled_dot_product_attention(queries, keys, values, options.scale, mask, options.sinks)?
        }
    };
    Ok(output.transpose_axes(&[0, 2, 1, 3])?.reshape(&[batch, tokens, -1])?)
}

/// Returns attention whose products are soft-capped, which MLX has no kernel for.
fn capped(
    queries: &Array,
    [keys, values]: [&Array; 2],
    (scale, cap): (f32, f32),
    mask: &Mask,
) -> Result<Array> {
    let (batch, heads, tokens, dims) = (queries.dim(0), queries.dim(1), queries.dim(2), queries.dim(3));
    let (kv_heads, held) = (keys.dim(1), keys.dim(2));
    let scaled = super::activations::scaled(queries, scale)?;
    let grouped = scaled.reshape(&[batch, kv_heads, heads / kv_heads, tokens, dims])?;
    let products = ops::matmul(grouped, keys.expand_dims(2)?.swap_axes(-1, -2)?)?;
    let scores = softcapped(&products, cap)?;
    let seen = match mask.seen(tokens, held)? {
        Some(seen) => {
            ops::select(seen, &scores, Array::from_f32(f32::NEG_INFINITY).as_dtype(scores.dtype())?)?
        }
        None => scores,
    };
    let weights = ops::softmax_axis(seen, -1, true)?;
    let output = ops::matmul(weights, values.expand_dims(2)?)?;
    Ok(output.reshape(&[batch, heads, tokens, values.dim(3)])?)
}
