//! Compares the outcome of a rewrite with the weights before and after a fine-tuning.
//! Knows nothing of what the sums mean.

use std::collections::BTreeMap;
use std::ops::Range;

use super::block::{Block, Scratch};
use super::target::Target;
use crate::checkpoint::{Checkpoint, Weight, WeightKind};
use crate::error::Result;
use crate::kernels::{Float, Packed, PackedMut, UpdateStats};

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

/// The sums over one weight that the fine-tuning changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) stats: UpdateStats,
    /// How the base stores it.
    pub(super) base: WeightKind,
    /// How the outcome stores it.
    pub(super) made: WeightKind,
}

/// The counts by the names of their weights.
pub(super) type Counts = BTreeMap<String, Count>;

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

/// The outcome of a block: the rows in `scratch.rows`, with the sum of their squared quantization steps, or
/// codes.
pub(super) enum Made<'a> {
    Rows { steps: f64 },
    Packed(Packed<'a>),
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

impl Block<'_> {
    /// Returns the sums over `rows`, whose outcome is `made`; `scratch.rows` holds the unquantized rows. A
    /// block that the fine-tuning did not change is skipped unless `all` is set, because most weights are
    /// changed everywhere or nowhere.
    pub(super) fn measure(
        &self,
        rows: &Range<usize>,
        made: Made<'_>,
        all: bool,
        scratch: &mut Scratch,
    ) -> Result<Option<UpdateStats>> {
        let Some(baseline) = &self.task.baseline else { return Ok(None) };
        let mut separate = false;
        if let WeightBaseline::Models { base, fused, float } = *baseline {
            let mut fused = fused;
            // The input was cast to another type before it was quantized, so `scratch.rows` is not the fused
            // weight.
            if fused.is_none() && self.float != float {
                fused = Some(WeightRef { checkpoint: self.checkpoint, weight: self.task.weight });
            }
            if let Some(fused) = fused {
                self.read(fused, float, rows, &mut scratch.aside, &mut scratch.updated)?;
                separate = true;
            }
            self.read(base, float, rows, &mut scratch.aside, &mut scratch.base)?;
        }
        let Scratch { rows, base, updated, made: dequantized, .. } = scratch;
        let updated = if separate { &*updated } else { &*rows };
        if !all && base.same(updated) {
            return Ok(None);
        }
        Ok(Some(match made {
            Made::Rows { steps } => UpdateStats { steps, ..UpdateStats::of(base, updated, rows) },
            Made::Packed(packed) => {
                let alike = baseline.base_kind(self.task.weight).spec() == Some(packed.spec);
                self.backend.update_stats(packed, base, updated, dequantized, alike)?
            }
        }))
    }

    /// Makes `rows` again without writing them, and returns the sums over all of them.
    pub(super) fn measure_again(
        &self,
        rows: Range<usize>,
        target: Target,
        scratch: &mut Scratch,
    ) -> Result<Option<UpdateStats>> {
        // A weight that is only copied is not checked when it is copied, so it is not checked here.
        let mut steps = 0.0;
        if self.task.update.is_none() {
            steps = self.read_stored(&rows, scratch)?;
        } else {
            self.load(rows.clone(), scratch)?;
        }
        let Target::Quantized(spec, float) = target else {
            let steps = if target == Target::Stored { steps } else { 0.0 };
            return self.measure(&rows, Made::Rows { steps }, true, scratch);
        };
        let values = rows.len() * self.task.weight.columns();
        let mut parts =
            [spec.weight_bytes(values), spec.scale_bytes(values, float), spec.bias_bytes(values, float)]
                .map(|length| vec![0; length]);
        let [weight, scales, biases] = &mut parts;
        let packed = self.quantize(spec, PackedMut { weight, scales, biases }, &scratch.rows)?;
        self.measure(&rows, Made::Packed(packed), true, scratch)
    }
}
