//! Decides for each weight how it is rounded: to the nearest point of a new grid, or on the grid of the base.
//! Knows nothing of how codes are made.

use std::collections::BTreeMap;

use super::baseline::WeightBaseline;
use super::block::{Block, Scratch, WeightTask};
use super::run::{Count, Findings, Rewrite, Target};
use crate::error::{OrBug, Result};
use crate::kernels::{Float, QuantSpec, Rounding};
use artifact::Output;

/// How many weights a warning names.
const NAMED: usize = 3;

/// Why a weight is rounded to the nearest point although [`Rounding::Keep`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// The base does not have the weight in this shape and as floats.
    NoBase,
    /// The base is not quantized, or its values are no values of the outcome's grid.
    OtherGrid,
    /// The weight is cast to another type after the fine-tuning.
    Cast,
    /// The update is as large as [`Nesting::largest_update`] or larger.
    LargeUpdate,
}

impl Obstacle {
    fn words(self) -> String {
        match self {
            Self::NoBase => "the base does not have them in this shape".to_owned(),
            Self::OtherGrid => {
                "the base is not quantized in the affine mode to as many bits or fewer, in groups of this size".to_owned()
            }
            Self::Cast => "they are cast to another type after the fine-tuning".to_owned(),
            Self::LargeUpdate => {
                "their update is so large in steps of the outcome that plain rounding loses less".to_owned()
            }
        }
    }
}

/// The obstacles by the names of their weights.
pub(super) type Obstacles = BTreeMap<String, Obstacle>;

/// Warns which of the weights that the fine-tuning changed are rounded to the nearest point, and why.
pub(super) fn report(found: &Findings, output: &Output) {
    let Findings { counts, obstacles } = found;
    let mut names: BTreeMap<Obstacle, Vec<&str>> = BTreeMap::new();
    for (name, obstacle) in obstacles.iter().filter(|(name, _)| counts.contains_key(*name)) {
        names.entry(*obstacle).or_default().push(name);
    }
    for (obstacle, names) in names {
        output.warn(format!(
            "{} of {} changed weights are rounded to the nearest point, not kept on the base's grid: {}: {}",
            names.len(),
            counts.len(),
            obstacle.words(),
            list(&names)
        ));
    }
}

fn list(names: &[&str]) -> String {
    let some = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

/// A grid that lies in that of the outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nesting {
    /// How many bits the outcome has more.
    pub(super) more: usize,
    /// The size of an update, in steps of the outcome, from which plain rounding loses less than
    /// [`Rounding::Keep`].
    pub(super) largest_update: f64,
}

impl Nesting {
    /// Returns how `base` lies in `spec`, or `None` if it does not.
    fn of(base: QuantSpec, spec: QuantSpec) -> Option<Self> {
        Some(Self { more: spec.bits_beyond(base)?, largest_update: largest_update(base.bits, spec.bits) })
    }
}

/// Returns [`Nesting::largest_update`]. It was measured for bases of 4 bits; `docs/rounding.md` has the figures.
///
/// Plain rounding makes a new grid between the same ends. If a step of the base is nearly a whole number of its
/// steps, as from 4 bits to 4, 5 and 8, the base's points lie near the middle of what rounds to them, or in the
/// same place for long stretches of codes, and small updates are lost. Otherwise they lie anywhere, and most
/// updates survive.
fn largest_update(base: usize, bits: usize) -> f64 {
    let steps = |bits: usize| f64::from((1u32 << bits) - 1);
    let ratio = steps(bits) / steps(base);
    if (ratio - ratio.round()).abs() < 0.1 { 0.4 } else { 0.15 }
}

/// Returns how the grid of a weight's base lies in that of its outcome. Fails with the reason why the weight
/// cannot be kept, as far as that is known without reading it.
pub(super) fn nesting(task: &WeightTask<'_>, spec: QuantSpec, float: Float) -> Result<Nesting, Obstacle> {
    let baseline = task.baseline.as_ref().ok_or(Obstacle::NoBase)?;
    let is_cast = matches!(baseline, WeightBaseline::Models { float: fused, .. } if *fused != float);
    let base = baseline.base_kind(task.weight).spec();
    let nesting = base.and_then(|base| Nesting::of(base, spec)).ok_or(Obstacle::OtherGrid)?;
    if is_cast { Err(Obstacle::Cast) } else { Ok(nesting) }
}

impl Rewrite<'_> {
    /// Warns which of the quantized weights that the fine-tuning changed the probe does not have.
    pub(super) fn report_unprobed(&self, found: &Findings, output: &Output) -> Result<()> {
        if self.probe.is_none() {
            return Ok(());
        }
        let mut names = Vec::new();
        for (name, count) in &found.counts {
            let weight = self.checkpoint.weights().get(name).or_bug("what was counted is there")?;
            if count.made.spec().is_some() && self.layer_probe(name, weight)?.is_none() {
                names.push(name.as_str());
            }
        }
        if !names.is_empty() {
            output.warn(format!("the probe does not have {}; they are rounded without it", list(&names)));
        }
        Ok(())
    }

    /// Decides how a weight is rounded, as far as that is known without the size of its update.
    pub(super) fn rounding(&self, task: &WeightTask<'_>) -> Result<Rounding, Obstacle> {
        let decided = self.decided.get(task.name).copied();
        match (self.rounding, self.target(task.name)) {
            (Rounding::Keep, Target::Quantized(spec, float)) => {
                nesting(task, spec, float).map(|_| decided.unwrap_or(Rounding::Keep))
            }
            _ => Ok(Rounding::Nearest),
        }
    }

    /// Whether a weight that was kept on the grid of its base should be rounded to the nearest point instead.
    /// This is known when all of it is made, because that tells the size of its update.
    pub(super) fn is_kept_wrongly(&self, name: &str, count: Option<&Count>) -> bool {
        let is_wrong = |count: &Count| count.rounding == Rounding::Keep && !count.may_be_kept();
        !self.decided.contains_key(name) && count.is_some_and(is_wrong)
    }
}

impl Count {
    /// Whether [`Rounding::Keep`] is better for this weight than plain rounding.
    pub(super) fn may_be_kept(&self) -> bool {
        let size = UpdateSize { square: self.stats.square, steps: self.stats.steps };
        self.nesting.is_some_and(|nesting| !size.is_large(nesting, 0))
    }
}

/// The size of an update, in sums that can be added.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpdateSize {
    pub(super) square: f64,
    pub(super) steps: f64,
}

impl UpdateSize {
    /// Adds the sums over other weights.
    pub(super) fn add(&mut self, other: Self) {
        self.square += other.square;
        self.steps += other.steps;
    }

    /// Whether no weight is changed.
    pub(super) fn is_zero(self) -> bool {
        self.square <= 0.0
    }

    /// Whether the update is too large for [`Rounding::Keep`]. The outcome's grid has `more` bits than the one
    /// that `steps` are of.
    pub(super) fn is_large(self, nesting: Nesting, more: usize) -> bool {
        let finer = f64::from(1u32 << more);
        let largest = nesting.largest_update / finer;
        self.square >= largest * largest * self.steps && !self.is_zero()
    }
}

impl Block<'_> {
    /// Returns the size of the update of the rows in `scratch`. A base that is not quantized has no steps.
    pub(super) fn size_of_update(&self, scratch: &Scratch) -> Result<UpdateSize> {
        let baseline = self.task.baseline.as_ref().or_bug("an update has a base")?;
        let is_packed = baseline.base_kind(self.task.weight).spec().is_some();
        let steps = if is_packed { self.packed_base(scratch)?.steps() } else { 0.0 };
        let square = scratch.rows.squared_error(&scratch.base, None);
        Ok(UpdateSize { square, steps })
    }
}
