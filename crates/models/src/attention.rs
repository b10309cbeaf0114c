//! Attention over a key/value cache, with grouped queries and an optional norm on each head.
//! Does not know which architecture it serves.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::norm::{NormArgs, RmsNorm};
use super::runtime::{Heads, Runtime};
use super::tensors::Tensors;

/// The arguments of attention, which are the same in all layers of a model.
#[derive(Clone, Debug)]
pub(crate) struct AttentionArgs {
    pub(crate) hidden_size: i32,
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) head_dim: i32,
    pub(crate) scale: f32,
    /// Whether the projections to queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    pub(crate) o_bias: bool,
    /// The norm on the queries and keys of each head, if there is one.
    pub(crate) head_norm: Option<NormArgs>,
}

impl AttentionArgs {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { hidden_size, n_heads, n_kv_heads, head_dim, .. } = *self;
        ensure!(hidden_size > 0, "hidden_size is {hidden_size}");
        ensure!(n_heads > 0 && n_kv_heads > 0, "no attention heads");
        ensure!(n_heads % n_kv_heads == 0, "{n_heads} heads do not share {n_kv_heads} key/value heads");
        ensure!(head_dim > 0 && head_dim % 2 == 0, "head_dim is {head_dim}");
        ensure!(n_heads.checked_mul(head_dim).is_some(), "{n_heads} heads of {head_dim}");
        ensure!(self.scale.is_finite(), "attention has scale {}", self.scale);
        Ok(())
    }
}

/// Returns the usual factor on the products of queries and keys, `1 / sqrt(head_dim)`.
pub(crate) fn usual_scale(head_dim: i32) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

pub(crate) struct Attention<R: Runtime> {
    n_heads: i32,
    n_kv_heads: i32,
    scale: f32,
    q_proj: Linear<R>,
    k_proj: Linear<R>,
    v_proj: Linear<R>,
    o_proj: Linear<R>,
    norms: Option<[RmsNorm<R>; 2]>,
    rope: R::Rope,
}

impl<R: Runtime> Attention<R> {
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        args: &AttentionArgs,
        rope: &R::Rope,
    ) -> Result<Self> {
        let AttentionArgs { hidden_size, n_heads, n_kv_heads, head_dim, qkv_bias, o_bias, .. } = *args;
        let mut linear = |name: &str, input, output, bias| {
            Linear::load(weights, &format!("{path}.{name}"), input, output, bias)
        };
        let q_proj = linear("q_proj", hidden_size, n_heads * head_dim, qkv_bias)?;
        let k_proj = linear("k_proj", hidden_size, n_kv_heads * head_dim, qkv_bias)?;
        let v_proj = linear("v_proj", hidden_size, n_kv_heads * head_dim, qkv_bias)?;
        let o_proj = linear("o_proj", n_heads * head_dim, hidden_size, o_bias)?;
        let mut norm = |name: &str, norm| RmsNorm::load(weights, &format!("{path}.{name}"), head_dim, norm);
        let norms = match args.head_norm {
            Some(args) => Some([norm("q_norm", args)?, norm("k_norm", args)?]),
            None => None,
        };
        let (scale, rope) = (args.scale, rope.clone());
        Ok(Self { n_heads, n_kv_heads, scale, q_proj, k_proj, v_proj, o_proj, norms, rope })
    }

    /// Maps `[tokens, hidden_size]` to the same shape.
    pub(crate) fn forward(
        &self,
        runtime: &R,
        x: &R::Tensor,
        mask: &R::Mask,
        cache: &mut R::Cache,
    ) -> Result<R::Tensor> {
        let [queries, keys, values] =
            Linear::forward_all([&self.q_proj, &self.k_proj, &self.v_proj], runtime, x)?;
        let mut queries = runtime.heads(&queries, self.n_heads)?;
        let mut keys = runtime.heads(&keys, self.n_kv_heads)?;
        let values = runtime.heads(&values, self.n_kv_heads)?;
        if let Some([q_norm, k_norm]) = &self.norms {
            queries = q_norm.forward(runtime, &queries)?;
            keys = k_norm.forward(runtime, &keys)?;
        }
        let heads = Heads { queries: &queries, keys: &keys, values: &values };
        self.o_proj.forward(runtime, &runtime.attention(&heads, &self.rope, self.scale, mask, cache)?)
    }
}
