//! MLX as a runtime for models, and as a backend for weights.
//! Knows no model. One thread must own everything that is made here, because MLX is not thread-safe.
//!
//! A tensor is an array `[1, tokens, dims]`, or `[1, tokens, heads, dims]`. MLX is lazy: an operation only notes what
//! is to be computed.

mod activations;
mod attention;
mod backend;
mod cache;
mod cache_buffer;
mod device;
mod experts;
mod load;
mod mask;
mod matrix;
mod modes;
mod packed;
mod recurrence;
mod results;
mod rope;
mod rotating;
mod runtime;

pub use backend::{Mlx, check_device};
