//! The `gemma3_text` architecture, as in mlx-lm's `gemma3_text.py`.
//! Knows neither files nor the text of tokens.
//!
//! Most layers see only a sliding window, and have a rope base of their own. Norms come before and after both
//! attention and the feed-forward layer.

use anyhow::{Result, ensure};
use mlx_rs::{Array, Dtype, ops};
use serde::Deserialize;

use super::activations::geglu;
use super::attention::{Attention, AttentionArgs};
use super::cache::Cache;
use super::config::{Config, ModelArgs};
use super::decoder::{Block, Decoder, DecoderArgs, Layer};
use super::mask::Mask;
use super::mlp::{FeedForward, Mlp, MlpArgs};
use super::norm::{NormArgs, RmsNorm};
use super::rope::Rope;
use super::rope_scaling::{RopeArgs, RopeScaling};
use super::tensors::Tensors;

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
        MlpArgs { hidden_size, intermediate_size, bias: false, activation: geglu }
    }

    /// Returns the rope of the layers that see all tokens.
    fn rope(&self) -> RopeArgs<'_> {
        RopeArgs {
            dims: self.head_dim,
            base: self.rope_theta,
            traditional: false,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: Some(self.max_position_embeddings),
        }
    }

    /// Returns the rope of the layers that see a window.
    fn local_rope(&self) -> RopeArgs<'_> {
        RopeArgs { base: self.rope_local_base_freq, scaling: None, ..self.rope() }
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
            embedding_scale: Some((self.hidden_size as f32).sqrt()),
            window: Some(self.sliding_window),
            tied,
        }
    }
}

struct TransformerBlock {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
}

impl TransformerBlock {
    fn load(weights: &mut Tensors, path: &str, args: &Args, rope: &Rope) -> Result<Self> {
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

impl Block for TransformerBlock {
    fn forward(&self, x: &Array, mask: &Mask, cache: &mut Cache) -> Result<Array> {
        let r = self.self_attn.forward(&self.input_layernorm.forward(x)?, mask, cache)?;
        let h = clip_residual(x, &self.post_attention_layernorm.forward(&r)?)?;
        let r = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&h)?)?;
        clip_residual(&h, &self.post_feedforward_layernorm.forward(&r)?)
    }
}

/// Returns the sum of `x` and `y`. A float16 sum is clipped so that it stays finite, because Gemma's
/// activations exceed the range of float16.
fn clip_residual(x: &Array, y: &Array) -> Result<Array> {
    if x.dtype() != Dtype::Float16 {
        return Ok(x.add(y)?);
    }
    let bound = half::f16::MAX.to_f32();
    let sum = x.as_dtype(Dtype::Float32)?.add(y.as_dtype(Dtype::Float32)?)?;
    let clipped = ops::clip(sum, (Array::from_f32(-bound), Array::from_f32(bound)))?;
    Ok(clipped.as_dtype(Dtype::Float16)?)
}

pub(super) fn load(config: &Config, weights: &mut Tensors) -> Result<Decoder> {
    let args: Args = config.args()?;
    let (rope, local_rope) = (config.rope(&args.rope())?, config.rope(&args.local_rope())?);
    let decoder = args.decoder(config.is_tied());
    Decoder::load(weights, &decoder, |weights, index, path| {
        let is_sliding = args.is_sliding(index);
        let rope = if is_sliding { &local_rope } else { &rope };
        Ok(Layer { block: Box::new(TransformerBlock::load(weights, path, &args, rope)?), is_sliding })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_float16_is_clipped() {
        let large = Array::from_f32(60_000.0).as_dtype(Dtype::Float16).unwrap();
        let sum = clip_residual(&large, &large).unwrap();
        assert_eq!(sum.dtype(), Dtype::Float16);
        assert_eq!(sum.as_dtype(Dtype::Float32).unwrap().item_exact::<f32>(), 65_504.0);
    }
}
