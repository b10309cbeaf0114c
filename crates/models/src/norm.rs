//! Root mean square normalization with a learned weight.
//! Knows nothing of the layers around it.

use anyhow::Result;

use super::runtime::Runtime;
use super::tensors::Tensors;

/// The arguments of an architecture's norms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormArgs {
    /// Prevents a division by zero.
    pub(crate) eps: f32,
    /// Whether the file holds the weight minus one, as Gemma's files do.
    pub(crate) weight_offset: bool,
}

pub(crate) struct RmsNorm<R: Runtime> {
    weight: R::Tensor,
    eps: f32,
}

impl<R: Runtime> RmsNorm<R> {
    /// Takes `path.weight`, `[dims]`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, dims: i32, args: NormArgs) -> Result<Self> {
        let stored = weights.take(&format!("{path}.weight"), &[dims])?;
        let weight = if args.weight_offset { weights.runtime().add_number(&stored, 1.0)? } else { stored };
        Ok(Self { weight, eps: args.eps })
    }

    /// Normalizes the last axis of `x`.
    pub(crate) fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        runtime.rms_norm(x, &self.weight, self.eps)
    }
}
