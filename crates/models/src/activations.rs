//! The activations of the feed-forward layers.
//! Knows nothing of the layers around them.
//!
//! They are made of plain operations, not compiled by MLX. On a CPU, MLX compiles kernels by calling a C++
//! compiler at run time, and a machine that only runs models need not have one.

use anyhow::Result;
use mlx_rs::{Array, ops};

/// Combines the gate and the input of a gated feed-forward layer, element by element.
pub(crate) type Activation = fn(gate: &Array, x: &Array) -> Result<Array>;

/// Returns `silu(gate) * x`.
pub(crate) fn swiglu(gate: &Array, x: &Array) -> Result<Array> {
    Ok(gate.multiply(ops::sigmoid(gate)?)?.multiply(x)?)
}

/// Returns `gelu_approx(gate) * x`, where `gelu_approx` approximates GELU with a tanh.
pub(crate) fn geglu(gate: &Array, x: &Array) -> Result<Array> {
    let cubed = gate.square()?.multiply(gate)?;
    let inner = gate.add(scaled(&cubed, 0.044_715)?)?;
    let tanh = ops::tanh(scaled(&inner, (2.0 / std::f32::consts::PI).sqrt())?)?;
    // This is gate / 2 * (1 + tanh), with one multiplication less.
    let half = scaled(gate, 0.5)?;
    Ok(half.multiply(tanh)?.add(half)?.multiply(x)?)
}

/// Returns `x * factor` in the dtype of `x`, as with a Python number. A float32 array would widen a float16
/// `x`.
pub(crate) fn scaled(x: &Array, factor: f32) -> Result<Array> {
    Ok(x.multiply(Array::from_f32(factor).as_dtype(x.dtype())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaled_half_stays_a_half() {
        let half = Array::from_f32(3.0).as_dtype(mlx_rs::Dtype::Float16).unwrap();
        let scaled = scaled(&half, 0.5).unwrap();
        assert_eq!(scaled.dtype(), mlx_rs::Dtype::Float16);
        assert_eq!(scaled.as_dtype(mlx_rs::Dtype::Float32).unwrap().item_exact::<f32>(), 1.5);
    }
}
