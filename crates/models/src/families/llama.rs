//! The `llama` architecture (Llama 2 and 3, Mistral, and many that share it), as in mlx-lm's `llama.py`.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
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
    head_dim: Option<i32>,
    max_position_embeddings: Option<i32>,
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
    layer_types: Option<Vec<LayerType>>,
    sliding_window: Option<i32>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

fn default_rope_theta() -> f32 {
    10_000.0
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(false).check()?;
        self.attention().check()?;
        self.mlp().check()?;
        if let Some(types) = &self.layer_types {
            let (found, wanted) = (types.len(), self.num_hidden_layers);
            ensure!(found == wanted, "{found} layer_types for {wanted} layers");
            let slides = types.contains(&LayerType::SlidingAttention);
            ensure!(!slides || self.sliding_window.is_some(), "sliding_attention without sliding_window");
        }
        Ok(())
    }
}

impl Args {
    fn attention(&self) -> AttentionArgs {
        let heads = self.num_attention_heads;
        // A head_dim of 0 counts as absent, as in Python.
        let head_dim = self.head_dim.filter(|dims| *dims != 0);
        let head_dim = head_dim.or_else(|| self.hidden_size.checked_div(heads)).unwrap_or_default();
        AttentionArgs {
            hidden_size: self.hidden_size,
            n_heads: heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim,
            scale: usual_scale(head_dim),
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
            traditional: self.rope_traditional,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    fn is_sliding(&self, layer: usize) -> bool {
        let types = self.layer_types.as_deref().unwrap_or_default();
        types.get(layer) == Some(&LayerType::SlidingAttention)
    }

    fn decoder(&self, tied: bool) -> DecoderArgs {
        DecoderArgs {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            norm: NormArgs { eps: self.rms_norm_eps, weight_offset: false },
            embedding_scale: None,
            logit_scale: None,
            // Older Mistral configs name a window that no layer uses.
            window: self.sliding_window.filter(|_| self.layer_types.is_some()),
            tied,
        }
    }
}

pub(super) fn load<R: Runtime>(config: &Config, weights: &mut Tensors<'_, R>) -> Result<Decoder<R>> {
    let args: Args = config.args()?;
    let (attention, mlp, decoder) = (args.attention(), args.mlp(), args.decoder(config.is_tied()));
    let rope = config.rope(weights.runtime(), &args.rope())?;
    Decoder::load(weights, &decoder, |weights, index, path| {
        let mlp = Box::new(Mlp::load(weights, &format!("{path}.mlp"), &mlp)?);
        let block = TransformerBlock::load(weights, path, (&attention, &rope), decoder.norm, mlp)?;
        Ok(Layer { block: Box::new(block), is_sliding: args.is_sliding(index) })
    })
}
