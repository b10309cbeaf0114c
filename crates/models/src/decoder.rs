//! The decoder that all supported architectures share: an embedding, blocks, a norm, a head.
//! Does not know which architecture it is.

use anyhow::{Result, ensure};

use super::attention::{Attention, AttentionArgs};
use super::embedding::Embedding;
use super::linear::Linear;
use super::mlp::FeedForward;
use super::norm::{NormArgs, RmsNorm};
use super::runtime::Runtime;
use super::tensors::Tensors;

/// The arguments of a decoder, apart from those of its blocks.
pub(crate) struct DecoderArgs {
    pub(crate) vocab_size: i32,
    pub(crate) hidden_size: i32,
    pub(crate) num_hidden_layers: usize,
    pub(crate) norm: NormArgs,
    /// A factor on the embedded tokens.
    pub(crate) embedding_scale: Option<f32>,
    /// A factor on the logits.
    pub(crate) logit_scale: Option<f32>,
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
pub(crate) trait Block<R: Runtime> {
    /// Maps `[tokens, hidden_size]` to the same shape.
    fn forward(&self, runtime: &R, x: &R::Tensor, mask: &R::Mask, cache: &mut R::Cache) -> Result<R::Tensor>;
}

/// A block, and whether it sees only a sliding window.
pub(crate) struct Layer<R: Runtime> {
    pub(crate) block: Box<dyn Block<R>>,
    pub(crate) is_sliding: bool,
}

pub(crate) struct Decoder<R: Runtime> {
    embed_tokens: Embedding<R>,
    embedding_scale: Option<f32>,
    logit_scale: Option<f32>,
    layers: Vec<Layer<R>>,
    norm: RmsNorm<R>,
    lm_head: Option<Linear<R>>,
    vocab_size: i32,
    window: Option<i32>,
}

impl<R: Runtime> Decoder<R> {
    /// Loads a decoder. `layer` loads one layer, given its number and its path.
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        args: &DecoderArgs,
        mut layer: impl FnMut(&mut Tensors<'_, R>, usize, &str) -> Result<Layer<R>>,
    ) -> Result<Self> {
        let (dims, vocab_size) = (args.hidden_size, args.vocab_size);
        let embed_tokens = Embedding::load(weights, "model.embed_tokens", vocab_size, dims)?;
        let layers = (0..args.num_hidden_layers)
            .map(|index| layer(weights, index, &format!("model.layers.{index}")))
            .collect::<Result<_>>()?;
        let norm = RmsNorm::load(weights, "model.norm", dims, args.norm)?;
        let lm_head =
            if args.tied { None } else { Some(Linear::load(weights, "lm_head", dims, vocab_size, false)?) };
        let DecoderArgs { embedding_scale, logit_scale, window, .. } = *args;
        Ok(Self { embed_tokens, embedding_scale, logit_scale, layers, norm, lm_head, vocab_size, window })
    }

    /// Maps `count` token ids to what the last layer makes of them, `[tokens, hidden_size]`.
    pub(crate) fn hidden(
        &self,
        runtime: &R,
        tokens: &R::Tokens,
        count: i32,
        caches: &mut [R::Cache],
    ) -> Result<R::Tensor> {
        let embedded = self.embed_tokens.forward(runtime, tokens)?;
        let mut h = match self.embedding_scale {
            Some(scale) => runtime.scaled(&embedded, scale)?,
            None => embedded,
        };
        // All caches have seen the same tokens, so the first one tells how many.
        let seen = caches.first().map_or(0, |cache| runtime.seen(cache));
        let causal = runtime.mask(count, seen, None)?;
        let sliding = self.window.map(|window| runtime.mask(count, seen, Some(window))).transpose()?;
        for (layer, cache) in self.layers.iter().zip(caches) {
            let mask = sliding.as_ref().filter(|_| layer.is_sliding).unwrap_or(&causal);
            h = layer.block.forward(runtime, &h, mask, cache)?;
        }
        Ok(h)
    }

    /// Maps what the last layer makes to logits `[tokens, vocab_size]`.
    pub(crate) fn logits(&self, runtime: &R, hidden: &R::Tensor) -> Result<R::Tensor> {
        let h = self.norm.forward(runtime, hidden)?;
        let logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(runtime, &h)?,
            None => self.embed_tokens.as_linear(runtime, &h)?,
        };
        match self.logit_scale {
            Some(scale) => runtime.scaled(&logits, scale),
            None => Ok(logits),
        }
    }

    /// Returns an empty cache for each layer.
    pub(crate) fn caches(&self, runtime: &R) -> Vec<R::Cache> {
        let window = |layer: &Layer<R>| self.window.filter(|_| layer.is_sliding);
        self.layers.iter().map(|layer| runtime.cache(window(layer))).collect()
    }

    pub(crate) fn vocab_size(&self) -> i32 {
        self.vocab_size
    }

    pub(crate) fn activation_dtype(&self, runtime: &R) -> String {
        self.embed_tokens.activation_dtype(runtime)
    }
}

/// The block of most architectures: a norm before attention, and one before the feed-forward layer.
pub(crate) struct TransformerBlock<R: Runtime> {
    self_attn: Attention<R>,
    mlp: Box<dyn FeedForward<R>>,
    input_layernorm: RmsNorm<R>,
    post_attention_layernorm: RmsNorm<R>,
    /// A factor on what attention and the feed-forward layer add.
    residual_scale: Option<f32>,
}

impl<R: Runtime> TransformerBlock<R> {
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        (attention, rope): (&AttentionArgs, &R::Rope),
        norm: NormArgs,
        mlp: Box<dyn FeedForward<R>>,
    ) -> Result<Self> {
        let dims = attention.hidden_size;
        let mut load = |name: &str| RmsNorm::load(weights, &format!("{path}.{name}"), dims, norm);
        Ok(Self {
            input_layernorm: load("input_layernorm")?,
            post_attention_layernorm: load("post_attention_layernorm")?,
            self_attn: Attention::load(weights, &format!("{path}.self_attn"), attention, rope)?,
            mlp,
            residual_scale: None,
        })
    }

    /// Sets a factor on what attention and the feed-forward layer add.
    #[must_use]
    pub(crate) fn with_residual_scale(self, scale: f32) -> Self {
        Self { residual_scale: Some(scale), ..self }
    }

    fn added(&self, runtime: &R, x: &R::Tensor, made: &R::Tensor) -> Result<R::Tensor> {
        match self.residual_scale {
            Some(scale) => runtime.add(x, &runtime.scaled(made, scale)?),
            None => runtime.add(x, made),
        }
    }
}

impl<R: Runtime> Block<R> for TransformerBlock<R> {
    fn forward(&self, runtime: &R, x: &R::Tensor, mask: &R::Mask, cache: &mut R::Cache) -> Result<R::Tensor> {
        let normed = self.input_layernorm.forward(runtime, x)?;
        let h = self.added(runtime, x, &self.self_attn.forward(runtime, &normed, mask, cache)?)?;
        let normed = self.post_attention_layernorm.forward(runtime, &h)?;
        self.added(runtime, &h, &self.mlp.forward(runtime, &normed)?)
    }
}
