//! Compares the outcome of a rewrite with the weights before and after a fine-tuning.
//! Knows nothing of what the sums mean.

use std::collections::BTreeMap;
use std::ops::Range;

use super::baseline::{WeightBaseline, WeightRef};
use super::block::{Block, Scratch, Way};
use super::rounding::Nesting;
use super::target::Target;
use crate::checkpoint::WeightKind;
use crate::error::Result;
use crate::kernels::{Packed, PackedMut, Rounding, UpdateStats};

/// The sums over one weight that the fine-tuning changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) stats: UpdateStats,
    /// How the base stores it.
    pub(super) base: WeightKind,
    /// How the outcome stores it.
    pub(super) made: WeightKind,
    /// How it was rounded, if it is quantized.
    pub(super) rounding: Rounding,
    /// How the grid of its base lies in that of the outcome; `None` if it does not.
    pub(super) nesting: Option<Nesting>,
}

/// The counts by the names of their weights.
pub(super) type Counts = BTreeMap<String, Count>;

/// The outcome of a block: the rows in `scratch.rows`, with the sum of their squared quantization steps, or
/// codes.
pub(super) enum Made<'a> {
    Rows { steps: f64 },
    Packed(Packed<'a>),
}

impl Block<'_> {
    /// Reads what `rows` are compared with into `scratch.base` and, if the unquantized rows are not the fused
    /// weight, into `scratch.updated`.
    pub(super) fn load_baseline(&self, rows: &Range<usize>, scratch: &mut Scratch) -> Result<()> {
        let Some(WeightBaseline::Models { base, float, .. }) = self.task.baseline else { return Ok(()) };
        if let Some(fused) = self.separate_fused() {
            self.read(fused, float, rows, &mut scratch.aside, &mut scratch.updated)?;
        }
        self.read(base, float, rows, &mut scratch.aside, &mut scratch.base).map(drop)
    }

    /// Returns the fused weight if the unquantized rows are something else.
    fn separate_fused(&self) -> Option<WeightRef<'_>> {
        let Some(WeightBaseline::Models { fused, float, .. }) = self.task.baseline else { return None };
        let is_cast = self.float != float;
        fused.or_else(|| {
            is_cast.then_some(WeightRef { checkpoint: self.checkpoint, weight: self.task.weight })
        })
    }

    /// Returns the sums over the rows in `scratch`, whose outcome is `made`; `scratch.rows` holds the
    /// unquantized rows, and the baseline is loaded. A block that the fine-tuning did not change is skipped
    /// unless `all` is set, because most weights are changed everywhere or nowhere.
    pub(super) fn measure(
        &self,
        made: Made<'_>,
        all: bool,
        scratch: &mut Scratch,
    ) -> Result<Option<UpdateStats>> {
        let Some(baseline) = &self.task.baseline else { return Ok(None) };
        let is_separate = self.separate_fused().is_some();
        let Scratch { rows, base, updated, made: dequantized, .. } = scratch;
        let updated = if is_separate { &*updated } else { &*rows };
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
        rounding: Rounding,
        scratch: &mut Scratch,
    ) -> Result<Option<UpdateStats>> {
        // A weight that is only copied is not checked when it is copied, so it is not checked here.
        let mut steps = 0.0;
        if self.task.update.is_none() {
            steps = self.read_stored(&rows, scratch)?;
        } else {
            self.load(rows.clone(), scratch)?;
        }
        self.load_baseline(&rows, scratch)?;
        let Target::Quantized(spec, float) = target else {
            let steps = if target == Target::Stored { steps } else { 0.0 };
            return self.measure(Made::Rows { steps }, true, scratch);
        };
        let values = rows.len() * self.task.weight.columns();
        let mut parts =
            [spec.weight_bytes(values), spec.scale_bytes(values, float), spec.bias_bytes(values, float)]
                .map(|length| vec![0; length]);
        let [weight, scales, biases] = &mut parts;
        let packed =
            self.quantize(&rows, Way { spec, rounding }, PackedMut { weight, scales, biases }, scratch)?;
        self.measure(Made::Packed(packed), true, scratch)
    }
}
