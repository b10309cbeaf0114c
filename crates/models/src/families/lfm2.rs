//! The `lfm2` architecture, as in mlx-lm's `lfm2.py`: short convolutions in most layers, attention in the others.
//! Knows neither files nor the text of tokens.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::config::Family;
use crate::decoder::{self, DecoderArgs, Names};
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, MlpArgs, MlpForm, ModuleArgs, NormArgs, PartArgs, Projections};
use crate::layers::ShortConvArgs;
use crate::rope_scaling::RopeConfig;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    hybrid: Hybrid,
    block_dim: i32,
    block_multiple_of: i32,
    block_ffn_dim_multiplier: Option<f64>,
    block_auto_adjust_ff_dim: bool,
    block_ff_dim: Option<i32>,
    intermediate_size: Option<i32>,
}

/// The keys of a model with short convolutions.
#[derive(Deserialize)]
pub(super) struct Hybrid {
    vocab_size: i32,
    pub(super) hidden_size: i32,
    num_hidden_layers: usize,
    num_attention_heads: i32,
    num_key_value_heads: Option<i32>,
    norm_eps: f32,
    conv_bias: bool,
    #[serde(rename = "conv_L_cache")]
    conv_l_cache: i32,
    rope_theta: Option<f32>,
    full_attn_idxs: Option<Vec<usize>>,
    layer_types: Option<Vec<String>>,
}

impl Hybrid {
    fn attends(&self, layer: usize) -> Result<bool> {
        if let Some(layers) = &self.full_attn_idxs {
            return Ok(layers.contains(&layer));
        }
        let types = self.layer_types.as_ref().context("neither full_attn_idxs nor layer_types")?;
        Ok(types.get(layer).is_some_and(|kind| kind == "full_attention"))
    }

    fn attention(&self) -> Result<AttentionArgs> {
        let heads = self.num_attention_heads;
        let head_dim = self.hidden_size.checked_div(heads).unwrap_or_default();
        let rope = RopeConfig {
            dims: head_dim,
            base: self.rope_theta.unwrap_or(1_000_000.0),
            traditional: false,
            scaling: None,
            max_position_embeddings: None,
        };
        let norm = NormArgs::rms(self.norm_eps);
        Ok(AttentionArgs {
            rope: Some(rope.args()?),
            projections: Projections::Apart { output: "out_proj" },
            head_norm: HeadNorm::Each(["q_layernorm", "k_layernorm"], norm),
            ..AttentionArgs::new(self.hidden_size, heads, self.num_key_value_heads.unwrap_or(heads), head_dim)
        })
    }

    /// Returns the decoder with these feed-forward layers.
    pub(super) fn decoder(
        &self,
        is_tied: bool,
        feed_forward: impl Fn(usize) -> Result<ModuleArgs>,
    ) -> Result<DecoderArgs> {
        let (norm, attention) = (NormArgs::rms(self.norm_eps), self.attention()?);
        let (kernel, bias) = (self.conv_l_cache, self.conv_bias);
        let conv = ShortConvArgs { hidden_size: self.hidden_size, kernel, bias };
        let layers = decoder::layers(self.num_hidden_layers, |layer| {
            let (path, mixer) = match self.attends(layer)? {
                true => ("self_attn", ModuleArgs::Attention(attention.clone())),
                false => ("conv", ModuleArgs::ShortConv(conv)),
            };
            let parts = vec![
                PartArgs::new("operator_norm", path, mixer),
                PartArgs::new("ffn_norm", "feed_forward", feed_forward(layer)?),
            ];
            Ok(BlockArgs::of(self.hidden_size, norm, parts))
        })?;
        let names = Names { norm: "embedding_norm", ..Names::USUAL };
        let decoder = DecoderArgs::new([self.vocab_size, self.hidden_size], norm, is_tied, layers);
        Ok(DecoderArgs { names, ..decoder })
    }
}

impl Args {
    /// Returns the size of the feed-forward layer inside.
    fn ff_dim(&self) -> Result<i32> {
        let given = self.block_ff_dim.or(self.intermediate_size);
        let given = given.context("neither block_ff_dim nor intermediate_size")?;
        if !self.block_auto_adjust_ff_dim {
            return Ok(given);
        }
        let multiple = i64::from(self.block_multiple_of);
        ensure!(multiple > 0, "block_multiple_of is {multiple}");
        let two_thirds = 2 * i64::from(given) / 3;
        #[expect(clippy::cast_possible_truncation, reason = "as in Python")]
        let scaled = self.block_ffn_dim_multiplier.map_or(two_thirds, |factor| (factor * two_thirds as f64) as i64);
        let rounded = scaled.checked_add(multiple - 1).map(|sum| sum / multiple * multiple);
        let rounded = rounded.and_then(|size| i32::try_from(size).ok());
        rounded.with_context(|| format!("block_ff_dim is {given}"))
    }
}

impl Family for Args {
    const ROPE_PARAMETERS_WIN: bool = true;
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let form = MlpForm::Gated { gate: "w1", up: "w3", down: "w2" };
        let (dims, size) = (self.hybrid.hidden_size, self.ff_dim()?);
        ensure!(self.block_dim == dims, "block_dim is {}, but hidden_size is {dims}", self.block_dim);
        let mlp = MlpArgs { form, ..MlpArgs::new(dims, size) };
        self.hybrid.decoder(is_tied, |_| Ok(ModuleArgs::Mlp(mlp)))
    }
}
