//! Checkpoints and adapters of language models: read, fused, quantized and written as MLX and mlx-lm do it.
//! Knows nothing of build graphs, caches, networks or terminals.
//!
//! ```text
//!  rewrite                   models made from models: fuse, quantize, what is left of a fine-tuning
//!  checkpoint    adapter     a model folder as weights · what an adapter does to which weight
//!  arch                      what is known of each model type
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
