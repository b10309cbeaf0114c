//! Normalization of the last axis: by the root mean square, or to mean 0 and variance 1.
//! Knows nothing of the layers around it.

use anyhow::Result;

use crate::runtime::Runtime;
use crate::tensors::Tensors;

/// The arguments of an architecture's norms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormArgs {
    /// Prevents a division by zero.
    pub(crate) eps: f32,
    /// What the file holds.
    pub(crate) weight: NormWeight,
    /// Whether the mean is subtracted, as `nn.LayerNorm` does; and whether a bias is added then.
    pub(crate) centered: Option<HasBias>,
}

/// Whether a norm has a bias.
pub(crate) type HasBias = bool;

/// What a file holds of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormWeight {
    /// The weight.
    Own,
    /// The weight minus one, as Gemma's files do.
    MinusOne,
    /// Nothing: the weight is one.
    Absent,
}

impl NormArgs {
    /// Returns the arguments of `nn.RMSNorm`.
    pub(crate) fn rms(eps: f32) -> Self {
        Self { eps, weight: NormWeight::Own, centered: None }
    }

    /// Returns the arguments of Gemma's `RMSNorm`, whose files hold the weight minus one.
    pub(crate) fn gemma(eps: f32) -> Self {
        Self { weight: NormWeight::MinusOne, ..Self::rms(eps) }
    }

    /// Returns the arguments of `nn.LayerNorm`.
    pub(crate) fn layer(eps: f32, bias: HasBias) -> Self {
        Self { centered: Some(bias), ..Self::rms(eps) }
    }
}

pub(crate) struct Norm<R: Runtime> {
    weight: Option<R::Tensor>,
    bias: Option<R::Tensor>,
    eps: f32,
    is_centered: bool,
}

impl<R: Runtime> Norm<R> {
    /// Takes `path.weight` and, if there is one, `path.bias`, each `[dims]`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, dims: i32, args: NormArgs) -> Result<Self> {
        let mut take = |part: &str| weights.take(&format!("{path}.{part}"), &[dims]);
        let weight = if args.weight == NormWeight::Absent { None } else { Some(take("weight")?) };
        let bias = if args.centered == Some(true) { Some(take("bias")?) } else { None };
        let weight = match weight {
            Some(stored) if args.weight == NormWeight::MinusOne => {
                Some(weights.runtime().add_number(&stored, 1.0)?)
            }
            stored => stored,
        };
        Ok(Self { weight, bias, eps: args.eps, is_centered: args.centered.is_some() })
    }

    /// Normalizes the last axis of `x`.
    pub(crate) fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        if self.is_centered {
            runtime.layer_norm(x, self.weight.as_ref(), self.bias.as_ref(), self.eps)
        } else {
            runtime.rms_norm(x, self.weight.as_ref(), self.eps)
        }
    }
}
