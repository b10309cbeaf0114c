//! The operations of models on the CPU.
//! Knows nothing of the models.

use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::attention::{self, Queries, Weighting};
use crate::cache::Cache;
use crate::elementwise::{self, place_of_largest};
use crate::experts::{self, Choice, Routes};
use crate::linear::{self, Job};
use crate::math::{exp, rounded, sigmoid};
use crate::matrix::Matrix;
use crate::memory::Arena;
use crate::peak_memory::peak_memory;
use crate::recurrence::{self, Inputs};
use crate::rope::Rope;
use crate::shapes;
use crate::tensor::{Buffer, Tensor};
use crate::{Arranged, Cpu};
use models::runtime::{
    Activation, AttentionOptions, Heads, Recurrence, RopeArgs, Runtime, RuntimeState, Stored,
};
use weights::adapter::Whole;
use weights::checkpoint::{Checkpoint, Part, WeightKind};

/// From how many numbers on an operation is shared among the threads.
const SHARED_FROM: usize = 32 << 10;

impl Cpu {
    /// Runs `work` on parts of `values` that are whole rows. `work` gets the number of the first row.
    fn for_rows(&self, values: &mut [f32], dims: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        if values.len() < SHARED_FROM {
            return work(0, values);
        }
        let rows = (values.len() / dims).div_ceil(self.pool.threads() * 4).max(1);
        self.pool.for_parts(values, rows * dims, &|part, values| work(part * rows, values));
    }

    /// Returns `f(x)` for each number.
    fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
        let mut values = Buffer::new(x.values().len());
        values.iter_mut().zip(x.values()).for_each(|(value, x)| *value = f(*x));
        x.with(values)
    }

    /// Returns `f(x, y)` for each number, where the numbers of `y` begin anew after its end.
    fn zip(x: &Tensor, y: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
        let mut values = Buffer::new(x.values().len());
        let length = y.values().len().max(1);
        for (values, x) in values.chunks_mut(length).zip(x.values().chunks(length)) {
            let pairs = values.iter_mut().zip(x).zip(y.values());
            pairs.for_each(|((value, x), y)| *value = f(*x, *y));
        }
        x.with(values)
    }

    /// Returns `f(x, factor)` for each number, where so many neighbours have the same factor.
    fn multiply_each(x: &Tensor, factors: &Tensor, neighbours: usize) -> Tensor {
        let mut values = Buffer::of(x.values());
        for (values, factor) in values.chunks_exact_mut(neighbours.max(1)).zip(factors.values()) {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        x.with(values)
    }

    /// Returns queries or keys, turned by the positions after `seen` others.
    fn turned(&self, x: &Tensor, rope: Option<&Rope>, seen: usize) -> Buffer {
        let mut values = Buffer::of(x.values());
        if let Some(rope) = rope {
            let (heads, dims) = (x.heads(), x.dims());
            let turns = rope.turns(seen, x.tokens());
            self.for_rows(&mut values, heads * dims, &|row, tokens| turns.rotate(tokens, row, heads, dims));
        }
        values
    }

    /// Returns the rows of `x` as the products with a matrix read them.
    fn arranged(&self, x: &Tensor, matrix: &Matrix) -> Tensor {
        let form = (matrix.is_paired(), matrix.step_columns());
        let mut last = self.last.borrow_mut();
        if let Some(arranged) = last.as_ref().filter(|last| last.of.is(x) && last.form == form) {
            return arranged.made.clone();
        }
        let Some(vectors) = linear::arranged(&self.pool, matrix, x.values()) else { return x.clone() };
        let made = Tensor::new(vectors, form.1);
        *last = Some(Arranged { of: x.clone(), form, made: made.clone() });
        made
    }
}

impl Runtime for Cpu {
    type Tensor = Tensor;
    type Tokens = Vec<u32>;
    type Matrix = Matrix;
    type Weights = Arena;
    type Rope = Rope;
    type Mask = ();
    type Cache = Cache;
    type Choice = Choice;
    type Routes = Routes;

    const IS_LAZY: bool = false;
    const PREFILL_STEP: usize = 128;

    fn device(&self) -> Result<&'static str> {
        Ok("cpu")
    }

    fn peak_memory_bytes(&self) -> Result<u64> {
        peak_memory()
    }

    fn open(&self, checkpoint: &Checkpoint) -> Result<Arena> {
        let matrices = checkpoint.weights().values().filter(|weight| weight.shape.len() > 1);
        let needed = matrices.map(Matrix::needed).try_fold(0_usize, |sum, bytes| sum.checked_add(bytes?));
        Arena::new(needed.context("no machine has so much memory")?)
    }

    fn vector(&self, _: &mut Arena, stored: Stored<'_>) -> Result<Tensor> {
        let WeightKind::Float(float) = stored.weight.kind else { bail!("a float was expected") };
        let mut bytes = Vec::new();
        stored.checkpoint.read_rows(stored.weight, Part::Weight, &(0..stored.weight.rows()), &mut bytes)?;
        let shape = stored.weight.shape.clone();
        self.vector_of(&Whole { float, shape, bytes })
    }

    fn matrix(&self, arena: &mut Arena, stored: Stored<'_>) -> Result<Matrix> {
        let Stored { checkpoint, weight, .. } = stored;
        let read = |part: Part, first: usize, bytes: &mut [u8]| {
            Ok(checkpoint.fill_rows(weight, part, first, bytes)?)
        };
        Matrix::read(arena, weight, &read)
    }

    fn vector_of(&self, numbers: &Whole) -> Result<Tensor> {
        let mut values = Buffer::new(numbers.bytes.len() / numbers.float.size());
        numbers.float.decode(&numbers.bytes, &mut values);
        let dims = values.len();
        Ok(Tensor::new(values, dims))
    }

    fn matrix_of(&self, numbers: &Whole) -> Result<Matrix> {
        Matrix::of_floats(numbers)
    }

    fn finish(&self, _: Arena) -> Result<()> {
        Ok(())
    }

    fn activation_dtype(&self, _: &Matrix) -> String {
        "float32".to_owned()
    }

    fn tokens(&self, ids: &[u32]) -> Result<Vec<u32>> {
        Ok(ids.to_vec())
    }

    fn rows(&self, matrix: &Matrix, numbers: &Vec<u32>) -> Result<Tensor> {
        Ok(Tensor::new(linear::rows(self.simd, matrix, numbers), matrix.columns))
    }

    fn product(&self, x: &Tensor, matrix: &Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
        self.products(x, &[(matrix, bias)])?.pop().context("BUG: a product has a result")
    }

    fn products(&self, x: &Tensor, layers: &[(&Matrix, Option<&Tensor>)]) -> Result<Vec<Tensor>> {
        let vectors: Vec<Tensor> = layers.iter().map(|(matrix, _)| self.arranged(x, matrix)).collect();
        let places = layers.iter().zip(&vectors).map(|((matrix, _), vectors)| {
            Buffer::new(vectors.values().len() / matrix.step_columns() * matrix.rows)
        });
        let mut products: Vec<Buffer> = places.collect();
        let mut jobs = Vec::with_capacity(layers.len());
        for (((matrix, _), vectors), products) in layers.iter().zip(&vectors).zip(&mut products) {
            jobs.push(Job::new(vectors.values(), matrix, 0, products));
        }
        linear::multiply(&self.pool, self.simd, &jobs);
        drop(jobs);
        let results = layers.iter().zip(products).map(|((matrix, bias), products)| {
            let products = Tensor::new(products, matrix.rows);
            bias.map_or(Ok(products.clone()), |bias| self.add_bias(&products, bias))
        });
        results.collect()
    }

    fn dora_factors(
        &self,
        weight: &Matrix,
        [a, b]: [&Matrix; 2],
        scale: f32,
        magnitude: &Tensor,
    ) -> Result<Tensor> {
        let row_of = |matrix: &Matrix, row: usize| {
            let number = u32::try_from(row).context("no matrix has so many rows")?;
            anyhow::Ok(linear::rows(self.simd, matrix, &[number]))
        };
        let a: Vec<Buffer> = (0..a.rows).map(|row| row_of(a, row)).collect::<Result<_>>()?;
        let mut factors = Vec::with_capacity(weight.rows);
        for (row, magnitude) in magnitude.values().iter().enumerate() {
            let mut updated = row_of(weight, row)?;
            for (factor, a) in row_of(b, row)?.iter().zip(&a) {
                updated
                    .iter_mut()
                    .zip(a.iter())
                    .for_each(|(weight, a)| *weight = (factor * scale).mul_add(*a, *weight));
            }
            let squares: f32 = updated.iter().fold(0.0, |sum, value| value.mul_add(*value, sum));
            factors.push(magnitude / squares.sqrt());
        }
        Ok(Tensor::new(Buffer::of(&factors), weight.rows))
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok(Self::zip(a, b, |a, b| a + b))
    }

    fn add_bias(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        Ok(Self::zip(x, bias, |x, bias| x + bias))
    }

    fn add_clipped(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.add(a, b)
    }

    fn add_update(&self, x: &Tensor, update: &Tensor, factor: f32) -> Result<Tensor> {
        Ok(Self::zip(x, update, |x, update| factor.mul_add(update, x)))
    }

    fn add_number(&self, x: &Tensor, number: f32) -> Result<Tensor> {
        Ok(Self::map(x, |x| x + number))
    }

    fn scaled(&self, x: &Tensor, number: f32) -> Result<Tensor> {
        Ok(Self::map(x, |x| x * number))
    }

    fn multiply(&self, x: &Tensor, factors: &Tensor) -> Result<Tensor> {
        Ok(Self::zip(x, factors, |x, factor| x * factor))
    }

    fn multiply_rows(&self, x: &Tensor, factors: &Tensor, numbers: &Vec<u32>) -> Result<Tensor> {
        let mut values = Buffer::of(x.values());
        for (row, number) in values.chunks_exact_mut(x.dims()).zip(numbers) {
            let factor = factors.values()[*number as usize];
            row.iter_mut().for_each(|value| *value *= factor);
        }
        Ok(x.with(values))
    }

    fn multiply_heads(&self, x: &Tensor, factors: &Tensor) -> Result<Tensor> {
        Ok(Self::multiply_each(x, factors, x.dims()))
    }

    fn multiply_tokens(&self, x: &Tensor, factors: &Tensor) -> Result<Tensor> {
        Ok(Self::multiply_each(x, factors, x.heads() * x.dims()))
    }

    fn sigmoid(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Self::map(x, sigmoid))
    }

    fn precise_sigmoid(&self, x: &Tensor) -> Result<Tensor> {
        self.sigmoid(x)
    }

    fn softcapped(&self, x: &Tensor, cap: f32) -> Result<Tensor> {
        let simd = self.simd;
        let mut values = Buffer::of(x.values());
        self.for_rows(&mut values, x.dims(), &|_, rows| elementwise::softcap(simd, rows, cap));
        Ok(x.with(values))
    }

    fn activated(&self, activation: Activation, x: &Tensor) -> Result<Tensor> {
        let mut ones = Buffer::new(x.values().len());
        ones.fill(1.0);
        self.gated(activation, x, &x.with(ones))
    }

    fn gated(&self, activation: Activation, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
        let simd = self.simd;
        let mut values = Buffer::of(gate.values());
        let dims = x.dims();
        self.for_rows(&mut values, dims, &|row, gate| {
            let x = &x.values()[row * dims..][..gate.len()];
            match activation {
                Activation::Silu => elementwise::swiglu(simd, gate, x),
                Activation::Gelu => elementwise::geglu(simd, gate, x),
                Activation::ExactGelu => elementwise::exact_geglu(gate, x),
                Activation::SquaredRelu => elementwise::squared_reglu(simd, gate, x),
                Activation::Clamped => elementwise::clamped_swiglu(simd, gate, x),
            }
        });
        Ok(gate.with(values))
    }

    fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        let simd = self.simd;
        let mut values = Buffer::of(x.values());
        let ones = if weight.is_none() { vec![1.0; x.dims()] } else { Vec::new() };
        let weight = weight.map_or(ones.as_slice(), Tensor::values);
        self.for_rows(&mut values, x.dims(), &|_, rows| {
            for row in rows.chunks_exact_mut(x.dims()) {
                elementwise::rms_norm(simd, row, weight, eps);
            }
        });
        Ok(x.with(values))
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        let simd = self.simd;
        let mut values = Buffer::of(x.values());
        self.for_rows(&mut values, x.dims(), &|_, rows| {
            for row in rows.chunks_exact_mut(x.dims()) {
                elementwise::layer_norm(simd, row, eps);
            }
        });
        let normed = x.with(values);
        let scaled = weight.map_or(Ok(normed.clone()), |weight| self.multiply(&normed, weight))?;
        bias.map_or(Ok(scaled.clone()), |bias| self.add_bias(&scaled, bias))
    }

    fn softmax(&self, x: &Tensor) -> Result<Tensor> {
        let mut values = Buffer::of(x.values());
        for row in values.chunks_exact_mut(x.dims()) {
            let sum = elementwise::exponentials(self.simd, row, 1.0);
            row.iter_mut().for_each(|value| *value /= sum);
        }
        Ok(x.with(values))
    }

    fn normalized(&self, x: &Tensor, eps: f32) -> Result<Tensor> {
        let mut values = Buffer::of(x.values());
        for row in values.chunks_exact_mut(x.dims()) {
            let sum = row.iter().fold(0.0, |sum, value| sum + value) + eps;
            row.iter_mut().for_each(|value| *value /= sum);
        }
        Ok(x.with(values))
    }

    fn columns(&self, x: &Tensor, columns: Range<i32>) -> Result<Tensor> {
        Ok(shapes::columns(x, usize::try_from(columns.start)?..usize::try_from(columns.end)?))
    }

    fn joined(&self, parts: &[&Tensor]) -> Result<Tensor> {
        Ok(shapes::joined(parts))
    }

    fn flat(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.split(1))
    }

    fn heads(&self, x: &Tensor, heads: i32) -> Result<Tensor> {
        Ok(x.split(usize::try_from(heads)?))
    }

    fn rope(&self, args: &RopeArgs) -> Result<Rope> {
        Ok(Rope::new(args))
    }

    fn cache(&self, window: Option<i32>) -> Cache {
        Cache::new(window.and_then(|window| usize::try_from(window).ok()))
    }

    fn mask(&self, _: i32, _: i32, _: Option<i32>) -> Result<()> {
        // A cache knows what its layer sees.
        Ok(())
    }

    fn attention(
        &self,
        heads: &Heads<'_, Self>,
        options: &AttentionOptions<'_, Self>,
        _: &(),
        cache: &mut Cache,
    ) -> Result<Tensor> {
        // The keys of another layer are in its cache already.
        let new = heads.own.map_or_else(|| heads.queries.tokens(), |_| 0);
        let queries = self.turned(heads.queries, options.rope, cache.seen() - new);
        if let Some([keys, values]) = heads.own {
            let turned = self.turned(keys, options.rope, cache.seen());
            cache.append(&turned, values.values(), keys.heads(), [keys.dims(), values.dims()]);
        }
        let sinks = options.sinks.map(Tensor::values);
        let weighting = Weighting { scale: options.scale, softcap: options.softcap, sinks };
        let (count, kv_heads, value_dims) = (heads.queries.heads(), cache.heads(), cache.value_dims());
        let dims = heads.queries.dims();
        let queries = Queries { values: &queries, heads: count, kv_heads, dims, value_dims, weighting };
        let output = attention::attention(&self.pool, self.simd, &queries, cache);
        Ok(Tensor::new(output, count * value_dims))
    }

    fn head_product(&self, x: &Tensor, stack: &Matrix) -> Result<Tensor> {
        let (tokens, heads, dims) = (x.tokens(), x.heads(), x.dims());
        let by_head = Tensor::new(shapes::turned(x.values(), [tokens, heads, dims]), dims);
        let vectors = self.arranged(&by_head, stack);
        let length = stack.step_columns();
        let mut products = Buffer::new(tokens * heads * stack.rows);
        let outputs = products.chunks_exact_mut((tokens * stack.rows).max(1));
        let inputs = vectors.values().chunks_exact((tokens * length).max(1));
        let jobs = inputs.zip(outputs).enumerate();
        let jobs: Vec<_> = jobs.map(|(head, (vectors, own))| Job::new(vectors, stack, head, own)).collect();
        linear::multiply(&self.pool, self.simd, &jobs);
        drop(jobs);
        let by_token = shapes::turned(&products, [heads, tokens, stack.rows]);
        Ok(Tensor::new(by_token, heads * stack.rows).split(heads))
    }

    fn convolved(
        &self,
        x: &Tensor,
        kernel: &Tensor,
        bias: Option<&Tensor>,
        inputs: &mut Option<Tensor>,
    ) -> Result<Tensor> {
        Ok(recurrence::convolved(x, kernel.values(), bias.map(Tensor::values), inputs))
    }

    fn steps(&self, x: &Tensor, bias: &Tensor, [least, greatest]: [f32; 2]) -> Result<Tensor> {
        // ln(1 + e^x) is x where e^-x is nothing beside 1. The logarithm is taken in float64, in which 1 + e^x is exact
        // enough where e^x is small.
        let softplus = |x: f32| match x > 20.0 {
            true => x,
            false => rounded(libm::log1p(libm::exp(f64::from(x)))),
        };
        Ok(Self::zip(x, bias, |x, bias| softplus(x + bias).clamp(least, greatest)))
    }

    fn recurrence(&self, inputs: &Recurrence<'_, Self>, state: &mut Option<Tensor>) -> Result<Tensor> {
        let Recurrence { queries, keys, values, log_decays, replaced } = *inputs;
        let decays = &Self::map(log_decays, exp);
        let inputs = Inputs { queries, keys, values, decays, replaced };
        Ok(recurrence::recurrence(&self.pool, self.simd, &inputs, state))
    }

    fn largest(&self, x: &Tensor, count: i32) -> Result<(Choice, Tensor)> {
        let count = usize::try_from(count)?;
        let (choice, numbers) = experts::largest(x.values(), x.dims(), count);
        Ok((choice, Tensor::new(Buffer::of(&numbers), count)))
    }

    fn at(&self, x: &Tensor, choice: &Choice) -> Result<Tensor> {
        Ok(Tensor::new(Buffer::of(&choice.at(x.values(), x.dims())), choice.count()))
    }

    fn picked(&self, numbers: &Tensor, choice: &Choice) -> Result<Tensor> {
        Ok(Tensor::new(Buffer::of(&choice.picked(numbers.values())), choice.count()))
    }

    fn best_groups(&self, x: &Tensor, groups: i32, kept: i32) -> Result<Tensor> {
        let mut values = Buffer::of(x.values());
        experts::keep_best_groups(&mut values, x.dims(), usize::try_from(groups)?, usize::try_from(kept)?);
        Ok(x.with(values))
    }

    fn routes(&self, choice: &Choice) -> Result<Routes> {
        Ok(Routes::new(choice))
    }

    fn spread(&self, x: &Tensor, routes: &Routes) -> Result<Tensor> {
        Ok(Tensor::new(routes.spread(x.values(), x.dims()), x.dims()))
    }

    fn expert_product(&self, x: &Tensor, stack: &Matrix, routes: &Routes) -> Result<Tensor> {
        let vectors = self.arranged(x, stack);
        let length = stack.step_columns();
        let mut products = Buffer::new(vectors.values().len() / length * stack.rows);
        let (mut rest, mut jobs) = (&mut *products, Vec::new());
        for (expert, pairs) in routes.groups() {
            let (own, later) = rest.split_at_mut(pairs.len() * stack.rows);
            let vectors = &vectors.values()[pairs.start * length..pairs.end * length];
            jobs.push(Job::new(vectors, stack, *expert, own));
            rest = later;
        }
        linear::multiply(&self.pool, self.simd, &jobs);
        Ok(Tensor::new(products, stack.rows))
    }

    fn add_expert_bias(&self, x: &Tensor, bias: &Tensor, routes: &Routes) -> Result<Tensor> {
        let mut values = Buffer::of(x.values());
        routes.add_bias(&mut values, bias.values(), x.dims());
        Ok(x.with(values))
    }

    fn gather(&self, x: &Tensor, scores: &Tensor, routes: &Routes) -> Result<Tensor> {
        Ok(Tensor::new(routes.gather(x.values(), scores.values(), x.dims()), x.dims()))
    }

    fn last(&self, x: &Tensor) -> Result<Tensor> {
        let row = x.values().chunks_exact(x.dims()).next_back().context("BUG: there is no token")?;
        Ok(Tensor::new(Buffer::of(row), x.dims()))
    }

    fn most_likely(&self, x: &Tensor) -> Result<Vec<u32>> {
        Ok(vec![u32::try_from(place_of_largest(x.values()))?])
    }

    fn start(&self, _: &Vec<u32>) -> Result<()> {
        Ok(())
    }

    fn read(&self, token: &Vec<u32>) -> Result<u32> {
        token.first().copied().context("BUG: there is no token")
    }

    fn settle(&self, _: &[RuntimeState<'_, Self>]) -> Result<()> {
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(())
    }

    fn numbers(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.values().to_vec())
    }

    fn tensor(&self, numbers: Vec<f32>, dims: usize) -> Result<Tensor> {
        Ok(Tensor::new(Buffer::of(&numbers), dims))
    }

    fn log_softmax(&self, x: &Tensor) -> Result<Tensor> {
        let simd = self.simd;
        let mut values = Buffer::of(x.values());
        self.for_rows(&mut values, x.dims(), &|_, rows| {
            for row in rows.chunks_exact_mut(x.dims()) {
                let total = elementwise::log_sum_exp(simd, row);
                row.iter_mut().for_each(|value| *value -= total);
            }
        });
        Ok(x.with(values))
    }

    fn chosen(&self, log_probabilities: &Tensor, tokens: &[u32]) -> Result<Vec<f64>> {
        let rows = log_probabilities.values().chunks_exact(log_probabilities.dims()).zip(tokens);
        let chosen = rows.map(|(row, token)| row.get(*token as usize).copied().map(f64::from));
        chosen.collect::<Option<_>>().context("a token is outside the vocabulary")
    }

    fn divergences(&self, reference: &Tensor, own: &Tensor) -> Result<Vec<(f64, bool)>> {
        let rows =
            reference.values().chunks_exact(reference.dims()).zip(own.values().chunks_exact(own.dims()));
        let compare = |(p, q): (&[f32], &[f32])| {
            (elementwise::divergence(self.simd, p, q), place_of_largest(p) == place_of_largest(q))
        };
        Ok(rows.map(compare).collect())
    }
}
