//! The `gemma3_text` architecture, as in mlx-lm's `gemma3_text.py`.
//! Knows neither files nor the text of tokens.
//!
//! Most layers see only a sliding window, and have a rope base of their own. Norms come before and after both
//! attention and the feed-forward layer.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::attention::{Attention, AttentionArgs};
use crate::config::{Config, ModelArgs};
use crate::decoder::{Block, Decoder, DecoderArgs, Layer};
use crate::mlp::{FeedForward, Mlp, MlpArgs};
use crate::norm::{NormArgs, RmsNorm};
use crate::rope_scaling::{RopeConfig, RopeScaling};
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

/// The defaults are those of the 1B model, whose config omits most of the keys.
#[derive(Deserialize)]
#[serde(default)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    head_dim: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    num_key_value_heads: i32,
    rope_theta: f32,
    rope_local_base_freq: f32,
    query_pre_attn_scalar: f32,
    sliding_window: i32,
    sliding_window_pattern: usize,
    max_position_embeddings: i32,
    rope_scaling: Option<RopeScaling>,
    layer_types: Option<Vec<String>>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            hidden_size: 1152,
            num_hidden_layers: 26,
            intermediate_size: 6912,
            num_attention_heads: 4,
            head_dim: 256,
            rms_norm_eps: 1e-6,
            vocab_size: 262_144,
            num_key_value_heads: 1,
            rope_theta: 1_000_000.0,
            rope_local_base_freq: 10_000.0,
            query_pre_attn_scalar: 256.0,
            sliding_window: 512,
            sliding_window_pattern: 6,
            max_position_embeddings: 32_768,
            rope_scaling: None,
            layer_types: None,
        }
    }
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(true).check()?;
        self.attention().check()?;
        self.mlp().check()?;
        ensure!(self.sliding_window_pattern > 0, "sliding_window_pattern is 0");
        // `layer_types` is the newer spelling of the pattern. mlx-lm does not read it, so both must agree.
        for (layer, kind) in self.layer_types.iter().flatten().enumerate() {
            let same = (kind == "sliding_attention") == self.is_sliding(layer);
            let pattern = self.sliding_window_pattern;
            ensure!(
                same,
                "layer {layer} is {kind} in layer_types, but not by sliding_window_pattern {pattern}"
            );
        }
        Ok(())
    }
}

impl Args {
    fn attention(&self) -> AttentionArgs {
        AttentionArgs {
            hidden_size: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: 1.0 / self.query_pre_attn_scalar.sqrt(),
            qkv_bias: false,
            o_bias: false,
            head_norm: Some(self.norm()),
        }
    }

    fn mlp(&self) -> MlpArgs {
        let (hidden_size, intermediate_size) = (self.hidden_size, self.intermediate_size);
        MlpArgs { hidden_size, intermediate_size, bias: false, activation: Activation::Geglu }
    }

    /// Returns the rope of the layers that see all tokens.
    fn rope(&self) -> RopeConfig<'_> {
        RopeConfig {
            dims: self.head_dim,
            base: self.rope_theta,
            traditional: false,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: Some(self.max_position_embeddings),
        }
    }

    /// Returns the rope of the layers that see a window.
    fn local_rope(&self) -> RopeConfig<'_> {
        RopeConfig { base: self.rope_local_base_freq, scaling: None, ..self.rope() }
    }

    fn norm(&self) -> NormArgs {
        NormArgs { eps: self.rms_norm_eps, weight_offset: true }
    }

    fn is_sliding(&self, layer: usize) -> bool {
        !(layer + 1).is_multiple_of(self.sliding_window_pattern)
    }

    fn decoder(&self, tied: bool) -> DecoderArgs {
        DecoderArgs {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            norm: self.norm(),
            // Rounded to bfloat16, as in mlx-lm.
            embedding_scale: Some(half::bf16::from_f32((self.hidden_size as f32).sqrt()).to_f32()),
            logit_scale: None,
            window: Some(self.sliding_window),
            tied,
        }
    }
}

struct TransformerBlock<R: Runtime> {
    self_attn: Attention<R>,
    mlp: Mlp<R>,
    input_layernorm: RmsNorm<R>,
    post_attention_layernorm: RmsNorm<R>,
    pre_feedforward_layernorm: RmsNorm<R>,
    post_feedforward_layernorm: RmsNorm<R>,
}

impl<R: Runtime> TransformerBlock<R> {
    fn load(weights: &mut Tensors<'_, R>, path: &str, args: &Args, rope: &R::Rope) -> Result<Self> {
        let mut norm =
            |name: &str| RmsNorm::load(weights, &format!("{path}.{name}"), args.hidden_size, args.norm());
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            self_attn: Attention::load(weights, &format!("{path}.self_attn"), &args.attention(), rope)?,
            mlp: Mlp::load(weights, &format!("{path}.mlp"), &args.mlp())?,
        })
    }
}

impl<R: Runtime> Block<R> for TransformerBlock<R> {
    fn forward(&self, runtime: &R, x: &R::Tensor, mask: &R::Mask, cache: &mut R::Cache) -> Result<R::Tensor> {
        let r = self.self_attn.forward(runtime, &self.input_layernorm.forward(runtime, x)?, mask, cache)?;
        // Gemma's activations exceed the range of float16.
        let h = runtime.add_clipped(x, &self.post_attention_layernorm.forward(runtime, &r)?)?;
        let r = self.mlp.forward(runtime, &self.pre_feedforward_layernorm.forward(runtime, &h)?)?;
        runtime.add_clipped(&h, &self.post_feedforward_layernorm.forward(runtime, &r)?)
    }
}

pub(super) fn load<R: Runtime>(config: &Config, weights: &mut Tensors<'_, R>) -> Result<Decoder<R>> {
    let args: Args = config.args()?;
    let (rope, local_rope) =
        (config.rope(weights.runtime(), &args.rope())?, config.rope(weights.runtime(), &args.local_rope())?);
    let decoder = args.decoder(config.is_tied());
    Decoder::load(weights, &decoder, |weights, index, path| {
        let is_sliding = args.is_sliding(index);
        let rope = if is_sliding { &local_rope } else { &rope };
        Ok(Layer { block: Box::new(TransformerBlock::load(weights, path, &args, rope)?), is_sliding })
    })
}
