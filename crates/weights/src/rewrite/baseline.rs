//! What the outcome of a rewrite is compared with: the weights before a fine-tuning.
//! Knows nothing of how they are compared.

use crate::checkpoint::{Checkpoint, Weight, WeightKind};
use crate::kernels::Float;

/// What the outcome of a rewrite is compared with.
#[derive(Clone, Copy)]
pub(super) enum Baseline<'a> {
    /// Nothing: the outcome is not measured.
    Nothing,
    /// The weights before the rewrite updates them.
    Itself,
    /// The model that an adapter was fused into, and the fused model. `fused` is `None` if the fused model is
    /// the input of the rewrite.
    Models { base: &'a Checkpoint, fused: Option<&'a Checkpoint> },
}

/// A weight, and the model that it is in.
#[derive(Clone, Copy)]
pub(super) struct WeightRef<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) weight: &'a Weight,
}

/// What one weight is compared with.
#[derive(Clone, Copy)]
pub(super) enum WeightBaseline<'a> {
    /// The weight before its update.
    Itself,
    /// The base weight, and the fused weight if it is not the input, both cast to the fused dtype. So the
    /// base has the values that `fuse` merged into.
    Models { base: WeightRef<'a>, fused: Option<WeightRef<'a>>, float: Float },
}

impl<'a> Baseline<'a> {
    /// Returns what the weight `name` is compared with. Returns `None` if it is not measured, or if a model
    /// does not have it in this shape and as floats.
    pub(super) fn of_weight(
        self,
        name: &str,
        weight: &'a Weight,
        updated: bool,
    ) -> Option<WeightBaseline<'a>> {
        match self {
            Self::Nothing => None,
            Self::Itself => updated.then_some(WeightBaseline::Itself),
            Self::Models { base, fused } => {
                let weight_ref = |checkpoint: &'a Checkpoint| {
                    let weight = checkpoint.weights().get(name).filter(|other| other.shape == weight.shape);
                    weight
                        .filter(|weight| weight.float().is_some())
                        .map(|weight| WeightRef { checkpoint, weight })
                };
                let base = weight_ref(base)?;
                let fused = match fused {
                    Some(fused) => Some(weight_ref(fused)?),
                    None => None,
                };
                let float = fused.map_or(weight, |fused| fused.weight).float()?;
                Some(WeightBaseline::Models { base, fused, float })
            }
        }
    }
}

impl WeightBaseline<'_> {
    /// Returns how the weight is stored before the fine-tuning.
    pub(super) fn base_kind(&self, weight: &Weight) -> WeightKind {
        match self {
            Self::Itself => weight.kind,
            Self::Models { base, .. } => base.weight.kind,
        }
    }
}
