//! The activations of the feed-forward layers.
//! Knows nothing of the layers around them.
//!
//! On a GPU they are compiled, as mlx-lm compiles them: MLX makes one kernel of each. On a CPU they are made of
//! plain operations, because MLX would call a C++ compiler at run time, and a machine that only runs models need
//! not have one.

use anyhow::Result;
use mlx_rs::error::Exception;
use mlx_rs::transforms::compile::compile;
use mlx_rs::{Array, ops};

use super::device;
use models::runtime::Activation;

/// Combines the gate and the input of a gated feed-forward layer, element by element.
pub(crate) fn gated(activation: Activation, gate: &Array, x: &Array) -> Result<Array> {
    let is_compiled = !device::is_cpu()?;
    Ok(match (activation, is_compiled) {
        (Activation::Silu, false) => swiglu((gate, x))?,
        (Activation::Silu, true) => compile(swiglu, true)((gate, x))?,
        (Activation::Gelu, false) => geglu((gate, x))?,
        (Activation::Gelu, true) => compile(geglu, true)((gate, x))?,
        (Activation::Clamped, false) => clamped((gate, x))?,
        (Activation::Clamped, true) => compile(clamped, true)((gate, x))?,
        (Activation::SquaredRelu | Activation::ExactGelu, _) => activated(activation, gate)?.multiply(x)?,
    })
}

/// Returns `activation(x)`.
pub(crate) fn activated(activation: Activation, x: &Array) -> Result<Array> {
    let one = || Array::from_f32(1.0).as_dtype(x.dtype());
    Ok(match activation {
        Activation::Silu => x.multiply(ops::sigmoid(x)?)?,
        Activation::Gelu => gelu(x)?,
        Activation::ExactGelu => {
            let error = ops::erf(scaled(x, std::f32::consts::FRAC_1_SQRT_2)?)?;
            scaled(&x.multiply(error.add(one()?)?)?, 0.5)?
        }
        Activation::SquaredRelu => ops::maximum(x, Array::from_f32(0.0).as_dtype(x.dtype())?)?.square()?,
        Activation::Clamped => clamped((x, &ops::zeros_dtype(x.shape(), x.dtype())?))?,
    })
}

/// Returns `cap * tanh(x / cap)`.
pub(crate) fn softcapped(x: &Array, cap: f32) -> Result<Array> {
    Ok(scaled(&ops::tanh(scaled(x, 1.0 / cap)?)?, cap)?)
}

/// The activation of gpt-oss: `swiglu_oai` in mlx-lm's `activations.py`.
fn clamped((gate, x): (&Array, &Array)) -> Result<Array, Exception> {
    let limit = |value: f32| Array::from_f32(value).as_dtype(gate.dtype());
    let gate = ops::minimum(gate, limit(7.0)?)?;
    let x = ops::clip(x, (limit(-7.0)?, limit(7.0)?))?;
    let opened = gate.multiply(ops::sigmoid(scaled(&gate, 1.702)?)?)?;
    x.add(limit(1.0)?)?.multiply(opened)
}

/// Returns `silu(gate) * x`.
fn swiglu((gate, x): (&Array, &Array)) -> Result<Array, Exception> {
    gate.multiply(ops::sigmoid(gate)?)?.multiply(x)
}

/// Returns `gelu(gate) * x`.
fn geglu((gate, x): (&Array, &Array)) -> Result<Array, Exception> {
    gelu(gate)?.multiply(x)
}

/// Returns GELU, approximated with a tanh.
fn gelu(x: &Array) -> Result<Array, Exception> {
    let cubed = x.square()?.multiply(x)?;
    let inner = x.add(scaled(&cubed, 0.044_715)?)?;
    let tanh = ops::tanh(scaled(&inner, (2.0 / std::f32::consts::PI).sqrt())?)?;
    // This is x / 2 * (1 + tanh), with one multiplication less.
    let half = scaled(x, 0.5)?;
    half.multiply(tanh)?.add(half)
}

/// Returns `x * factor` in the dtype of `x`, as with a Python number. A float32 array would widen a float16
/// `x`.
pub(crate) fn scaled(x: &Array, factor: f32) -> Result<Array, Exception> {
    x.multiply(Array::from_f32(factor).as_dtype(x.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a GPU the compiled functions are used. Here MLX compiles them with the C++ compiler that built its shim.
    #[test]
    fn compiled_and_plain_agree() {
        let gate = Array::from_slice(&[-3.0_f32, -0.5, 0.0, 0.25, 2.0, 7.0], &[6]);
        let x = Array::from_slice(&[1.0_f32, 2.0, 3.0, -4.0, 5.0, -6.0], &[6]);
        for (plain, compiled) in [
            (swiglu((&gate, &x)), compile(swiglu, true)((&gate, &x))),
            (geglu((&gate, &x)), compile(geglu, true)((&gate, &x))),
            (clamped((&gate, &x)), compile(clamped, true)((&gate, &x))),
        ] {
            let numbers = |array: Array| array.to_vec_exact::<f32>().unwrap();
            for (a, b) in numbers(plain.unwrap()).into_iter().zip(numbers(compiled.unwrap())) {
                assert!((a - b).abs() < 1e-6 * (1.0 + a.abs()), "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_scaled_half_stays_a_half() {
        let half = Array::from_f32(3.0).as_dtype(mlx_rs::Dtype::Float16).unwrap();
        let scaled = scaled(&half, 0.5).unwrap();
        assert_eq!(scaled.dtype(), mlx_rs::Dtype::Float16);
        assert_eq!(scaled.as_dtype(mlx_rs::Dtype::Float32).unwrap().item_exact::<f32>(), 1.5);
    }
}
