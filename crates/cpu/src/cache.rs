//! The keys and values that one layer has seen.
//! Knows nothing of attention beyond how it reads them.
//!
//! Keys lie in blocks of sixteen tokens, so that the products of a query with sixteen keys are computed at once; values lie
//! token by token.

use crate::simd::LANES;

/// A layer with a window gives memory back when it can forget so many tokens.
const FORGOTTEN: usize = 256;

/// The cache of one layer.
pub struct Cache {
    window: Option<usize>,
    seen: usize,
    /// How many of the first tokens were forgotten: whole blocks.
    forgotten: usize,
    heads: Vec<Head>,
    key_dims: usize,
    value_dims: usize,
    /// The length of a row of values, in whole chunks of lanes.
    value_row: usize,
}

/// The cache of one key/value head.
#[derive(Clone, Default)]
struct Head {
    /// `[blocks, dims, 16]`
    keys: Vec<f32>,
    /// `[tokens, dims]`, whole blocks of tokens, each row padded to whole chunks of lanes.
    values: Vec<f32>,
}

/// The keys and values of one head.
pub(crate) struct Held<'a> {
    /// `[blocks, dims, 16]`
    pub(crate) keys: &'a [f32],
    /// `[blocks * 16, value_dims]`
    pub(crate) values: &'a [f32],
    /// The position of the first token in them.
    pub(crate) first: usize,
    pub(crate) key_dims: usize,
    /// The length of a row of values, in whole chunks of lanes.
    pub(crate) value_dims: usize,
}

impl Cache {
    /// Returns an empty cache for a layer that sees the last `window` tokens, or all.
    pub(crate) fn new(window: Option<usize>) -> Self {
        Self { window, seen: 0, forgotten: 0, heads: Vec::new(), key_dims: 0, value_dims: 0, value_row: 0 }
    }

    /// Returns the number of tokens seen.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    /// Returns the number of key/value heads.
    pub(crate) fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Returns the number of dimensions of a value.
    pub(crate) fn value_dims(&self) -> usize {
        self.value_dims
    }

    /// Appends the keys and values of some tokens, each `[tokens, heads, dims]`.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32], heads: usize, dims: [usize; 2]) {
        let tokens = keys.len() / (heads * dims[0]).max(1);
        self.heads.resize(heads, Head::default());
        (self.key_dims, self.value_dims) = (dims[0], dims[1]);
        self.value_row = dims[1].next_multiple_of(LANES);
        self.forget(tokens);
        let held = self.seen - self.forgotten;
        let blocks = (held + tokens).div_ceil(LANES);
        for (number, head) in self.heads.iter_mut().enumerate() {
            head.keys.resize(blocks * self.key_dims * LANES, 0.0);
            head.values.resize(blocks * LANES * self.value_row, 0.0);
            for token in 0..tokens {
                let row = token * heads + number;
                let place = held + token;
                let block = &mut head.keys[place / LANES * self.key_dims * LANES..];
                for (key, lane) in keys[row * dims[0]..][..dims[0]].iter().zip(block.chunks_exact_mut(LANES))
                {
                    lane[place % LANES] = *key;
                }
                head.values[place * self.value_row..][..dims[1]]
                    .copy_from_slice(&values[row * dims[1]..][..dims[1]]);
            }
        }
        self.seen += tokens;
    }

    /// Gives back the memory of blocks that none of the next tokens sees.
    fn forget(&mut self, tokens: usize) {
        let Some(window) = self.window else { return };
        let unseen = (self.seen + 1).saturating_sub(window.max(1) + self.forgotten) / LANES * LANES;
        if unseen < FORGOTTEN || tokens == 0 {
            return;
        }
        for head in &mut self.heads {
            head.keys.drain(..unseen * self.key_dims);
            head.values.drain(..unseen * self.value_row);
        }
        self.forgotten += unseen;
    }

    /// Returns the positions that the token at `position` sees.
    pub(crate) fn visible(&self, position: usize) -> std::ops::Range<usize> {
        let start = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        start.max(self.forgotten)..position + 1
    }

    pub(crate) fn held(&self, head: usize) -> Held<'_> {
        let Head { keys, values } = &self.heads[head];
        Held { keys, values, first: self.forgotten, key_dims: self.key_dims, value_dims: self.value_row }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_nobody_sees() {
        let mut cache = Cache::new(Some(20));
        for position in 0..1000_usize {
            let number = [position as f32; 2];
            cache.append(&number, &number, 1, [2, 2]);
            let visible = cache.visible(position);
            assert_eq!(visible, (position + 1).saturating_sub(20)..position + 1);
            let held = cache.held(0);
            assert!(held.keys.len() / 2 < 20 + FORGOTTEN + 2 * LANES);
            let place = visible.start - held.first;
            assert_eq!(held.values[place * held.value_dims], visible.start as f32);
            assert_eq!(held.keys[place / LANES * 2 * LANES + place % LANES], visible.start as f32);
        }
    }
}
