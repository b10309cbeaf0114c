//! Mamba 2: a state space model, which is a linear attention whose state forgets.
//! Does not know which architecture it serves. The rule is that of "Transformers are SSMs" (arXiv 2405.21060), as in
//! mlx-lm's `ssm.py`.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::module::{Module, Pass};
use super::{ensure_side, side_of};
use crate::runtime::{Activation, Recurrence, Runtime};
use crate::tensors::Tensors;

/// The arguments of a Mamba 2 mixer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MambaArgs {
    pub(crate) hidden_size: i32,
    pub(crate) heads: i32,
    pub(crate) head_dim: i32,
    /// The size of the state of one dimension of a head.
    pub(crate) state_size: i32,
    /// How many tokens the convolution sees.
    pub(crate) kernel: i32,
    /// How many groups of heads share their keys and queries.
    pub(crate) groups: i32,
    /// Whether the projections have a bias, and whether the convolution has one.
    pub(crate) bias: [bool; 2],
    /// The least and the greatest step of time.
    pub(crate) steps: [f32; 2],
    /// In how many groups the output is normalized.
    pub(crate) norm_groups: i32,
    pub(crate) eps: f32,
}

impl MambaArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { heads, groups, norm_groups, kernel, .. } = *self;
        ensure_side("hidden_size", self.hidden_size)?;
        ensure!(heads > 0 && groups > 0 && heads % groups == 0, "{heads} heads in {groups} groups");
        let inner = side_of("heads", heads, self.head_dim)?;
        let shared = side_of("groups", groups, self.state_size)?;
        side_of("vectors", 4, inner.max(shared))?;
        ensure!(norm_groups > 0 && inner % norm_groups == 0, "{inner} numbers in {norm_groups} groups");
        ensure!((2..=64).contains(&kernel), "the convolution sees {kernel} tokens");
        let [least, greatest] = self.steps;
        ensure!(least <= greatest, "time_step_limit is [{least}, {greatest}]");
        Ok(())
    }

    fn inner(&self) -> i32 {
        self.heads * self.head_dim
    }

    fn channels(&self) -> i32 {
        self.inner() + 2 * self.groups * self.state_size
    }
}

pub(crate) struct Mamba<R: Runtime> {
    args: MambaArgs,
    in_proj: Linear<R>,
    /// `[channels, kernel, 1]`
    conv1d: R::Tensor,
    conv_bias: Option<R::Tensor>,
    dt_bias: R::Tensor,
    /// `-exp(A_log)`, `[heads]`
    rates: R::Tensor,
    /// `D` of each head, for each of its dimensions.
    skip: R::Tensor,
    norm: R::Tensor,
    out_proj: Linear<R>,
}

impl<R: Runtime> Mamba<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &MambaArgs) -> Result<Self> {
        let MambaArgs { hidden_size, heads, head_dim, kernel, bias, .. } = *args;
        let (inner, channels) = (args.inner(), args.channels());
        let at = |name: &str| format!("{path}.{name}");
        let conv_bias = if bias[1] { Some(weights.take(&at("conv1d.bias"), &[channels])?) } else { None };
        let dims = usize::try_from(head_dim)?;
        let projected = inner + channels + heads;
        Ok(Self {
            in_proj: Linear::load(weights, &at("in_proj"), hidden_size, projected, bias[0])?,
            conv1d: weights.take(&at("conv1d.weight"), &[channels, kernel, 1])?,
            conv_bias,
            dt_bias: weights.take(&at("dt_bias"), &[heads])?,
            rates: weights.take_mapped(&at("A_log"), &[heads], |x| vec![-libm::expf(x)])?,
            skip: weights.take_mapped(&at("D"), &[heads], |x| vec![x; dims])?,
            norm: weights.take(&at("norm.weight"), &[inner])?,
            out_proj: Linear::load(weights, &at("out_proj"), inner, hidden_size, bias[0])?,
            args: *args,
        })
    }

    /// Gates and normalizes the output.
    fn normed(&self, runtime: &R, gate: &R::Tensor, y: &R::Tensor) -> Result<R::Tensor> {
        let gated = runtime.gated(Activation::Silu, gate, y)?;
        let groups = runtime.heads(&gated, self.args.norm_groups)?;
        let normed = runtime.flat(&runtime.rms_norm(&groups, None, self.args.eps)?)?;
        runtime.multiply(&normed, &self.norm)
    }
}

impl<R: Runtime> Module<R> for Mamba<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let (runtime, args) = (pass.runtime, &self.args);
        let (inner, shared) = (args.inner(), args.groups * args.state_size);
        let projected = self.in_proj.forward(runtime, x)?;
        let before = inner + args.channels();
        let gate = runtime.columns(&projected, 0..inner)?;
        let dt = runtime.columns(&projected, before..before + args.heads)?;
        let [inputs, state] = pass.recurrent()?;
        let mixed = runtime.columns(&projected, inner..before)?;
        let convolved = runtime.convolved(&mixed, &self.conv1d, self.conv_bias.as_ref(), inputs)?;
        let mixed = runtime.activated(Activation::Silu, &convolved)?;
        let hidden = runtime.columns(&mixed, 0..inner)?;
        let grouped = |from: i32| runtime.heads(&runtime.columns(&mixed, from..from + shared)?, args.groups);
        let steps = runtime.steps(&dt, &self.dt_bias, args.steps)?;
        let recurrence = Recurrence {
            queries: &grouped(inner + shared)?,
            keys: &grouped(inner)?,
            values: &runtime.multiply_heads(&runtime.heads(&hidden, args.heads)?, &steps)?,
            log_decays: &runtime.multiply(&steps, &self.rates)?,
            replaced: None,
        };
        let output = runtime.flat(&runtime.recurrence(&recurrence, state)?)?;
        let y = runtime.add(&output, &runtime.multiply(&hidden, &self.skip)?)?;
        self.out_proj.forward(runtime, &self.normed(runtime, &gate, &y)?)
    }
}
