//! The operations of models on MLX.
//! Knows nothing of the models.

use std::ops::Range;

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexOp};
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, Dtype, fast, memory, ops};

use super::activations::{self, scaled, softcapped};
use super::cache::Cache;
use super::experts::{self, Routes};
use super::load::{self, Weights};
use super::mask::Mask;
use super::matrix::Matrix;
use super::rope::Rope;
use super::{Mlx, attention, device, recurrence, results};
use models::runtime::{
    Activation, AttentionOptions, Heads, Recurrence, RopeArgs, Runtime, RuntimeState, Stored,
};
use weights::adapter::Whole;
use weights::checkpoint::Checkpoint;

impl Runtime for Mlx {
    type Tensor = Array;
    type Tokens = Array;
    type Matrix = Matrix;
    type Weights = Weights;
    type Rope = Rope;
    type Mask = Mask;
    type Cache = Cache;
    type Choice = Array;
    type Routes = Routes;

    const IS_LAZY: bool = true;
    const PREFILL_STEP: usize = 2048;

    fn device(&self) -> Result<&'static str> {
        Ok(if device::is_cpu()? { "cpu" } else { "gpu" })
    }

    #[cfg(target_os = "linux")]
    fn peak_memory_bytes(&self) -> Result<u64> {
        models::peak_memory::peak_memory_of_process()
    }

    #[cfg(not(target_os = "linux"))]
    fn peak_memory_bytes(&self) -> Result<u64> {
        Ok(u64::try_from(memory::peak_memory()?)?)
    }

    fn open(&self, checkpoint: &Checkpoint) -> Result<Weights> {
        Weights::open(checkpoint)
    }

    fn vector(&self, weights: &mut Weights, stored: Stored<'_>) -> Result<Array> {
        weights.float(stored)
    }

    fn matrix(&self, weights: &mut Weights, stored: Stored<'_>) -> Result<Matrix> {
        weights.matrix(stored)
    }

    fn vector_of(&self, numbers: &Whole) -> Result<Array> {
        load::array_of(numbers)
    }

    fn matrix_of(&self, numbers: &Whole) -> Result<Matrix> {
        Ok(Matrix::Float(load::array_of(numbers)?))
    }

    fn finish(&self, weights: Weights) -> Result<()> {
        weights.finish()
    }

    fn activation_dtype(&self, matrix: &Matrix) -> String {
        format!("{:?}", matrix.dtype()).to_lowercase()
    }

    fn tokens(&self, ids: &[u32]) -> Result<Array> {
        Ok(Array::from_slice(ids, &[1, i32::try_from(ids.len())?]))
    }

    fn rows(&self, matrix: &Matrix, numbers: &Array) -> Result<Array> {
        matrix.rows(numbers)
    }

    fn product(&self, x: &Array, matrix: &Matrix, bias: Option<&Array>) -> Result<Array> {
        match (matrix, bias) {
            // One operation, as in MLX, so the sum is rounded once.
            (Matrix::Float(weight), Some(bias)) => Ok(ops::addmm(bias, x, weight.transpose()?, None, None)?),
            (matrix, Some(bias)) => Ok(matrix.matmul_transposed(x)?.add(bias)?),
            (matrix, None) => matrix.matmul_transposed(x),
        }
    }

    fn dora_factors(
        &self,
        weight: &Matrix,
        [a, b]: [&Matrix; 2],
        scale: f32,
        magnitude: &Array,
    ) -> Result<Array> {
        let delta = ops::matmul(b.dense()?.multiply(Array::from_f32(scale))?, a.dense()?)?;
        let updated = weight.dense()?.add(delta)?;
        let factors = magnitude.divide(updated.square()?.sum_axis(1, false)?.sqrt()?)?;
        factors.eval()?;
        Ok(factors)
    }

    fn add(&self, a: &Array, b: &Array) -> Result<Array> {
        Ok(a.add(b)?)
    }

    fn add_bias(&self, x: &Array, bias: &Array) -> Result<Array> {
        Ok(x.add(bias)?)
    }

    fn add_clipped(&self, a: &Array, b: &Array) -> Result<Array> {
        if a.dtype() != Dtype::Float16 {
            return Ok(a.add(b)?);
        }
        let bound = half::f16::MAX.to_f32();
        let sum = a.as_dtype(Dtype::Float32)?.add(b.as_dtype(Dtype::Float32)?)?;
        let clipped = ops::clip(sum, (Array::from_f32(-bound), Array::from_f32(bound)))?;
        Ok(clipped.as_dtype(Dtype::Float16)?)
    }

    fn add_update(&self, x: &Array, update: &Array, factor: f32) -> Result<Array> {
        let scaled = if factor == 1.0 { update.clone() } else { scaled(update, factor)? };
        Ok(x.add(scaled.as_dtype(x.dtype())?)?)
    }

    fn add_number(&self, x: &Array, number: f32) -> Result<Array> {
        Ok(x.add(Array::from_f32(number).as_dtype(x.dtype())?)?)
    }

    fn scaled(&self, x: &Array, number: f32) -> Result<Array> {
        Ok(scaled(x, number)?)
    }

    fn multiply(&self, x: &Array, factors: &Array) -> Result<Array> {
        Ok(factors.as_dtype(x.dtype())?.multiply(x)?)
    }

    fn multiply_rows(&self, x: &Array, factors: &Array, numbers: &Array) -> Result<Array> {
        let factors = factors.take_axis(numbers, 0)?.expand_dims(-1)?;
        Ok(factors.as_dtype(x.dtype())?.multiply(x)?)
    }

    fn multiply_heads(&self, x: &Array, factors: &Array) -> Result<Array> {
        // Factors in float32 stay so.
        Ok(x.multiply(factors.expand_dims(-1)?)?)
    }

    fn multiply_tokens(&self, x: &Array, factors: &Array) -> Result<Array> {
        let mut shape = vec![1; x.ndim()];
        shape[1] = x.dim(1);
        Ok(x.multiply(factors.reshape(&shape)?.as_dtype(x.dtype())?)?)
    }

    fn sigmoid(&self, x: &Array) -> Result<Array> {
        Ok(ops::sigmoid(x)?)
    }

    fn precise_sigmoid(&self, x: &Array) -> Result<Array> {
        Ok(ops::sigmoid(x.as_dtype(Dtype::Float32)?)?)
    }

    fn softcapped(&self, x: &Array, cap: f32) -> Result<Array> {
        softcapped(x, cap)
    }

    fn activated(&self, activation: Activation, x: &Array) -> Result<Array> {
        activations::activated(activation, x)
    }

    fn gated(&self, activation: Activation, gate: &Array, x: &Array) -> Result<Array> {
        activations::gated(activation, gate, x)
    }

    fn rms_norm(&self, x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
        Ok(fast::rms_norm(x, weight, eps)?)
    }

    fn layer_norm(&self, x: &Array, weight: Option<&Array>, bias: Option<&Array>, eps: f32) -> Result<Array> {
        Ok(fast::layer_norm(x, weight, bias, eps)?)
    }

    fn softmax(&self, x: &Array) -> Result<Array> {
        Ok(ops::softmax_axis(x, -1, true)?)
    }

    fn normalized(&self, x: &Array, eps: f32) -> Result<Array> {
        let sum = self.add_number(&x.sum_axis(-1, true)?, eps)?;
        Ok(x.divide(sum)?)
    }

    fn columns(&self, x: &Array, columns: Range<i32>) -> Result<Array> {
        Ok(x.try_index((Ellipsis, columns))?)
    }

    fn joined(&self, parts: &[&Array]) -> Result<Array> {
        Ok(ops::concatenate(parts, -1)?)
    }

    fn flat(&self, x: &Array) -> Result<Array> {
        Ok(x.reshape(&[x.dim(0), x.dim(1), -1])?)
    }

    fn heads(&self, x: &Array, heads: i32) -> Result<Array> {
        Ok(x.reshape(&[x.dim(0), x.dim(1), heads, -1])?)
    }

    fn rope(&self, args: &RopeArgs) -> Result<Rope> {
        Rope::new(args)
    }

    fn cache(&self, window: Option<i32>) -> Cache {
        Cache::new(window)
    }

    fn mask(&self, tokens: i32, seen: i32, window: Option<i32>) -> Result<Mask> {
        window.map_or_else(|| Ok(Mask::causal(tokens)), |window| Mask::sliding(tokens, seen, window))
    }

    fn attention(
        &self,
        heads: &Heads<'_, Self>,
        options: &AttentionOptions<'_, Self>,
        mask: &Mask,
        cache: &mut Cache,
    ) -> Result<Array> {
        attention::attention(heads, options, mask, cache)
    }

    fn head_product(&self, x: &Array, stack: &Matrix) -> Result<Array> {
        let by_head = x.transpose_axes(&[0, 2, 1, 3])?;
        Ok(stack.matmul_stack_transposed(&by_head)?.transpose_axes(&[0, 2, 1, 3])?)
    }

    fn convolved(
        &self,
        x: &Array,
        kernel: &Array,
        bias: Option<&Array>,
        inputs: &mut Option<Array>,
    ) -> Result<Array> {
        recurrence::convolved(x, kernel, bias, inputs)
    }

    fn steps(&self, x: &Array, bias: &Array, limits: [f32; 2]) -> Result<Array> {
        recurrence::steps(x, bias, limits)
    }

    fn recurrence(&self, inputs: &Recurrence<'_, Self>, state: &mut Option<Array>) -> Result<Array> {
        recurrence::recurrence(inputs, state)
    }

    fn largest(&self, x: &Array, count: i32) -> Result<(Array, Array)> {
        experts::largest(x, count)
    }

    fn at(&self, x: &Array, choice: &Array) -> Result<Array> {
        Ok(x.take_along_axis(choice, -1)?)
    }

    fn picked(&self, numbers: &Array, choice: &Array) -> Result<Array> {
        Ok(numbers.take_axis(choice, 0)?)
    }

    fn best_groups(&self, x: &Array, groups: i32, kept: i32) -> Result<Array> {
        experts::best_groups(x, groups, kept)
    }

    fn routes(&self, choice: &Array) -> Result<Routes> {
        Routes::new(choice)
    }

    fn spread(&self, x: &Array, routes: &Routes) -> Result<Array> {
        routes.spread(x)
    }

    fn expert_product(&self, x: &Array, stack: &Matrix, routes: &Routes) -> Result<Array> {
        let (experts, is_sorted) = routes.experts();
        stack.gather_matmul_transposed(x, experts, is_sorted)
    }

    fn add_expert_bias(&self, x: &Array, bias: &Array, routes: &Routes) -> Result<Array> {
        routes.add_bias(x, bias)
    }

    fn gather(&self, x: &Array, scores: &Array, routes: &Routes) -> Result<Array> {
        routes.gather(x, scores)
    }

    fn last(&self, x: &Array) -> Result<Array> {
        results::last(x)
    }

    fn most_likely(&self, x: &Array) -> Result<Array> {
        results::most_likely(x)
    }

    fn start(&self, token: &Array) -> Result<()> {
        Ok(async_eval([token])?)
    }

    fn read(&self, token: &Array) -> Result<u32> {
        eval([token])?;
        Ok(token.try_item_exact()?)
    }

    fn settle(&self, states: &[RuntimeState<'_, Self>]) -> Result<()> {
        let arrays = states.iter().flat_map(|state| match state {
            RuntimeState::Cache(cache) => cache.state().collect(),
            RuntimeState::Tensor(tensor) => vec![*tensor],
        });
        Ok(eval(arrays)?)
    }

    fn free(&self) -> Result<()> {
        memory::clear_cache()?;
        Ok(())
    }

    fn numbers(&self, x: &Array) -> Result<Vec<f32>> {
        results::numbers(x)
    }

    fn tensor(&self, numbers: Vec<f32>, dims: usize) -> Result<Array> {
        results::tensor(&numbers, dims)
    }

    fn log_softmax(&self, x: &Array) -> Result<Array> {
        results::log_softmax(x)
    }

    fn chosen(&self, log_probabilities: &Array, tokens: &[u32]) -> Result<Vec<f64>> {
        results::chosen(log_probabilities, tokens)
    }

    fn divergences(&self, reference: &Array, own: &Array) -> Result<Vec<(f64, bool)>> {
        results::divergences(reference, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_float16_is_clipped() {
        let large = Array::from_f32(60_000.0).as_dtype(Dtype::Float16).unwrap();
        let sum = Mlx.add_clipped(&large, &large).unwrap();
        assert_eq!(sum.dtype(), Dtype::Float16);
        assert_eq!(sum.as_dtype(Dtype::Float32).unwrap().item_exact::<f32>(), 65_504.0);
    }
}
