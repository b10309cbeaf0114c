//! The activation of the feed-forward layers.
//! Knows nothing of the layers around it.

use anyhow::Result;
use mlx_rs::{Array, ops};

/// Returns `silu(gate) * x`, element by element.
///
/// Written out rather than compiled: on a CPU, MLX compiles kernels by calling a C++ compiler at
/// run time, which a machine that only runs models need not have.
pub(crate) fn swiglu(gate: &Array, x: &Array) -> Result<Array> {
    Ok(gate.multiply(ops::sigmoid(gate)?)?.multiply(x)?)
}
