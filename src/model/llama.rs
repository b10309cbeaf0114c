//! The `llama` architecture (Llama 2 and 3, and many that share it): names and order are those of
//! mlx-lm's `llama.py`, without its sliding windows.
//! Knows neither files nor tokens' text.

use anyhow::{Context, Result, ensure};
use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::{Array, Dtype};
use serde::Deserialize;

use super::activations::swiglu;
use super::cache::KVCache;
use super::config::Config;
use super::embedding::Embedding;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rope::{Rope, RopeScaling};
use super::weights::Weights;

#[derive(Deserialize)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    head_dim: Option<i32>,
    num_key_value_heads: Option<i32>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_rope_theta")]
    rope_theta: f32,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<RopeScaling>,
    #[serde(default = "default_tie_word_embeddings")]
    tie_word_embeddings: bool,
    #[serde(default)]
    layer_types: Vec<String>,
}

fn default_rope_theta() -> f32 {
    10_000.0
}

fn default_tie_word_embeddings() -> bool {
    true
}

impl Args {
    fn n_kv_heads(&self) -> i32 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_dim(&self) -> i32 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    fn check(&self) -> Result<()> {
        let (heads, kv_heads) = (self.num_attention_heads, self.n_kv_heads());
        ensure!(heads > 0 && kv_heads > 0, "no attention heads");
        ensure!(heads % kv_heads == 0, "{heads} heads do not share {kv_heads} key/value heads");
        let windows = self.layer_types.iter().any(|kind| kind != "full_attention");
        ensure!(!windows, "layer_types other than \"full_attention\" are not supported");
        Ok(())
    }
}

struct Attention {
    n_heads: i32,
    n_kv_heads: i32,
    scale: f32,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    rope: Rope,
}

impl Attention {
    fn load(weights: &mut Weights, path: &str, args: &Args) -> Result<Self> {
        let (n_heads, n_kv_heads) = (args.num_attention_heads, args.n_kv_heads());
        let (dim, head_dim) = (args.hidden_size, args.head_dim());
        let mut linear = |name: &str, input, output| {
            Linear::load(weights, &format!("{path}.{name}"), input, output, args.attention_bias)
        };
        Ok(Self {
            n_heads,
            n_kv_heads,
            scale: 1.0 / (head_dim as f32).sqrt(),
            q_proj: linear("q_proj", dim, n_heads * head_dim)?,
            k_proj: linear("k_proj", dim, n_kv_heads * head_dim)?,
            v_proj: linear("v_proj", dim, n_kv_heads * head_dim)?,
            o_proj: linear("o_proj", n_heads * head_dim, dim)?,
            rope: Rope::new(head_dim, args.rope_theta, args.rope_traditional, args.rope_scaling.as_ref())?,
        })
    }

    fn forward(&self, x: &Array, cache: &mut KVCache) -> Result<Array> {
        let (batch, tokens) = (x.dim(0), x.dim(1));
        let split = |projected: Array, heads: i32| {
            projected.reshape(&[batch, tokens, heads, -1])?.transpose_axes(&[0, 2, 1, 3])
        };
        let queries = split(self.q_proj.forward(x)?, self.n_heads)?;
        let keys = split(self.k_proj.forward(x)?, self.n_kv_heads)?;
        let values = split(self.v_proj.forward(x)?, self.n_kv_heads)?;

        let queries = self.rope.forward(&queries, cache.offset())?;
        let keys = self.rope.forward(&keys, cache.offset())?;
        let [keys, values] = cache.update_and_fetch(keys, values)?;

        // One new token may look at all before it; several must not look ahead.
        let mask = (tokens > 1).then_some(ScaledDotProductAttentionMask::Causal);
        let output = fast::scaled_dot_product_attention(queries, keys, values, self.scale, mask, None)?;
        let output = output.transpose_axes(&[0, 2, 1, 3])?.reshape(&[batch, tokens, -1])?;
        self.o_proj.forward(&output)
    }
}

struct Mlp {
    gate_proj: Linear,
    down_proj: Linear,
    up_proj: Linear,
}

impl Mlp {
    fn load(weights: &mut Weights, path: &str, args: &Args) -> Result<Self> {
        let (dim, hidden_dim) = (args.hidden_size, args.intermediate_size);
        let mut linear = |name: &str, input, output| {
            Linear::load(weights, &format!("{path}.{name}"), input, output, args.mlp_bias)
        };
        Ok(Self {
            gate_proj: linear("gate_proj", dim, hidden_dim)?,
            down_proj: linear("down_proj", hidden_dim, dim)?,
            up_proj: linear("up_proj", dim, hidden_dim)?,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        self.down_proj.forward(&swiglu(&self.gate_proj.forward(x)?, &self.up_proj.forward(x)?)?)
    }
}

struct TransformerBlock {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

impl TransformerBlock {
    fn load(weights: &mut Weights, path: &str, args: &Args) -> Result<Self> {
        let mut norm = |name: &str| {
            RmsNorm::load(weights, &format!("{path}.{name}"), args.hidden_size, args.rms_norm_eps)
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            self_attn: Attention::load(weights, &format!("{path}.self_attn"), args)?,
            mlp: Mlp::load(weights, &format!("{path}.mlp"), args)?,
        })
    }

    fn forward(&self, x: &Array, cache: &mut KVCache) -> Result<Array> {
        let h = x.add(self.self_attn.forward(&self.input_layernorm.forward(x)?, cache)?)?;
        Ok(h.add(self.mlp.forward(&self.post_attention_layernorm.forward(&h)?)?)?)
    }
}

struct LlamaModel {
    embed_tokens: Embedding,
    layers: Vec<TransformerBlock>,
    norm: RmsNorm,
}

impl LlamaModel {
    fn load(weights: &mut Weights, args: &Args) -> Result<Self> {
        let dim = args.hidden_size;
        let embed_tokens = Embedding::load(weights, "model.embed_tokens", args.vocab_size, dim)?;
        let layers = (0..args.num_hidden_layers)
            .map(|i| TransformerBlock::load(weights, &format!("model.layers.{i}"), args))
            .collect::<Result<_>>()?;
        let norm = RmsNorm::load(weights, "model.norm", dim, args.rms_norm_eps)?;
        Ok(Self { embed_tokens, layers, norm })
    }

    fn forward(&self, tokens: &Array, caches: &mut [KVCache]) -> Result<Array> {
        let mut h = self.embed_tokens.forward(tokens)?;
        for (layer, cache) in self.layers.iter().zip(caches) {
            h = layer.forward(&h, cache)?;
        }
        self.norm.forward(&h)
    }
}

/// A Llama model with its output head, which is the embedding itself when tied.
pub struct Model {
    model: LlamaModel,
    lm_head: Option<Linear>,
    vocab_size: i32,
}

impl Model {
    pub(crate) fn load(config: &Config, mut weights: Weights) -> Result<Self> {
        let args: Args = config.args()?;
        args.check().with_context(|| config.path().display().to_string())?;
        let model = LlamaModel::load(&mut weights, &args)?;
        let tied = args.tie_word_embeddings;
        let vocab_size = args.vocab_size;
        let lm_head = if tied {
            None
        } else {
            Some(Linear::load(&mut weights, "lm_head", args.hidden_size, vocab_size, false)?)
        };
        weights
            .finish(|name| name.contains("rotary_emb.inv_freq") || tied && name.starts_with("lm_head."))?;
        Ok(Self { model, lm_head, vocab_size })
    }

    /// Maps token ids `[batch, tokens]` to logits `[batch, tokens, vocab_size]`.
    pub(crate) fn forward(&self, tokens: &Array, caches: &mut [KVCache]) -> Result<Array> {
        let out = self.model.forward(tokens, caches)?;
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(&out),
            None => self.model.embed_tokens.as_linear(&out),
        }
    }

    pub(crate) fn num_layers(&self) -> usize {
        self.model.layers.len()
    }

    pub(crate) fn vocab_size(&self) -> i32 {
        self.vocab_size
    }

    pub(crate) fn activation_dtype(&self) -> Dtype {
        self.model.embed_tokens.dtype()
    }
}
