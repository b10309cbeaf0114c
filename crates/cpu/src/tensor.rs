//! Rows of float32 numbers: what layers pass to each other.
//! Knows nothing of what the numbers mean.
//!
//! A layer makes a dozen tensors and drops them again. Their memory is kept for the next ones, because the system would
//! take it back and give it out again page by page.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The most numbers that are kept for later use: 64 MB.
const MOST_KEPT: usize = 16 << 20;

/// The most tensors whose memory is kept. All are looked at when a tensor is made, so a long list costs more than
/// it saves.
const MOST_BUFFERS: usize = 32;

thread_local! {
    /// The memory of tensors that were dropped.
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { buffers: Vec::new(), total: 0 }) };
}

/// Memory for later use.
struct Kept {
    buffers: Vec<Vec<f32>>,
    /// How many numbers they have room for.
    total: usize,
}

impl Kept {
    /// Takes the smallest memory that has room for so many numbers.
    ///
    /// Several hundred tensors are made for each token. This is a plain loop, because the compiler does not always make
    /// one of an iterator.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let (mut best, mut least) = (None, usize::MAX);
        for (index, buffer) in self.buffers.iter().enumerate() {
            let room = buffer.capacity();
            if room >= length && room < least {
                (best, least) = (Some(index), room);
            }
        }
        let taken = self.buffers.swap_remove(best?);
        self.total -= taken.capacity();
        Some(taken)
    }

    /// Keeps memory, if there is not too much of it.
    fn keep(&mut self, buffer: Vec<f32>) {
        if self.total + buffer.capacity() > MOST_KEPT {
            return;
        }
        self.total += buffer.capacity();
        self.buffers.push(buffer);
        if self.buffers.len() > MOST_BUFFERS {
            self.drop_smallest();
        }
    }

    /// Gives the smallest memory back: the system has such pieces quickest.
    fn drop_smallest(&mut self) {
        let (mut smallest, mut least) = (0, usize::MAX);
        for (index, buffer) in self.buffers.iter().enumerate() {
            if buffer.capacity() < least {
                (smallest, least) = (index, buffer.capacity());
            }
        }
        self.total -= self.buffers.swap_remove(smallest).capacity();
    }
}

/// Numbers whose memory is used again.
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// Returns memory for so many numbers. What they are is not specified: the caller writes all of them.
    pub(crate) fn new(length: usize) -> Self {
        let kept = KEPT.with_borrow_mut(|kept| kept.take(length));
        let mut numbers = kept.unwrap_or_default();
        numbers.truncate(length);
        numbers.resize(length, 0.0);
        if cfg!(debug_assertions) {
            // A number that nobody writes must not look like a result.
            numbers.fill(f32::NAN);
        }
        Self(numbers)
    }

    /// Returns a copy of these numbers.
    pub(crate) fn of(values: &[f32]) -> Self {
        let mut buffer = Self::new(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.0);
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().keep(numbers));
    }
}

/// `[tokens, heads, dims]`, or `[tokens, dims]` with one head; the last axis is contiguous.
#[derive(Clone)]
pub struct Tensor {
    values: Arc<Buffer>,
    heads: usize,
    dims: usize,
}

impl Tensor {
    /// Returns rows of `dims` numbers. There are whole rows.
    pub(crate) fn new(values: Buffer, dims: usize) -> Self {
        debug_assert!(values.len().is_multiple_of(dims.max(1)));
        Self { values: Arc::new(values), heads: 1, dims }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Whether both are the same numbers in memory.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values)
    }

    /// Returns the length of the last axis.
    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    /// Returns the number of heads.
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// Returns the number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.values.len() / (self.heads * self.dims).max(1)
    }

    /// Returns the same numbers with the rows of each token cut into `heads`.
    pub(crate) fn split(&self, heads: usize) -> Self {
        let width = self.heads * self.dims;
        Self { values: Arc::clone(&self.values), heads, dims: width / heads.max(1) }
    }

    /// Returns other numbers in the same shape.
    pub(crate) fn with(&self, values: Buffer) -> Self {
        debug_assert!(values.len() == self.values.len());
        Self { values: Arc::new(values), ..*self }
    }
}
