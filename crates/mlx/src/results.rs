//! What is read of a model: tokens, logits, log probabilities.
//! Knows nothing of models or texts.

use anyhow::{Result, ensure};
use mlx_rs::ops::indexing::{TryIndexOp, argmax_axis, take_along_axis};
use mlx_rs::{Array, Dtype, ops};

/// Returns the row of the last token, `[1, 1, dims]`.
pub(crate) fn last(x: &Array) -> Result<Array> {
    Ok(x.try_index((.., -1.., ..))?)
}

/// Returns the place of the largest number of `[1, 1, dims]`, as token ids `[1, 1]`.
pub(crate) fn most_likely(x: &Array) -> Result<Array> {
    Ok(argmax_axis(x.try_index((.., -1, ..))?, -1, true)?)
}

pub(crate) fn numbers(x: &Array) -> Result<Vec<f32>> {
    Ok(x.as_dtype(Dtype::Float32)?.flatten(None, None)?.contiguous()?.to_vec_exact()?)
}

/// Returns `ln softmax` of each row, `[tokens, dims]`.
pub(crate) fn log_softmax(x: &Array) -> Result<Array> {
    let logits = x.try_index((0, .., ..))?.as_dtype(Dtype::Float32)?;
    let total = ops::logsumexp_axis(&logits, -1, true)?;
    Ok(logits.subtract(total)?)
}

/// Returns rows of `dims` numbers, `[tokens, dims]`.
pub(crate) fn tensor(numbers: &[f32], dims: usize) -> Result<Array> {
    let rows = i32::try_from(numbers.len() / dims.max(1))?;
    Ok(Array::from_slice(numbers, &[rows, i32::try_from(dims)?]))
}

pub(crate) fn chosen(log_probabilities: &Array, tokens: &[u32]) -> Result<Vec<f64>> {
    let tokens = Array::from_slice(tokens, &[i32::try_from(tokens.len())?, 1]);
    let chosen = take_along_axis(log_probabilities, tokens, -1)?;
    Ok(numbers(&chosen)?.into_iter().map(f64::from).collect())
}

pub(crate) fn divergences(reference: &Array, own: &Array) -> Result<Vec<(f64, bool)>> {
    ensure!(reference.shape() == own.shape(), "the reference has another vocabulary");
    let terms = reference.exp()?.multiply(reference.subtract(own)?)?;
    let sums = numbers(&terms.sum_axis(-1, false)?)?;
    let same = argmax_axis(reference, -1, false)?.eq(argmax_axis(own, -1, false)?)?;
    let same: Vec<u32> = same.as_dtype(Dtype::Uint32)?.to_vec_exact()?;
    Ok(sums.into_iter().map(f64::from).zip(same.into_iter().map(|same| same == 1)).collect())
}
