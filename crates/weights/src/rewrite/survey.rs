//! Measures what each way to quantize a weight would lose, without writing anything.
//! Knows nothing of how a way is chosen.

use std::ops::Range;

use super::allot::Cost;
use super::block::{Block, Scratch, Way, WeightTask};
use super::chunk::{Progress, chunks, span};
use super::rounding::{Nesting, UpdateSize, nesting};
use super::run::{Rewrite, Target};
use crate::error::{OrBug, Result};
use crate::kernels::{Float, PackedMut, QuantSpec, Rounding};
use crate::probe::LayerProbe;

/// What was found out about one block.
#[derive(Clone, Debug, Default)]
struct BlockSurvey {
    size: UpdateSize,
    /// The squared error of each way. `None` if the update is zero and some ways lose nothing then: the others
    /// are measured only if they come into question.
    damages: Option<Vec<f64>>,
}

impl Rewrite<'_> {
    /// Returns a way to quantize the weight `name` to each number of bits in `candidates`, and what it costs. The
    /// damage is the squared error, weighted by the inputs if these are known.
    pub(super) fn survey(
        &self,
        name: &str,
        candidates: &[usize],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<(Way, Cost)>> {
        let weight = self.checkpoint.weights().get(name).or_bug("a surveyed weight is there")?;
        let Target::Quantized(usual, float) = self.target(name) else { return Ok(Vec::new()) };
        let baseline = self.baseline.of_weight(name, weight, false);
        let probe = self.layer_probe(name, weight)?;
        let directions = probe.as_ref().and_then(LayerProbe::weighted_directions);
        // Without a probe of this layer, its inputs count as those of all others do on average.
        let usual_moments = || self.probe.as_ref().map(|probe| vec![probe.mean_moment(); weight.columns()]);
        let moments = probe.map(|probe| probe.moments).or_else(usual_moments);
        let task = WeightTask { name, weight, update: None, baseline, directions };
        let ways = possible(&task, usual, float, candidates);
        let block = self.block(&task, float);
        let mut blocks = Vec::new();
        for chunk in chunks(weight) {
            let rows = span(&chunk);
            let mut found = vec![BlockSurvey::default(); chunk.len()];
            self.for_each(chunk.iter().cloned().zip(&mut found).collect(), |scratch, rows, found| {
                *found = block.survey(&rows, (&ways, moments.as_deref()), scratch)?;
                Ok(())
            })?;
            blocks.extend(chunk.into_iter().zip(found));
            progress.add_rows(weight, &rows)?;
        }
        let mut size = UpdateSize::default();
        blocks.iter().for_each(|(_, found)| size.add(found.size));
        let eligible = eligible(&ways, size);
        let all_keep = eligible.iter().all(|index| ways[*index].way.rounding == Rounding::Keep);
        if !all_keep {
            self.survey_the_rest(&block, (&ways, moments.as_deref()), &mut blocks)?;
        }
        let values = weight.rows() * weight.columns();
        let cost = |index: usize| {
            let damages = blocks.iter().filter_map(|(_, found)| found.damages.as_ref()?.get(index));
            let spec = ways[index].way.spec;
            (ways[index].way, Cost { bytes: bytes(spec, values, float), damage: damages.sum() })
        };
        Ok(eligible.into_iter().map(cost).collect())
    }

    /// Measures the blocks that were left out.
    fn survey_the_rest(
        &self,
        block: &Block<'_>,
        ways: (&[Possible], Option<&[f32]>),
        blocks: &mut [(Range<usize>, BlockSurvey)],
    ) -> Result<()> {
        let left = blocks.iter_mut().filter(|(_, found)| found.damages.is_none());
        let left = left.map(|(rows, found)| (rows.clone(), found)).collect();
        self.for_each(left, |scratch, rows, found| {
            block.load(rows.clone(), scratch)?;
            block.load_baseline(&rows, scratch)?;
            found.damages = Some(block.damages(&rows, ways, scratch)?);
            Ok(())
        })
    }
}

/// A way that may come into question.
struct Possible {
    way: Way,
    /// For a way that keeps the grid of the base, how that lies in the way's grid.
    nesting: Option<Nesting>,
}

/// Returns the ways to quantize a weight, as far as they are known without its update.
fn possible(task: &WeightTask<'_>, usual: QuantSpec, float: Float, candidates: &[usize]) -> Vec<Possible> {
    let mut ways = Vec::new();
    for &bits in candidates {
        let spec = QuantSpec { bits, ..usual };
        ways.push(Possible { way: Way { spec, rounding: Rounding::Nearest }, nesting: None });
        if let Ok(nesting) = nesting(task, spec, float) {
            ways.push(Possible { way: Way { spec, rounding: Rounding::Keep }, nesting: Some(nesting) });
        }
    }
    ways
}

/// Returns the numbers of the ways that come into question, one for each number of bits: the grid of the base
/// if the update is small enough for it, otherwise plain rounding.
fn eligible(ways: &[Possible], size: UpdateSize) -> Vec<usize> {
    let is_kept = |own: &Possible| own.nesting.is_some_and(|nesting| !size.is_large(nesting, nesting.more));
    let has_better =
        |own: &Possible| ways.iter().any(|other| is_kept(other) && other.way.spec == own.way.spec);
    let is_eligible =
        |own: &Possible| is_kept(own) || own.way.rounding == Rounding::Nearest && !has_better(own);
    (0..ways.len()).filter(|index| is_eligible(&ways[*index])).collect()
}

fn bytes(spec: QuantSpec, values: usize, float: Float) -> u64 {
    (spec.weight_bytes(values) + spec.scale_bytes(values, float) + spec.bias_bytes(values, float)) as u64
}

impl Block<'_> {
    fn survey(
        &self,
        rows: &Range<usize>,
        (ways, moments): (&[Possible], Option<&[f32]>),
        scratch: &mut Scratch,
    ) -> Result<BlockSurvey> {
        self.load(rows.clone(), scratch)?;
        self.load_baseline(rows, scratch)?;
        let can_keep = ways.iter().any(|own| own.way.rounding == Rounding::Keep);
        if can_keep && scratch.base.same(&scratch.rows) {
            let steps = self.packed_base(scratch)?.steps();
            return Ok(BlockSurvey { size: UpdateSize { square: 0.0, steps }, damages: None });
        }
        let size = if can_keep { self.size_of_update(scratch)? } else { UpdateSize::default() };
        Ok(BlockSurvey { size, damages: Some(self.damages(rows, (ways, moments), scratch)?) })
    }

    /// Returns the squared error of each way for the rows in `scratch`. If the mean squares of the inputs are
    /// known, the error of each column counts as much as its input is large.
    fn damages(
        &self,
        rows: &Range<usize>,
        (ways, moments): (&[Possible], Option<&[f32]>),
        scratch: &mut Scratch,
    ) -> Result<Vec<f64>> {
        let values = scratch.rows.values.len();
        let mut damages = Vec::with_capacity(ways.len());
        for Possible { way, .. } in ways {
            let (spec, float) = (way.spec, self.float);
            let lengths =
                [spec.weight_bytes(values), spec.scale_bytes(values, float), spec.bias_bytes(values, float)];
            let [mut weight, mut scales, mut biases] = lengths.map(|length| vec![0; length]);
            let out = PackedMut { weight: &mut weight, scales: &mut scales, biases: &mut biases };
            let packed = self.quantize(rows, *way, out, scratch)?;
            self.backend.dequantize(packed, &mut scratch.made)?;
            damages.push(scratch.rows.squared_error(&scratch.made, moments));
        }
        Ok(damages)
    }
}
