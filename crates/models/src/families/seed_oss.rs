//! The `seed_oss` architecture, as in mlx-lm's `seed_oss.py`: Llama with a bias of its own on the output of attention.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use crate::attention::{AttentionArgs, usual_scale};
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
    num_key_value_heads: i32,
    head_dim: i32,
    max_position_embeddings: Option<i32>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    attention_out_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_rope_theta")]
    rope_theta: f32,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<RopeScaling>,
}

fn default_rope_theta() -> f32 {
    10_000.0
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(false).check()?;
        self.attention().check()?;
        self.mlp().check()
    }
}

impl Args {
    fn attention(&self) -> AttentionArgs {
        AttentionArgs {
            hidden_size: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: usual_scale(self.head_dim),
            qkv_bias: self.attention_bias,
            o_bias: self.attention_out_bias,
            head_norm: None,
        }
    }

    fn mlp(&self) -> MlpArgs {
        let (hidden_size, intermediate_size) = (self.hidden_size, self.intermediate_size);
        MlpArgs { hidden_size, intermediate_size, bias: self.mlp_bias, activation: Activation::Swiglu }
    }

    fn rope(&self) -> RopeConfig<'_> {
        RopeConfig {
            dims: self.head_dim,
            base: self.rope_theta,
            traditional: self.rope_traditional,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    fn decoder(&self, tied: bool) -> DecoderArgs {
        DecoderArgs {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            norm: NormArgs { eps: self.rms_norm_eps, weight_offset: false },
            embedding_scale: None,
            logit_scale: None,
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
        Ok(Layer { block: Box::new(block), is_sliding: false })
    })
}
