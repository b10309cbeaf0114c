//! Gated delta net: a linear attention whose state forgets, and replaces what it holds for a key.
//! Does not know which architecture it serves. The rule is that of "Gated Delta Networks" (arXiv 2412.06464), as in
//! mlx-lm's `gated_delta.py`.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::module::{Module, Pass};
use super::norm::{Norm, NormArgs};
use super::{ensure_side, side_of};
use crate::runtime::{Activation, Recurrence, Runtime};
use crate::tensors::Tensors;

/// Added to the sum of squares of a query or a key.
const LENGTH_EPS: f32 = 1e-6;

/// The arguments of a gated delta net.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeltaNetArgs {
    pub(crate) hidden_size: i32,
    pub(crate) value_heads: i32,
    pub(crate) key_heads: i32,
    pub(crate) key_dim: i32,
    pub(crate) value_dim: i32,
    /// How many tokens the convolution sees.
    pub(crate) kernel: i32,
    pub(crate) eps: f32,
    pub(crate) projections: DeltaProjections,
}

/// How the projections of the input are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeltaProjections {
    /// `in_proj_qkvz` and `in_proj_ba`, where what belongs to one key head lies together.
    ByHead,
    /// `in_proj_qkv`, `in_proj_z`, `in_proj_b` and `in_proj_a`.
    Apart,
}

impl DeltaNetArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { value_heads, key_heads, key_dim, value_dim, kernel, .. } = *self;
        ensure_side("hidden_size", self.hidden_size)?;
        ensure!(value_heads > 0 && key_heads > 0, "no heads of linear attention");
        ensure!(value_heads % key_heads == 0, "{value_heads} value heads do not share {key_heads} key heads");
        let keys = side_of("key heads", key_heads, key_dim)?;
        let values = side_of("value heads", value_heads, value_dim)?;
        side_of("vectors", 2, keys.max(values))?;
        ensure!((2..=64).contains(&kernel), "linear_conv_kernel_dim is {kernel}");
        Ok(())
    }

    fn keys(&self) -> i32 {
        self.key_heads * self.key_dim
    }

    fn values(&self) -> i32 {
        self.value_heads * self.value_dim
    }
}

pub(crate) struct DeltaNet<R: Runtime> {
    args: DeltaNetArgs,
    inputs: Vec<Linear<R>>,
    /// `[channels, kernel, 1]`
    conv1d: R::Tensor,
    dt_bias: R::Tensor,
    /// `-exp(A_log)`, `[value heads]`
    rates: R::Tensor,
    norm: Norm<R>,
    out_proj: Linear<R>,
}

/// What the projections give for some tokens.
struct Projected<R: Runtime> {
    /// Queries, keys and values of all heads.
    qkv: R::Tensor,
    /// The inputs of the gates on the output.
    z: R::Tensor,
    /// How much a key's value is replaced, before the sigmoid.
    b: R::Tensor,
    /// How much is forgotten, before the softplus.
    a: R::Tensor,
}

impl<R: Runtime> DeltaNet<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &DeltaNetArgs) -> Result<Self> {
        let DeltaNetArgs { hidden_size, value_heads, value_dim, kernel, eps, .. } = *args;
        let (keys, values) = (args.keys(), args.values());
        let channels = 2 * keys + values;
        let sides: &[(&str, i32)] = match args.projections {
            DeltaProjections::ByHead => {
                &[("in_proj_qkvz", 2 * (keys + values)), ("in_proj_ba", 2 * value_heads)]
            }
            DeltaProjections::Apart => &[
                ("in_proj_qkv", channels),
                ("in_proj_z", values),
                ("in_proj_b", value_heads),
                ("in_proj_a", value_heads),
            ],
        };
        let load = |(name, side): &(&str, i32)| {
            Linear::load(weights, &format!("{path}.{name}"), hidden_size, *side, false)
        };
        Ok(Self {
            args: *args,
            inputs: sides.iter().map(load).collect::<Result<_>>()?,
            conv1d: weights.take(&format!("{path}.conv1d.weight"), &[channels, kernel, 1])?,
            dt_bias: weights.take(&format!("{path}.dt_bias"), &[value_heads])?,
            rates: weights.take_mapped(&format!("{path}.A_log"), &[value_heads], |x| vec![-libm::expf(x)])?,
            norm: Norm::load(weights, &format!("{path}.norm"), value_dim, NormArgs::rms(eps))?,
            out_proj: Linear::load(weights, &format!("{path}.out_proj"), values, hidden_size, false)?,
        })
    }

    fn project(&self, runtime: &R, x: &R::Tensor) -> Result<Projected<R>> {
        let made: Vec<_> =
            self.inputs.iter().map(|input| input.forward(runtime, x)).collect::<Result<_>>()?;
        if let [qkv, z, b, a] = made.as_slice() {
            return Ok(Projected { qkv: qkv.clone(), z: z.clone(), b: b.clone(), a: a.clone() });
        }
        let DeltaNetArgs { key_heads, key_dim, value_heads, value_dim, .. } = self.args;
        let each = value_heads / key_heads;
        let part = |index: usize, from: i32, length: i32| {
            let heads = runtime.heads(&made[index], key_heads)?;
            runtime.flat(&runtime.columns(&heads, from..from + length)?)
        };
        let (values, after) = (each * value_dim, 2 * key_dim);
        Ok(Projected {
            qkv: runtime.joined(&[
                &part(0, 0, key_dim)?,
                &part(0, key_dim, key_dim)?,
                &part(0, after, values)?,
            ])?,
            z: part(0, after + values, values)?,
            b: part(1, 0, each)?,
            a: part(1, each, each)?,
        })
    }

    /// Returns heads of queries or keys at length one, times `factor`.
    fn unit(&self, runtime: &R, x: &R::Tensor, factor: f32) -> Result<R::Tensor> {
        let dims = self.args.key_dim;
        let heads = runtime.heads(x, self.args.key_heads)?;
        // A root mean square is a length over the root of the dimensions.
        let normed = runtime.rms_norm(&heads, None, LENGTH_EPS / dims as f32)?;
        runtime.scaled(&normed, factor / (dims as f32).sqrt())
    }
}

impl<R: Runtime> Module<R> for DeltaNet<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let (keys, heads) = (self.args.keys(), self.args.value_heads);
        let Projected { qkv, z, b, a } = self.project(runtime, x)?;
        let [inputs, state] = pass.recurrent()?;
        let convolved = runtime.convolved(&qkv, &self.conv1d, None, inputs)?;
        let mixed = runtime.activated(Activation::Silu, &convolved)?;
        let steps = runtime.steps(&a, &self.dt_bias, [0.0, f32::INFINITY])?;
        let scale = 1.0 / (self.args.key_dim as f32).sqrt();
        let recurrence = Recurrence {
            queries: &self.unit(runtime, &runtime.columns(&mixed, 0..keys)?, scale)?,
            keys: &self.unit(runtime, &runtime.columns(&mixed, keys..2 * keys)?, 1.0)?,
            values: &runtime
                .heads(&runtime.columns(&mixed, 2 * keys..2 * keys + self.args.values())?, heads)?,
            log_decays: &runtime.multiply(&steps, &self.rates)?,
            replaced: Some(&runtime.sigmoid(&b)?),
        };
        let output = runtime.recurrence(&recurrence, state)?;
        let normed = runtime.flat(&self.norm.forward(runtime, &output)?)?;
        self.out_proj.forward(runtime, &runtime.gated(Activation::Silu, &z, &normed)?)
    }
}
