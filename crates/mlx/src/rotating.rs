//! The keys and values of the last tokens, for a layer with a sliding window: mlx-lm's `RotatingKVCache`.
//! Knows nothing of attention.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexMutOp, TryIndexOp};
use mlx_rs::{Array, ops};

use super::cache_buffer::{STEP, first, room};

/// A cache of the last `window` tokens. When it is full, a new token replaces the oldest.
///
/// The order of the keys does not matter to attention, because each key contains its position.
pub(super) struct RotatingKVCache {
    window: i32,
    buffers: Option<[Array; 2]>,
    offset: i32,
    /// Where the next token goes.
    index: i32,
}

impl RotatingKVCache {
    /// Returns an empty cache. `window` is at least one.
    pub(super) fn new(window: i32) -> Self {
        Self { window, buffers: None, offset: 0, index: 0 }
    }

    pub(super) fn offset(&self) -> i32 {
        self.offset
    }

    pub(super) fn buffers(&self) -> Option<&[Array; 2]> {
        self.buffers.as_ref()
    }

    pub(super) fn update_and_fetch(&mut self, new: [Array; 2]) -> Result<[Array; 2]> {
        let tokens = new[0].dim(2);
        let held = if tokens == 1 { self.update_in_place(&new)? } else { self.append(new)? };
        self.offset += tokens;
        Ok(held)
    }

    /// Appends several tokens. The first of them still sees a whole window, so the buffers may hold more than
    /// one window.
    fn append(&mut self, new: [Array; 2]) -> Result<[Array; 2]> {
        let buffers = match self.buffers.take() {
            Some([keys, values]) => {
                let [new_keys, new_values] = &new;
                [self.joined(&keys, new_keys)?, self.joined(&values, new_values)?]
            }
            None => new,
        };
        self.index = buffers[0].dim(2);
        self.buffers = Some(buffers.clone());
        Ok(buffers)
    }

    /// Returns the last `window - 1` tokens of a buffer, oldest first, followed by the new tokens.
    fn joined(&self, buffer: &Array, new: &Array) -> Result<Array> {
        let ordered = if self.index < self.offset && self.index < buffer.dim(2) {
            let older = buffer.try_index((Ellipsis, self.index.., ..))?;
            ops::concatenate(&[&older, &first(buffer, self.index)?], 2)?
        } else {
            first(buffer, self.index)?
        };
        Ok(ops::concatenate(&[&last(&ordered, self.window - 1)?, new], 2)?)
    }

    fn update_in_place(&mut self, new: &[Array; 2]) -> Result<[Array; 2]> {
        let mut buffers = match self.buffers.take() {
            Some(buffers) => buffers,
            None => [room(&new[0], 0)?, room(&new[1], 0)?],
        };
        let length = buffers[0].dim(2);
        if length > self.window {
            // A prompt left more tokens than the window holds.
            for buffer in &mut buffers {
                *buffer = last(buffer, self.window)?;
            }
            self.index = self.window;
        } else if length < self.window && self.offset >= length {
            for (buffer, new) in buffers.iter_mut().zip(new) {
                let room = room(new, STEP.min(self.window - length))?;
                *buffer = ops::concatenate(&[&*buffer, &room], 2)?;
            }
            self.index = length;
        }
        if self.index == self.window {
            self.index = 0;
        }
        for (buffer, new) in buffers.iter_mut().zip(new) {
            buffer.try_index_mut((Ellipsis, self.index..self.index + 1, ..), new)?;
        }
        self.index += 1;
        let held = [first(&buffers[0], self.offset + 1)?, first(&buffers[1], self.offset + 1)?];
        self.buffers = Some(buffers);
        Ok(held)
    }
}

/// Returns the last `count` tokens of a buffer, or all tokens if there are fewer.
fn last(buffer: &Array, count: i32) -> Result<Array> {
    let length = buffer.dim(2);
    if length <= count {
        return Ok(buffer.clone());
    }
    Ok(buffer.try_index((Ellipsis, length - count.., ..))?)
}
