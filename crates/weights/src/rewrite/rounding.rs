//! Decides for each weight how it is rounded: to the nearest point of a new grid, or on the grid of the base.
//! Knows nothing of how codes are made.

use std::collections::BTreeMap;
use std::ops::Range;

use super::baseline::WeightBaseline;
use super::block::{Block, Scratch, WeightTask};
use super::run::{Findings, Target};
use crate::checkpoint::WeightKind;
use crate::error::Result;
use crate::kernels::UpdateStats;
use artifact::Output;

/// The size of an update from which plain rounding loses less than [`Rounding::Keep`]: the root mean square
/// of the update over that of the base's step. `docs/rounding.md` has the measurements.
const LARGEST_UPDATE: f64 = 0.4;

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
    /// The update is [`LARGEST_UPDATE`] or more.
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
                format!("their update is {LARGEST_UPDATE} of a step or more, where plain rounding loses less")
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

/// Returns why a weight cannot be kept on the grid of its base, as far as that is known without reading it.
pub(super) fn obstacle(task: &WeightTask<'_>, target: Target) -> Option<Obstacle> {
    let Target::Quantized(spec, float) = target else { return None };
    let Some(baseline) = &task.baseline else { return Some(Obstacle::NoBase) };
    let is_cast = matches!(baseline, WeightBaseline::Models { float: fused, .. } if *fused != float);
    match baseline.base_kind(task.weight) {
        WeightKind::Quantized(base, _) if spec.bits_beyond(base).is_some() => {
            is_cast.then_some(Obstacle::Cast)
        }
        _ => Some(Obstacle::OtherGrid),
    }
}

/// The size of an update, in sums that can be added.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpdateSize {
    square: f64,
    steps: f64,
}

impl UpdateSize {
    /// Adds the sums over other weights.
    pub(super) fn add(&mut self, other: Self) {
        self.square += other.square;
        self.steps += other.steps;
    }

    /// Whether the update is too large for [`Rounding::Keep`].
    pub(super) fn is_large(self) -> bool {
        self.square >= LARGEST_UPDATE * LARGEST_UPDATE * self.steps && self.square > 0.0
    }
}

impl Block<'_> {
    /// Returns the size of the update of `rows`. The base is quantized.
    pub(super) fn update_size(&self, rows: &Range<usize>, scratch: &mut Scratch) -> Result<UpdateSize> {
        self.load(rows.clone(), scratch)?;
        self.load_baseline(rows, scratch)?;
        let steps = self.packed_base(scratch)?.steps();
        let square = UpdateStats::of(&scratch.base, &scratch.rows, &scratch.rows).square;
        Ok(UpdateSize { square, steps })
    }
}
