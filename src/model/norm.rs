//! Root mean square normalization with a learned weight.
//! Knows nothing of the layers around it.

use anyhow::Result;
use mlx_rs::{Array, fast};

use super::weights::Weights;

pub(crate) struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// Takes `path.weight`, `[dims]`.
    pub(crate) fn load(weights: &mut Weights, path: &str, dims: i32, eps: f32) -> Result<Self> {
        let weight = weights.take(&format!("{path}.weight"), &[dims])?;
        Ok(Self { weight, eps })
    }

    /// Normalizes the last axis of `x`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}
