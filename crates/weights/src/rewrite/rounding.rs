//! Decides for each weight how it is rounded: to the nearest point of a new grid, or on the grid of the base.
//! Knows nothing of how codes are made.

use std::collections::BTreeMap;

use super::baseline::WeightBaseline;
use super::block::{Block, Scratch, WeightTask};
use super::run::{Count, Findings, Rewrite, Target};
use crate::error::{OrBug, Result};
use crate::kernels::{Float, QuantSpec, Rounding};
use crate::survival::LARGEST_KEPT_UPDATE;
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
    /// The update is [`LARGEST_KEPT_UPDATE`] or more.
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
                format!("their update is {LARGEST_KEPT_UPDATE} of a step or more, where plain rounding loses less")
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
        let some = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        output.warn(format!(
            "{} of {} changed weights are rounded to the nearest point, not kept on the base's grid: {}: {some}{more}",
            names.len(),
            counts.len(),
            obstacle.words()
        ));
    }
}

/// Returns how many bits more than the base's the outcome of a weight has, if it can be kept on the grid of its
/// base. Fails with the reason if it cannot, as far as that is known without reading it.
pub(super) fn nesting(task: &WeightTask<'_>, spec: QuantSpec, float: Float) -> Result<usize, Obstacle> {
    let baseline = task.baseline.as_ref().ok_or(Obstacle::NoBase)?;
    let is_cast = matches!(baseline, WeightBaseline::Models { float: fused, .. } if *fused != float);
    let base = baseline.base_kind(task.weight).spec();
    let more = base.and_then(|base| spec.bits_beyond(base)).ok_or(Obstacle::OtherGrid)?;
    if is_cast { Err(Obstacle::Cast) } else { Ok(more) }
}

impl Rewrite<'_> {
    /// Decides how a weight is rounded, as far as that is known without the size of its update.
    pub(super) fn rounding(&self, task: &WeightTask<'_>) -> Result<Rounding, Obstacle> {
        if let Some(rounding) = self.decided.get(task.name) {
            return Ok(*rounding);
        }
        match (self.rounding, self.target(task.name)) {
            (Rounding::Keep, Target::Quantized(spec, float)) => {
                nesting(task, spec, float).map(|_| Rounding::Keep)
            }
            _ => Ok(Rounding::Nearest),
        }
    }

    /// Whether a weight that was kept on the grid of its base should be rounded to the nearest point instead.
    /// This is known when all of it is made, because that tells the size of its update.
    pub(super) fn is_kept_wrongly(&self, name: &str, count: Option<&Count>) -> bool {
        let size = |count: &Count| UpdateSize { square: count.stats.square, steps: count.stats.steps };
        let is_kept = |count: &&Count| count.rounding == Rounding::Keep;
        !self.decided.contains_key(name) && count.filter(is_kept).is_some_and(|count| size(count).is_large(0))
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

    /// Whether the update is too large for [`Rounding::Keep`] on a grid with `more` bits than the one that
    /// `steps` are of.
    pub(super) fn is_large(self, more: usize) -> bool {
        let finer = f64::from(1u32 << more);
        let largest = LARGEST_KEPT_UPDATE / finer;
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
