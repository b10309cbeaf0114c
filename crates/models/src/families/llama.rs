//! The `llama` architecture (Llama 2 and 3, Mistral, and many that share it), as in mlx-lm's `llama.py`. `smollm3` is the
//! same without positions in some layers, as in mlx-lm's `smollm3.py`.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::attention::{AttentionArgs, usual_scale};
use crate::config::{Config, ModelArgs};
use crate::decoder::{Decoder, DecoderArgs, Layer, TransformerBlock};
use crate::mlp::{Mlp, MlpArgs};
use crate::norm::NormArgs;
use crate::rope_scaling::{RopeConfig, RopeScaling};
use crate::runtime::{Activation, RopeArgs, Runtime};
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
    /// Of `smollm3`: 1 for each layer with positions, 0 for each other.
    no_rope_layers: Option<Vec<u8>>,
    #[serde(default = "default_no_rope_layer_interval")]
    no_rope_layer_interval: usize,
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

fn default_no_rope_layer_interval() -> usize {
    4
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(false).check()?;
        self.attention().check()?;
        self.mlp().check()?;
        ensure!(self.no_rope_layer_interval > 0, "no_rope_layer_interval is 0");
        if let Some(layers) = &self.no_rope_layers {
            let (found, wanted) = (layers.len(), self.num_hidden_layers);
            ensure!(found == wanted, "{found} no_rope_layers for {wanted} layers");
        }
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

    /// Whether a layer of `smollm3` has no positions.
    fn has_no_rope(&self, layer: usize) -> bool {
        match &self.no_rope_layers {
            Some(layers) => layers.get(layer) == Some(&0),
            None => (layer + 1).is_multiple_of(self.no_rope_layer_interval),
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
    load_with(config, weights, |_, _| false)
}

/// Loads `smollm3`.
pub(super) fn load_smollm3<R: Runtime>(config: &Config, weights: &mut Tensors<'_, R>) -> Result<Decoder<R>> {
    load_with(config, weights, Args::has_no_rope)
}

fn load_with<R: Runtime>(
    config: &Config,
    weights: &mut Tensors<'_, R>,
    has_no_rope: fn(&Args, usize) -> bool,
) -> Result<Decoder<R>> {
    let args: Args = config.args()?;
    let (attention, mlp, decoder) = (args.attention(), args.mlp(), args.decoder(config.is_tied()));
    let turning = config.rope(weights.runtime(), &args.rope())?;
    let still = weights.runtime().rope(&RopeArgs::still(attention.head_dim))?;
    Decoder::load(weights, &decoder, |weights, index, path| {
        let rope = if has_no_rope(&args, index) { &still } else { &turning };
        let mlp = Box::new(Mlp::load(weights, &format!("{path}.mlp"), &mlp)?);
        let block = TransformerBlock::load(weights, path, (&attention, rope), decoder.norm, mlp)?;
        Ok(Layer { block: Box::new(block), is_sliding: args.is_sliding(index) })
    })
}
