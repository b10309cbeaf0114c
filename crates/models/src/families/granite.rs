//! The `granite` architecture, as in mlx-lm's `granite.py`: Llama with factors on the embedding, on the products of
//! queries and keys, on what each layer adds, and on the logits.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::attention::AttentionArgs;
use crate::config::{Config, ModelArgs};
use crate::decoder::{Decoder, DecoderArgs, Layer, TransformerBlock};
use crate::mlp::{Mlp, MlpArgs};
use crate::norm::NormArgs;
use crate::rope_scaling::{RopeConfig, RopeScaling};
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

#[derive(Deserialize)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    logits_scaling: f32,
    attention_multiplier: f32,
    embedding_multiplier: f32,
    residual_multiplier: f32,
    max_position_embeddings: i32,
    num_key_value_heads: i32,
    attention_bias: bool,
    mlp_bias: bool,
    rope_theta: f32,
    rope_scaling: Option<RopeScaling>,
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(false).check()?;
        self.attention().check()?;
        self.mlp().check()?;
        let factors = [self.logits_scaling, self.embedding_multiplier, self.residual_multiplier];
        ensure!(factors.iter().all(|factor| factor.is_finite()), "a factor is not a number: {factors:?}");
        ensure!(self.logits_scaling != 0.0, "logits_scaling is 0");
        Ok(())
    }
}

impl Args {
    fn attention(&self) -> AttentionArgs {
        AttentionArgs {
            hidden_size: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.hidden_size.checked_div(self.num_attention_heads).unwrap_or_default(),
            scale: self.attention_multiplier,
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            head_norm: None,
        }
    }

    fn mlp(&self) -> MlpArgs {
        let (hidden_size, intermediate_size) = (self.hidden_size, self.intermediate_size);
        MlpArgs { hidden_size, intermediate_size, bias: self.mlp_bias, activation: Activation::Swiglu }
    }

    fn rope(&self) -> RopeConfig<'_> {
        RopeConfig {
            dims: self.attention().head_dim,
            base: self.rope_theta,
            traditional: false,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: Some(self.max_position_embeddings),
        }
    }

    fn decoder(&self, tied: bool) -> DecoderArgs {
        DecoderArgs {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            norm: NormArgs { eps: self.rms_norm_eps, weight_offset: false },
            embedding_scale: Some(self.embedding_multiplier),
            logit_scale: Some(1.0 / self.logits_scaling),
            window: None,
            tied,
        }
    }
}

pub(super) fn load<R: Runtime>(config: &Config, weights: &mut Tensors<'_, R>) -> Result<Decoder<R>> {
    let args: Args = config.args()?;
    let (attention, mlp, decoder) = (args.attention(), args.mlp(), args.decoder(config.is_tied()));
    let rope = config.rope(weights.runtime(), &args.rope())?;
    Decoder::load(weights, &decoder, |weights, _, path| {
        let mlp = Box::new(Mlp::load(weights, &format!("{path}.mlp"), &mlp)?);
        let block = TransformerBlock::load(weights, path, (&attention, &rope), decoder.norm, mlp)?;
        let block = block.with_residual_scale(args.residual_multiplier);
        Ok(Layer { block: Box::new(block), is_sliding: false })
    })
}
