//! Keys and values of the tokens seen so far, one cache per layer.
//! Knows nothing of attention.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexMutOp};
use mlx_rs::{Array, ops};

use super::cache_buffer::{STEP, first, room};
use super::rotating::RotatingKVCache;

/// The cache of one layer. Its keys and values are each `[batch, n_kv_heads, tokens, head_dim]`.
pub struct Cache {
    kind: Kind,
    /// What the layer saw of the last tokens, for layers that use its keys.
    fetched: Option<[Array; 2]>,
}

enum Kind {
    /// For a layer that sees all tokens.
    Whole(KVCache),
    /// For a layer that sees only the last tokens.
    Rotating(RotatingKVCache),
}

impl Cache {
    /// Returns an empty cache for a layer that sees the last `window` tokens, or all tokens if `window` is
    /// `None`.
    pub(crate) fn new(window: Option<i32>) -> Self {
        let kind = match window {
            Some(window) => Kind::Rotating(RotatingKVCache::new(window)),
            None => Kind::Whole(KVCache::default()),
        };
        Self { kind, fetched: None }
    }

    /// Returns the number of tokens seen, which is the position of the next token.
    pub(crate) fn offset(&self) -> i32 {
        match &self.kind {
            Kind::Whole(cache) => cache.offset,
            Kind::Rotating(cache) => cache.offset(),
        }
    }

    /// Returns the buffers, which are evaluated between the steps of a long prompt.
    pub(crate) fn state(&self) -> impl Iterator<Item = &Array> {
        let buffers = match &self.kind {
            Kind::Whole(cache) => cache.buffers.as_ref(),
            Kind::Rotating(cache) => cache.buffers(),
        };
        buffers.into_iter().flatten()
    }

    /// Returns what the layer saw of the last tokens.
    pub(crate) fn fetched(&self) -> Option<[Array; 2]> {
        self.fetched.clone()
    }

    /// Appends the keys and values of the new tokens, and returns those that the layer sees.
    pub(crate) fn update_and_fetch(&mut self, keys: Array, values: Array) -> Result<[Array; 2]> {
        // MLX writes into a buffer in place only if nobody else holds it.
        self.fetched = None;
        let fetched = match &mut self.kind {
            Kind::Whole(cache) => cache.update_and_fetch([keys, values])?,
            Kind::Rotating(cache) => cache.update_and_fetch([keys, values])?,
        };
        self.fetched = Some(fetched.clone());
        Ok(fetched)
    }
}

/// The keys and values of all tokens.
#[derive(Default)]
struct KVCache {
    buffers: Option<[Array; 2]>,
    offset: i32,
}

impl KVCache {
    fn update_and_fetch(&mut self, new: [Array; 2]) -> Result<[Array; 2]> {
        let start = self.offset;
        self.offset += new[0].dim(2);
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
        let held = [first(&buffers[0], self.offset)?, first(&buffers[1], self.offset)?];
        self.buffers = Some(buffers);
        Ok(held)
    }
}

/// Returns a buffer with room for `new` after the tokens of `old`, which is a buffer and its number of
/// tokens.
fn grow(old: Option<(Array, i32)>, new: &Array) -> Result<Array> {
    let count = (new.dim(2) + STEP - 1) / STEP * STEP;
    let room = room(new, count)?;
    match old {
        Some((old, used)) => Ok(ops::concatenate(&[first(&old, used)?, room], 2)?),
        None => Ok(room),
    }
}
