//! Reads, fuses, quantizes and writes checkpoints and adapters of language models, as MLX and mlx-lm do.
//! Knows nothing of build graphs, caches, networks or terminals.
//!
//! ```text
//!  rewrite                   makes models from models: fuse, quantize, and what survives of a fine-tuning
//!  checkpoint    adapter     a model folder as weights · what an adapter does to each weight
//!  arch          survival    facts about each model type · the file `survival.json`
//!  kernels       tensor      the arithmetic on blocks of rows · files of named tensors
//! ```

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write scratch files"))]

pub mod adapter;
pub mod arch;
pub mod checkpoint;
mod error;
pub mod kernels;
pub mod rewrite;
pub mod survival;
pub mod tensor;

pub use error::{Error, Result};
