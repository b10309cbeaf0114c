//! Keys and values of the tokens seen so far, one cache per layer.
//! Knows nothing of attention.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexMutOp, TryIndexOp};
use mlx_rs::{Array, ops};

/// The buffers grow by this many tokens, so that most steps write in place (as mlx-lm's `KVCache`).
const STEP: i32 = 256;

/// Keys and values of one layer, each `[batch, n_kv_heads, tokens, head_dim]`.
#[derive(Default)]
pub(crate) struct KVCache {
    buffers: Option<[Array; 2]>,
    offset: i32,
}

impl KVCache {
    /// Number of tokens held, which is the position of the next one.
    pub(crate) fn offset(&self) -> i32 {
        self.offset
    }

    /// The buffers, to be evaluated between steps of a long prompt.
    pub(crate) fn state(&self) -> impl Iterator<Item = &Array> {
        self.buffers.iter().flatten()
    }

    /// Appends the new tokens' keys and values; returns those of all tokens.
    pub(crate) fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<[Array; 2]> {
        let start = self.offset;
        self.offset += keys.dim(2);
        let new = [keys, values];
        let mut buffers = match self.buffers.take() {
            Some(buffers) if self.offset <= buffers[0].dim(2) => buffers,
            Some([keys, values]) => {
                [grow(Some((keys, start)), &new[0])?, grow(Some((values, start)), &new[1])?]
            }
            None => [grow(None, &new[0])?, grow(None, &new[1])?],
        };
        for (buffer, new) in buffers.iter_mut().zip(&new) {
            buffer.try_index_mut((Ellipsis, start..self.offset, ..), new)?;
        }
        let held = [self.held(&buffers[0])?, self.held(&buffers[1])?];
        self.buffers = Some(buffers);
        Ok(held)
    }

    fn held(&self, buffer: &Array) -> Result<Array> {
        if self.offset == buffer.dim(2) {
            return Ok(buffer.clone());
        }
        Ok(buffer.try_index((Ellipsis, ..self.offset, ..))?)
    }
}

/// Returns a buffer with room for `new` after the `used` tokens of the old one.
fn grow(old: Option<(Array, i32)>, new: &Array) -> Result<Array> {
    let mut shape = new.shape().to_vec();
    shape[2] = (new.dim(2) + STEP - 1) / STEP * STEP;
    let room = ops::zeros_dtype(&shape, new.dtype())?;
    let Some((old, used)) = old else {
        return Ok(room);
    };
    let used = old.try_index((Ellipsis, ..used, ..))?;
    Ok(ops::concatenate(&[used, room], 2)?)
}
