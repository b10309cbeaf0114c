//! Multi-head latent attention: keys and values of all heads come from one short vector for each token, and only that
//! is cached.
//! Does not know which architecture it serves.
//!
//! The matrices between the short vector and the heads are applied to queries and outputs, for prompts too. mlx-lm applies
//! them to keys and values of a prompt, which gives the same numbers.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::module::{Module, Pass};
use super::norm::{Norm, NormArgs};
use super::{ensure_side, side_of};
use crate::runtime::{AttentionOptions, Heads, RopeArgs, Runtime};
use crate::tensors::Tensors;

/// The arguments of latent attention.
#[derive(Clone, Debug)]
pub(crate) struct LatentArgs {
    pub(crate) hidden_size: i32,
    pub(crate) n_heads: i32,
    /// The length of the short vector that queries come from, if there is one.
    pub(crate) q_lora_rank: Option<i32>,
    /// The length of the short vector that keys and values come from.
    pub(crate) kv_lora_rank: i32,
    /// The dimensions of a query that are not turned.
    pub(crate) qk_nope_head_dim: i32,
    /// The dimensions of a query that are turned.
    pub(crate) rope: RopeArgs,
    pub(crate) v_head_dim: i32,
    pub(crate) scale: f32,
    pub(crate) bias: bool,
    /// The norm on the short vectors.
    pub(crate) norm: NormArgs,
}

impl LatentArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("hidden_size", self.hidden_size)?;
        ensure_side("kv_lora_rank", self.kv_lora_rank)?;
        ensure_side("q_lora_rank", self.q_lora_rank.unwrap_or(1))?;
        ensure_side("qk_nope_head_dim", self.qk_nope_head_dim)?;
        ensure_side("v_head_dim", self.v_head_dim)?;
        let turned = self.rope.dims;
        ensure!(turned > 0 && turned % 2 == 0, "qk_rope_head_dim is {turned}");
        ensure_side("qk_rope_head_dim", turned)?;
        side_of("heads", self.n_heads, self.qk_nope_head_dim + turned)?;
        side_of("heads", self.n_heads, self.v_head_dim)?;
        ensure!(self.scale.is_finite(), "attention has scale {}", self.scale);
        Ok(())
    }
}

pub(crate) struct LatentAttention<R: Runtime> {
    args: LatentArgs,
    queries: Queries<R>,
    kv_a_proj_with_mqa: Linear<R>,
    kv_a_layernorm: Norm<R>,
    /// `[heads, kv_lora_rank, qk_nope_head_dim]`
    embed_q: R::Matrix,
    /// `[heads, v_head_dim, kv_lora_rank]`
    unembed_out: R::Matrix,
    o_proj: Linear<R>,
    rope: R::Rope,
}

/// The projection to queries.
enum Queries<R: Runtime> {
    Whole(Linear<R>),
    Latent { a: Linear<R>, norm: Norm<R>, b: Linear<R> },
}

impl<R: Runtime> LatentAttention<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &LatentArgs) -> Result<Self> {
        let LatentArgs { hidden_size, n_heads, kv_lora_rank, v_head_dim, bias, norm, .. } = *args;
        let (nope, turned) = (args.qk_nope_head_dim, args.rope.dims);
        let at = |name: &str| format!("{path}.{name}");
        let heads = n_heads * (nope + turned);
        let queries = match args.q_lora_rank {
            None => Queries::Whole(Linear::load(weights, &at("q_proj"), hidden_size, heads, false)?),
            Some(rank) => Queries::Latent {
                a: Linear::load(weights, &at("q_a_proj"), hidden_size, rank, bias)?,
                norm: Norm::load(weights, &at("q_a_layernorm"), rank, norm)?,
                b: Linear::load(weights, &at("q_b_proj"), rank, heads, false)?,
            },
        };
        let (down, width) = (at("kv_a_proj_with_mqa"), kv_lora_rank + turned);
        Ok(Self {
            queries,
            kv_a_proj_with_mqa: Linear::load(weights, &down, hidden_size, width, bias)?,
            kv_a_layernorm: Norm::load(weights, &at("kv_a_layernorm"), kv_lora_rank, norm)?,
            embed_q: weights.matrix(&at("embed_q"), &[n_heads, kv_lora_rank, nope])?,
            unembed_out: weights.matrix(&at("unembed_out"), &[n_heads, v_head_dim, kv_lora_rank])?,
            o_proj: Linear::load(weights, &at("o_proj"), n_heads * v_head_dim, hidden_size, bias)?,
            rope: weights.rope(&args.rope)?,
            args: args.clone(),
        })
    }

    /// Returns the queries of all heads, the turned dimensions first.
    fn queries(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        let (nope, turned) = (self.args.qk_nope_head_dim, self.args.rope.dims);
        let projected = match &self.queries {
            Queries::Whole(projection) => projection.forward(runtime, x)?,
            Queries::Latent { a, norm, b } => {
                b.forward(runtime, &norm.forward(runtime, &a.forward(runtime, x)?)?)?
            }
        };
        let heads = runtime.heads(&projected, self.args.n_heads)?;
        let latent = runtime.head_product(&runtime.columns(&heads, 0..nope)?, &self.embed_q)?;
        runtime.joined(&[&runtime.columns(&heads, nope..nope + turned)?, &latent])
    }
}

impl<R: Runtime> Module<R> for LatentAttention<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let (rank, turned) = (self.args.kv_lora_rank, self.args.rope.dims);
        let queries = self.queries(runtime, x)?;
        let compressed = self.kv_a_proj_with_mqa.forward(runtime, x)?;
        let latent = self.kv_a_layernorm.forward(runtime, &runtime.columns(&compressed, 0..rank)?)?;
        let positions = runtime.columns(&compressed, rank..rank + turned)?;
        let keys = runtime.heads(&runtime.joined(&[&positions, &latent])?, 1)?;
        let own = [keys, runtime.heads(&latent, 1)?];
        let options =
            AttentionOptions { scale: self.args.scale, rope: Some(&self.rope), sinks: None, softcap: None };
        let (mask, cache) = pass.mask_and_cache(None, None)?;
        let heads = Heads { queries: &queries, own: Some(&own) };
        let output = runtime.attention(&heads, &options, mask, cache)?;
        let latent = runtime.heads(&output, self.args.n_heads)?;
        let values = runtime.flat(&runtime.head_product(&latent, &self.unembed_out)?)?;
        self.o_proj.forward(runtime, &values)
    }
}
