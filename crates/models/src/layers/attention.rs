//! Attention over a key/value cache, with grouped queries. What families do differently is an argument.
//! Does not know which architecture it serves.

use anyhow::{Context, Result, ensure};

use super::linear::Linear;
use super::module::{Module, Pass};
use super::norm::{Norm, NormArgs, NormWeight};
use super::{ensure_side, side_of};
use crate::runtime::{AttentionOptions, Heads, RopeArgs, Runtime};
use crate::tensors::Tensors;

/// The arguments of attention.
#[derive(Clone, Debug)]
pub(crate) struct AttentionArgs {
    pub(crate) hidden_size: i32,
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) head_dim: i32,
    /// The factor on the products of queries and keys.
    pub(crate) scale: f32,
    /// How positions turn queries and keys, if they do.
    pub(crate) rope: Option<RopeArgs>,
    /// How many tokens a token sees, if not all before it.
    pub(crate) window: Option<i32>,
    pub(crate) projections: Projections,
    /// Whether the projections to queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    pub(crate) o_bias: bool,
    pub(crate) head_norm: HeadNorm,
    /// The epsilon of a norm without weight on the values.
    pub(crate) value_norm: Option<f32>,
    /// Whether the output is multiplied with a sigmoid, whose inputs lie beside each head's query.
    pub(crate) is_gated: bool,
    /// Whether each head has a sink: a number beside the products that takes its part of the softmax.
    pub(crate) has_sinks: bool,
    /// Products `p` become `softcap * tanh(p / softcap)`.
    pub(crate) softcap: Option<f32>,
    /// A factor on queries that grows with the position.
    pub(crate) position_scale: Option<PositionScale>,
    /// The layer whose keys and values are used, if this one has none.
    pub(crate) source: Option<usize>,
}

/// How the projections are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projections {
    /// `q_proj`, `k_proj`, `v_proj`, and a projection of the output with this name.
    Apart { output: &'static str },
    /// One matrix for queries, keys and values, and one for the output.
    Fused { qkv: &'static str, output: &'static str },
    /// Keys are values too, before their norms: there is no `v_proj`.
    KeysAsValues,
}

/// The norms on queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadNorm {
    None,
    /// On each head, under these names.
    Each([&'static str; 2], NormArgs),
    /// On all heads together: `q_norm` and `k_norm`.
    All(NormArgs),
    /// On each head, with a weight of its own for each: `q_norm` and `k_norm`, `[heads, head_dim]`.
    Apart(NormArgs),
}

impl HeadNorm {
    /// Returns norms on each head with the usual names.
    pub(crate) fn each(norm: NormArgs) -> Self {
        Self::Each(["q_norm", "k_norm"], norm)
    }
}

/// Queries at position `p` are multiplied with `1 + beta * ln(1 + floor(p / context))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PositionScale {
    pub(crate) beta: f32,
    pub(crate) context: f32,
}

impl AttentionArgs {
    /// Returns the arguments of the usual attention without positions.
    pub(crate) fn new(hidden_size: i32, n_heads: i32, n_kv_heads: i32, head_dim: i32) -> Self {
        Self {
            hidden_size,
            n_heads,
            n_kv_heads,
            head_dim,
            scale: usual_scale(head_dim),
            rope: None,
            window: None,
            projections: Projections::Apart { output: "o_proj" },
            qkv_bias: false,
            o_bias: false,
            head_norm: HeadNorm::None,
            value_norm: None,
            is_gated: false,
            has_sinks: false,
            softcap: None,
            position_scale: None,
            source: None,
        }
    }

    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { hidden_size, n_heads, n_kv_heads, head_dim, .. } = *self;
        ensure_side("hidden_size", hidden_size)?;
        ensure!(n_heads > 0 && n_kv_heads > 0, "no attention heads");
        ensure!(n_heads % n_kv_heads == 0, "{n_heads} heads do not share {n_kv_heads} key/value heads");
        ensure!(head_dim > 0 && head_dim % 2 == 0, "head_dim is {head_dim}");
        side_of("heads", n_heads, head_dim)?;
        ensure!(self.scale.is_finite(), "attention has scale {}", self.scale);
        ensure!(self.softcap.is_none_or(|cap| cap > 0.0), "attention has the softcap {:?}", self.softcap);
        if let Some(PositionScale { beta, context }) = self.position_scale {
            ensure!(beta.is_finite() && context > 0.0, "queries grow by {beta} after {context} tokens");
        }
        let window = self.window.unwrap_or(1);
        ensure!(window > 0, "sliding_window is {window}");
        let turned = self.rope.as_ref().map_or(2, |rope| rope.dims);
        let can_turn = turned > 1 && turned % 2 == 0 && turned <= head_dim;
        ensure!(can_turn, "{turned} dimensions of heads of {head_dim} are turned");
        Ok(())
    }
}

/// Returns the usual factor on the products of queries and keys, `1 / sqrt(head_dim)`.
pub(crate) fn usual_scale(head_dim: i32) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

pub(crate) struct Attention<R: Runtime> {
    args: AttentionArgs,
    inputs: Inputs<R>,
    output: Linear<R>,
    /// On queries and on keys.
    norms: [Option<Norm<R>>; 2],
    /// The weights of each head, if norms have them.
    head_weights: [Option<R::Tensor>; 2],
    sinks: Option<R::Tensor>,
    rope: Option<R::Rope>,
}

/// The projections to queries, keys and values.
enum Inputs<R: Runtime> {
    Apart([Linear<R>; 3]),
    Fused(Linear<R>),
    /// Values are the keys.
    KeysAsValues([Linear<R>; 2]),
    /// Keys and values are those of another layer.
    Queries(Linear<R>),
}

/// Queries, and keys and values if the layer has them.
type Projected<R> = (<R as Runtime>::Tensor, Option<[<R as Runtime>::Tensor; 2]>);

impl<R: Runtime> Attention<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &AttentionArgs) -> Result<Self> {
        let AttentionArgs { hidden_size, n_heads, n_kv_heads, head_dim, qkv_bias, .. } = *args;
        let kv_dims = n_kv_heads * head_dim;
        let q_dims = n_heads * head_dim;
        let projected = if args.is_gated { side_of("gated heads", n_heads, 2 * head_dim)? } else { q_dims };
        let mut linear = |name: &str, output| {
            Linear::load(weights, &format!("{path}.{name}"), hidden_size, output, qkv_bias)
        };
        let inputs = match args.projections {
            _ if args.source.is_some() => Inputs::Queries(linear("q_proj", projected)?),
            Projections::Apart { .. } => Inputs::Apart([
                linear("q_proj", projected)?,
                linear("k_proj", kv_dims)?,
                linear("v_proj", kv_dims)?,
            ]),
            Projections::KeysAsValues => {
                Inputs::KeysAsValues([linear("q_proj", projected)?, linear("k_proj", kv_dims)?])
            }
            Projections::Fused { qkv, .. } => Inputs::Fused(linear(qkv, q_dims + 2 * kv_dims)?),
        };
        let name = match args.projections {
            Projections::Apart { output } | Projections::Fused { output, .. } => output,
            Projections::KeysAsValues => "o_proj",
        };
        let output = Linear::load(weights, &format!("{path}.{name}"), q_dims, hidden_size, args.o_bias)?;
        let norms = Self::load_norms(weights, path, args)?;
        let mut weight = |name: &str, heads| match args.head_norm {
            HeadNorm::Apart(_) => {
                weights.take(&format!("{path}.{name}.weight"), &[heads, head_dim]).map(Some)
            }
            _ => Ok(None),
        };
        let head_weights = [weight("q_norm", n_heads)?, weight("k_norm", n_kv_heads)?];
        let sinks =
            if args.has_sinks { Some(weights.take(&format!("{path}.sinks"), &[n_heads])?) } else { None };
        let rope = args.rope.as_ref().map(|rope| weights.rope(rope)).transpose()?;
        Ok(Self { args: args.clone(), inputs, output, norms, head_weights, sinks, rope })
    }

    fn load_norms(
        weights: &mut Tensors<'_, R>,
        path: &str,
        args: &AttentionArgs,
    ) -> Result<[Option<Norm<R>>; 2]> {
        let AttentionArgs { n_heads, n_kv_heads, head_dim, .. } = *args;
        let (names, dims, norm) = match args.head_norm {
            HeadNorm::None => return Ok([None, None]),
            HeadNorm::Each(names, norm) => (names, [head_dim; 2], norm),
            HeadNorm::Apart(norm) => {
                let norm = NormArgs { weight: NormWeight::Absent, ..norm };
                (["q_norm", "k_norm"], [head_dim; 2], norm)
            }
            HeadNorm::All(norm) => (["q_norm", "k_norm"], [n_heads, n_kv_heads].map(|n| n * head_dim), norm),
        };
        let mut load = |name: &str, dims| Norm::load(weights, &format!("{path}.{name}"), dims, norm);
        let queries = load(names[0], dims[0])?;
        // A layer without keys has no norm on them.
        let keys = if args.source.is_none() { Some(load(names[1], dims[1])?) } else { None };
        Ok([Some(queries), keys])
    }

    /// Returns queries, and keys and values if this layer has them; not yet cut into heads.
    fn project(&self, runtime: &R, x: &R::Tensor) -> Result<Projected<R>> {
        Ok(match &self.inputs {
            Inputs::Apart([q, k, v]) => {
                let [queries, keys, values] = Linear::forward_all([q, k, v], runtime, x)?;
                (queries, Some([keys, values]))
            }
            Inputs::KeysAsValues([q, k]) => {
                let [queries, keys] = Linear::forward_all([q, k], runtime, x)?;
                (queries, Some([keys.clone(), keys]))
            }
            Inputs::Queries(q) => (q.forward(runtime, x)?, None),
            Inputs::Fused(qkv) => {
                let all = qkv.forward(runtime, x)?;
                let (q, kv) =
                    (self.args.n_heads * self.args.head_dim, self.args.n_kv_heads * self.args.head_dim);
                let keys = runtime.columns(&all, q..q + kv)?;
                let values = runtime.columns(&all, q + kv..q + 2 * kv)?;
                (runtime.columns(&all, 0..q)?, Some([keys, values]))
            }
        })
    }

    /// Cuts into heads, and normalizes: queries have the number 0, keys 1.
    fn cut(&self, runtime: &R, x: &R::Tensor, number: usize) -> Result<R::Tensor> {
        let heads = [self.args.n_heads, self.args.n_kv_heads][number];
        match (self.args.head_norm, &self.norms[number]) {
            (HeadNorm::All(_), Some(norm)) => runtime.heads(&norm.forward(runtime, x)?, heads),
            (_, Some(norm)) => {
                let normed = norm.forward(runtime, &runtime.heads(x, heads)?)?;
                let weight = self.head_weights[number].as_ref();
                weight.map_or(Ok(normed.clone()), |weight| runtime.multiply(&normed, weight))
            }
            _ => runtime.heads(x, heads),
        }
    }

    /// Returns queries in heads, and the inputs of their gates.
    fn queries(&self, runtime: &R, projected: &R::Tensor) -> Result<(R::Tensor, Option<R::Tensor>)> {
        if !self.args.is_gated {
            return Ok((self.cut(runtime, projected, 0)?, None));
        }
        let both = runtime.heads(projected, self.args.n_heads)?;
        let dims = self.args.head_dim;
        let gate = runtime.flat(&runtime.columns(&both, dims..2 * dims)?)?;
        let queries = runtime.flat(&runtime.columns(&both, 0..dims)?)?;
        Ok((self.cut(runtime, &queries, 0)?, Some(gate)))
    }

    /// Returns the factors of `tokens` positions after `seen` others, `[tokens, 1]`.
    fn factors(&self, pass: &Pass<'_, R>, scale: PositionScale) -> Result<R::Tensor> {
        let factor = |position: i32| {
            1.0 + scale.beta * libm::logf(1.0 + libm::floorf(position as f32 / scale.context))
        };
        let last = pass.seen.checked_add(pass.tokens).context("there are too many tokens")?;
        pass.runtime.tensor((pass.seen..last).map(factor).collect(), 1)
    }
}

impl<R: Runtime> Module<R> for Attention<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let (runtime, args) = (pass.runtime, &self.args);
        let (projected, own) = self.project(runtime, x)?;
        let (mut queries, gate) = self.queries(runtime, &projected)?;
        if let Some(scale) = args.position_scale {
            queries = runtime.multiply_tokens(&queries, &self.factors(pass, scale)?)?;
        }
        let own = match own {
            Some([keys, values]) => {
                let mut values = runtime.heads(&values, args.n_kv_heads)?;
                if let Some(eps) = args.value_norm {
                    values = runtime.rms_norm(&values, None, eps)?;
                }
                Some([self.cut(runtime, &keys, 1)?, values])
            }
            None => None,
        };
        let heads = Heads { queries: &queries, own: own.as_ref() };
        let options = AttentionOptions {
            scale: args.scale,
            rope: self.rope.as_ref(),
            sinks: self.sinks.as_ref(),
            softcap: args.softcap,
        };
        let (mask, cache) = pass.mask_and_cache(args.window, args.source)?;
        let output = runtime.attention(&heads, &options, mask, cache)?;
        let output = match gate {
            Some(gate) => runtime.multiply(&output, &runtime.sigmoid(&gate)?)?,
            None => output,
        };
        self.output.forward(runtime, &output)
    }
}
