//! The pairs of token and expert, and products with stacks of matrices: what mlx-lm's `SwitchGLU` does.
//! Does not know how the experts are chosen.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexOp};
use mlx_rs::{Array, ops};

/// From this many pairs of token and expert on, the pairs are sorted by expert first, so that all rows of one expert
/// use its weights together.
const SORTED_FROM: usize = 64;

/// The pairs of token and expert.
pub struct Routes {
    /// The numbers of the chosen experts, `[1, tokens, chosen]`.
    choice: Array,
    /// If the pairs are sorted: their order, and their experts in that order.
    sorted: Option<[Array; 2]>,
}

impl Routes {
    pub(crate) fn new(choice: &Array) -> Result<Self> {
        let choice = choice.clone();
        if choice.size() < SORTED_FROM {
            return Ok(Self { choice, sorted: None });
        }
        let flat = choice.flatten(None, None)?;
        let order = ops::argsort_axis(&flat, 0)?;
        let experts = flat.try_index(&order)?;
        Ok(Self { choice, sorted: Some([order, experts]) })
    }

    /// Returns the number of each pair's expert, and whether the numbers ascend.
    pub(crate) fn experts(&self) -> (&Array, bool) {
        match &self.sorted {
            Some([_, experts]) => (experts, true),
            None => (&self.choice, false),
        }
    }

    /// Maps `[1, tokens, dims]` to a row for each pair, `[pairs, 1, dims]`. Unsorted, the rows of a token are one:
    /// `[1, tokens, 1, 1, dims]`.
    pub(crate) fn spread(&self, x: &Array) -> Result<Array> {
        let x = x.expand_dims_axes(&[-2, -3])?;
        let Some([order, _]) = &self.sorted else { return Ok(x) };
        let tokens = ops::floor_divide(order, Array::from_int(self.choice.dim(-1)))?;
        Ok(x.flatten(0, -3)?.take_axis(tokens, 0)?)
    }

    /// Adds to each pair's row the row of its expert, `[experts, dims]`.
    pub(crate) fn add_bias(&self, rows: &Array, bias: &Array) -> Result<Array> {
        let (experts, _) = self.experts();
        Ok(rows.add(bias.take_axis(experts, 0)?.expand_dims(-2)?)?)
    }

    /// Maps the rows of all pairs to `[1, tokens, dims]`: the sum over a token's experts, each with its score.
    pub(crate) fn gather(&self, y: &Array, scores: &Array) -> Result<Array> {
        let unsorted = match &self.sorted {
            Some([order, _]) => {
                let rows = y.take_axis(ops::argsort_axis(order, 0)?, 0)?;
                ops::unflatten(rows, 0, self.choice.shape())?
            }
            None => y.clone(),
        };
        let y = unsorted.squeeze_axes(&[-2])?;
        Ok(y.multiply(scores.expand_dims(-1)?)?.sum_axis(-2, false)?.as_dtype(y.dtype())?)
    }
}

/// Returns the places of the `count` largest numbers along the last axis, and these numbers.
pub(crate) fn largest(x: &Array, count: i32) -> Result<(Array, Array)> {
    let order = ops::argpartition_axis(x, -count, -1)?;
    let places = order.try_index((.., .., -count..))?;
    let numbers = x.take_along_axis(&places, -1)?;
    Ok((places, numbers))
}

/// Sets the numbers of all but the best `kept` groups of each row to 0, as `group_expert_select` of mlx-lm's
/// `deepseek_v3.py`.
pub(crate) fn best_groups(x: &Array, groups: i32, kept: i32) -> Result<Array> {
    let grouped = ops::unflatten(x, -1, &[groups, -1])?;
    let sorted = ops::sort_axis(&grouped, -1)?;
    let goodness = sorted.try_index((Ellipsis, -2..))?.sum_axis(-1, true)?;
    let worst = ops::argpartition_axis(&goodness, groups - kept - 1, -2)?;
    let worst = worst.try_index((Ellipsis, ..groups - kept, ..))?;
    let zeros = Array::from_f32(0.0).as_dtype(x.dtype())?;
    let shape = [worst.dim(0), worst.dim(1), worst.dim(2), grouped.dim(-1)];
    let places = ops::broadcast_to(&worst, &shape)?;
    let kept = grouped.put_along_axis(places, ops::broadcast_to(zeros, &shape)?, -2)?;
    Ok(kept.flatten(-2, -1)?)
}
