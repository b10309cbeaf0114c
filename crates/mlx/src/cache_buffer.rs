//! The buffers of a key/value cache: `[batch, n_kv_heads, tokens, head_dim]`, with room for more tokens.
//! Knows nothing of which tokens are kept.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexOp};
use mlx_rs::{Array, ops};

/// The buffers grow by this many tokens at a time, so that most steps write in place, as in mlx-lm's caches.
pub(super) const STEP: i32 = 256;

/// Returns the first `count` tokens of a buffer that may have room for more.
pub(super) fn first(buffer: &Array, count: i32) -> Result<Array> {
    if count >= buffer.dim(2) {
        return Ok(buffer.clone());
    }
    Ok(buffer.try_index((Ellipsis, ..count, ..))?)
}

/// Returns a buffer of zeros for `count` tokens. The dtype and the other dimensions are those of `new`.
pub(super) fn room(new: &Array, count: i32) -> Result<Array> {
    let mut shape = new.shape().to_vec();
    shape[2] = count;
    Ok(ops::zeros_dtype(&shape, new.dtype())?)
}
