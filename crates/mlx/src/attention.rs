//! Attention over a key/value cache.
//! Knows no architecture.

use anyhow::Result;
use mlx_rs::{Array, fast};

use super::Mlx;
use super::cache::Cache;
use super::mask::Mask;
use super::rope::Rope;
use models::runtime::Heads;

/// Rotates, caches and attends; see `Runtime::attention`.
pub(crate) fn attention(
    heads: &Heads<'_, Mlx>,
    rope: &Rope,
    scale: f32,
    mask: &Mask,
    cache: &mut Cache,
) -> Result<Array> {
    let (batch, tokens) = (heads.queries.dim(0), heads.queries.dim(1));
    let by_head = |tensor: &Array| tensor.transpose_axes(&[0, 2, 1, 3]);
    let queries = rope.forward(&by_head(heads.queries)?, cache.offset())?;
    let keys = rope.forward(&by_head(heads.keys)?, cache.offset())?;
    let [keys, values] = cache.update_and_fetch(keys, by_head(heads.values)?)?;

    let mask = mask.as_argument();
    let output = fast::scaled_dot_product_attention(queries, keys, values, scale, mask, None)?;
    Ok(output.transpose_axes(&[0, 2, 1, 3])?.reshape(&[batch, tokens, -1])?)
}
