//! Root mean square normalization with a learned weight.
//! Knows nothing of the layers around it.

use anyhow::Result;
use mlx_rs::{Array, fast};

use super::tensors::Tensors;

/// The arguments of an architecture's norms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormArgs {
    /// Prevents a division by zero.
    pub(crate) eps: f32,
    /// Whether the file holds the weight minus one, as Gemma's files do.
    pub(crate) weight_offset: bool,
}

pub(crate) struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// Takes `path.weight`, `[dims]`.
    pub(crate) fn load(weights: &mut Tensors, path: &str, dims: i32, args: NormArgs) -> Result<Self> {
        let mut weight = weights.take(&format!("{path}.weight"), &[dims])?;
        if args.weight_offset {
            weight = weight.add(Array::from_f32(1.0).as_dtype(weight.dtype())?)?;
        }
        Ok(Self { weight, eps: args.eps })
    }

    /// Normalizes the last axis of `x`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}
