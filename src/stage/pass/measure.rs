//! What a pass is measured against: the weights before a fine-tuning and after it, beside what became of them.
//! Knows nothing of what the sums mean.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Target;
use super::block::{Block, Scratch};
use crate::backend::{Float, Packed, PackedMut, Tally};
use crate::stage::checkpoint::{Checkpoint, Weight, WeightKind};

/// What the outcome of a pass is measured against.
#[derive(Clone, Copy)]
pub(in crate::stage) enum Against<'a> {
    /// Nothing: it is not measured.
    Nothing,
    /// The weights as they are before the pass updates them.
    Itself,
    /// The model that an adapter was fused into, and what came of it; none if that is what the pass reads.
    Models { base: &'a Checkpoint, fused: Option<&'a Checkpoint> },
}

/// What was counted of one weight that the fine-tuning changed.
#[derive(Clone, Copy, Debug)]
pub(in crate::stage) struct Count {
    pub(in crate::stage) tally: Tally,
    /// How the base keeps it.
    pub(in crate::stage) base: WeightKind,
    /// How what was made of it is kept.
    pub(in crate::stage) made: WeightKind,
}

/// The counts by the names of the weights.
pub(in crate::stage) type Counts = BTreeMap<String, Count>;

/// A weight in a model.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) weight: &'a Weight,
}

/// What one weight is measured against.
#[derive(Clone, Copy)]
pub(super) enum Reference<'a> {
    /// What it is before its update.
    Itself,
    /// The base's, and the fused one's unless that is what is read, both as the fused one's type: so the base comes out as
    /// `fuse` had it before it merged.
    Models { base: Place<'a>, fused: Option<Place<'a>>, float: Float },
}

/// What was made of a block: the rows themselves, or codes.
pub(super) enum Made<'a> {
    Rows { steps: f64 },
    Packed(Packed<'a>),
}

impl<'a> Against<'a> {
    /// Returns what the weight `name` is measured against, if it can be: it is in all models, of the same shape, a float.
    pub(super) fn reference(self, name: &str, weight: &'a Weight, updated: bool) -> Option<Reference<'a>> {
        match self {
            Self::Nothing => None,
            Self::Itself => updated.then_some(Reference::Itself),
            Self::Models { base, fused } => {
                let place = |checkpoint: &'a Checkpoint| {
                    let weight = checkpoint.weights().get(name).filter(|other| other.shape == weight.shape);
                    weight
                        .filter(|weight| weight.float().is_some())
                        .map(|weight| Place { checkpoint, weight })
                };
                let base = place(base)?;
                let fused = match fused {
                    Some(fused) => Some(place(fused)?),
                    None => None,
                };
                let float = fused.map_or(weight, |fused| fused.weight).float()?;
                Some(Reference::Models { base, fused, float })
            }
        }
    }
}

impl Reference<'_> {
    /// Returns how the weight is kept before the fine-tuning.
    pub(super) fn base_kind(&self, weight: &Weight) -> WeightKind {
        match self {
            Self::Itself => weight.kind,
            Self::Models { base, .. } => base.weight.kind,
        }
    }
}

impl Block<'_> {
    /// Sums over rows whose outcome is `made`, which `scratch.rows` holds or was before it was quantized. A block that the
    /// fine-tuning left alone is not summed unless `all` are: most weights are changed everywhere or nowhere.
    pub(super) fn measure(
        &self,
        rows: &Range<usize>,
        made: Made<'_>,
        all: bool,
        scratch: &mut Scratch,
    ) -> anyhow::Result<Option<Tally>> {
        let Some(reference) = &self.job.reference else { return Ok(None) };
        let mut separate = false;
        if let Reference::Models { base, fused, float } = *reference {
            let mut fused = fused;
            // What is read took another type before it was quantized.
            if fused.is_none() && self.float != float {
                fused = Some(Place { checkpoint: self.checkpoint, weight: self.job.weight });
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
            Made::Rows { steps } => Tally { steps, ..Tally::of(base, updated, rows) },
            Made::Packed(packed) => {
                let alike = reference.base_kind(self.job.weight).grid() == Some(packed.grid);
                self.backend.tally(packed, base, updated, dequantized, alike)?
            }
        }))
    }

    /// Makes rows once more, to throw them away, and sums over all of them.
    pub(super) fn measure_again(
        &self,
        rows: Range<usize>,
        target: Target,
        scratch: &mut Scratch,
    ) -> anyhow::Result<Option<Tally>> {
        // What was only copied was not checked either.
        let mut steps = 0.0;
        if self.job.update.is_none() {
            steps = self.read_stored(&rows, scratch)?;
        } else {
            self.load(rows.clone(), scratch)?;
        }
        let Target::Grid(grid, float) = target else {
            let steps = if target == Target::Stored { steps } else { 0.0 };
            return self.measure(&rows, Made::Rows { steps }, true, scratch);
        };
        let values = rows.len() * self.job.weight.columns();
        let mut parts =
            [grid.weight_bytes(values), grid.scale_bytes(values, float), grid.bias_bytes(values, float)]
                .map(|length| vec![0; length]);
        let [weight, scales, biases] = &mut parts;
        let packed = self.quantize(grid, PackedMut { weight, scales, biases }, &scratch.rows)?;
        self.measure(&rows, Made::Packed(packed), true, scratch)
    }
}
