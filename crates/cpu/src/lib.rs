//! The CPU runtime: products straight from the packed weights, and the same bits on every processor.
//! Knows no model. `docs/runtime.md` says in which order sums are computed, and why it is fast.
//!
//! ```
//! use cpu::Cpu;
//! use models::LanguageModel;
//!
//! # fn main() -> anyhow::Result<()> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models/llama-8bit");
//! let cpu = Cpu::default();
//! let model = LanguageModel::load(&cpu, folder.as_ref(), None)?;
//! let at_once = model.logits(&[1, 2, 3], 512)?;
//! assert_eq!(at_once, model.logits(&[1, 2, 3], 1)?);
//! # Ok(())
//! # }
//! ```

mod attention;
mod cache;
mod elementwise;
mod experts;
mod format;
mod linear;
mod math;
mod matrix;
mod memory;
mod peak_memory;
mod pool;
mod product;
mod recurrence;
mod rope;
mod runtime;
mod shapes;
mod simd;
mod tensor;
mod view;

use std::cell::RefCell;
use std::thread::available_parallelism;

use pool::Pool;
pub use simd::Simd;
use tensor::Tensor;

/// The runtime: its threads, and the instructions that it uses. Neither changes a result.
pub struct Cpu {
    pool: Pool,
    simd: Simd,
    last: RefCell<Option<Arranged>>,
}

/// A tensor that was arranged for a product. Several matrices read the same tensor, so the last one is kept.
struct Arranged {
    of: Tensor,
    /// Whether the format has its weights in pairs, and the length of a row.
    form: (bool, usize),
    made: Tensor,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from), Simd::best())
    }
}

impl Cpu {
    /// Starts a runtime with so many threads. The processor must have the instructions.
    pub fn new(threads: usize, simd: Simd) -> Self {
        let simd = if simd.is_there() { simd } else { Simd::best() };
        Self { pool: Pool::new(threads), simd, last: RefCell::new(None) }
    }
}
