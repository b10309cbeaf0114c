//! The decoder that all supported architectures share: an embedding, blocks, a norm, a head.
//! Does not know which architecture it is.

use anyhow::{Result, ensure};
use mlx_rs::{Array, Dtype};

use super::activations::scaled;
use super::attention::{Attention, AttentionArgs};
use super::cache::Cache;
use super::embedding::Embedding;
use super::linear::Linear;
use super::mask::Mask;
use super::mlp::FeedForward;
use super::norm::{NormArgs, RmsNorm};
use super::rope::Rope;
use super::tensors::Tensors;

/// The arguments of a decoder, apart from those of its blocks.
pub(crate) struct DecoderArgs {
    pub(crate) vocab_size: i32,
    pub(crate) hidden_size: i32,
    pub(crate) num_hidden_layers: usize,
    pub(crate) norm: NormArgs,
    /// A factor on the embedded tokens. It is rounded to bfloat16 first.
    pub(crate) embedding_scale: Option<f32>,
    /// How many tokens a sliding layer sees.
    pub(crate) window: Option<i32>,
    /// Whether the embedding is also the output head.
    pub(crate) tied: bool,
}

impl DecoderArgs {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.vocab_size > 0, "vocab_size is {}", self.vocab_size);
        let window = self.window.unwrap_or(1);
        ensure!(window > 0, "sliding_window is {window}");
        Ok(())
    }
}

/// One layer of a decoder: attention and what follows it.
pub(crate) trait Block {
    /// Maps `[batch, tokens, hidden_size]` to the same shape.
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array>;
}

/// A block, and whether it sees only a sliding window.
pub(crate) struct Layer {
    pub(crate) block: Box<dyn Block>,
    pub(crate) is_sliding: bool,
}

pub(crate) struct Decoder {
    embed_tokens: Embedding,
    embedding_scale: Option<f32>,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Option<Linear>,
    vocab_size: i32,
    window: Option<i32>,
}

impl Decoder {
    /// Loads a decoder. `layer` loads one layer, given its number and its path.
    pub(crate) fn load(
        weights: &mut Tensors,
        args: &DecoderArgs,
        mut layer: impl FnMut(&mut Tensors, usize, &str) -> Result<Layer>,
    ) -> Result<Self> {
        let (dims, vocab_size) = (args.hidden_size, args.vocab_size);
        let embed_tokens = Embedding::load(weights, "model.embed_tokens", vocab_size, dims)?;
        let layers = (0..args.num_hidden_layers)
            .map(|index| layer(weights, index, &format!("model.layers.{index}")))
            .collect::<Result<_>>()?;
        let norm = RmsNorm::load(weights, "model.norm", dims, args.norm)?;
        let lm_head =
            if args.tied { None } else { Some(Linear::load(weights, "lm_head", dims, vocab_size, false)?) };
        let embedding_scale = args.embedding_scale.map(|scale| half::bf16::from_f32(scale).to_f32());
        Ok(Self { embed_tokens, embedding_scale, layers, norm, lm_head, vocab_size, window: args.window })
    }

    /// Maps token ids `[batch, tokens]` to logits `[batch, tokens, vocab_size]`.
    pub(crate) fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> Result<Array> {
        let mut h = self.embed_tokens.forward(tokens)?;
        if let Some(scale) = self.embedding_scale {
            h = scaled(&h, scale)?;
        }
        let causal = Mask::causal(tokens.dim(1));
        // All caches have seen the same tokens, so the first one tells the offset.
        let sliding = match (self.window, caches.first()) {
            (Some(window), Some(cache)) => Mask::sliding(tokens.dim(1), cache.offset(), window)?,
            _ => Mask::Open,
        };
        for (layer, cache) in self.layers.iter().zip(caches) {
            let mask = if layer.is_sliding { &sliding } else { &causal };
            h = layer.block.forward(&h, mask, cache)?;
        }
        let h = self.norm.forward(&h)?;
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(&h),
            None => self.embed_tokens.as_linear(&h),
        }
    }

    /// Returns an empty cache for each layer.
    pub(crate) fn caches(&self) -> Vec<Cache> {
        self.layers.iter().map(|layer| Cache::new(self.window.filter(|_| layer.is_sliding))).collect()
    }

    pub(crate) fn vocab_size(&self) -> i32 {
        self.vocab_size
    }

    pub(crate) fn activation_dtype(&self) -> Dtype {
        self.embed_tokens.dtype()
    }
}

/// The block of most architectures: a norm before attention, and one before the feed-forward layer.
pub(crate) struct TransformerBlock {
    self_attn: Attention,
    mlp: Box<dyn FeedForward>,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

impl TransformerBlock {
    pub(crate) fn load(
        weights: &mut Tensors,
        path: &str,
        (attention, rope): (&AttentionArgs, &Rope),
        norm: NormArgs,
        mlp: Box<dyn FeedForward>,
    ) -> Result<Self> {
        let dims = attention.hidden_size;
        let mut load = |name: &str| RmsNorm::load(weights, &format!("{path}.{name}"), dims, norm);
        Ok(Self {
            input_layernorm: load("input_layernorm")?,
            post_attention_layernorm: load("post_attention_layernorm")?,
            self_attn: Attention::load(weights, &format!("{path}.self_attn"), attention, rope)?,
            mlp,
        })
    }
}

impl Block for TransformerBlock {
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        let r = self.self_attn.forward(&self.input_layernorm.forward(x)?, mask, cache)?;
        let h = x.add(r)?;
        let r = self.mlp.forward(&self.post_attention_layernorm.forward(&h)?)?;
        Ok(h.add(r)?)
    }
}
