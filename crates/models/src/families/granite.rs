//! The `granite` architecture (Granite 3), as in mlx-lm's `granite.py`: Llama with factors of its own.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    factors: Factors,
}

/// The factors of Granite.
#[derive(Deserialize)]
pub(super) struct Factors {
    pub(super) logits_scaling: f32,
    pub(super) attention_multiplier: f32,
    pub(super) embedding_multiplier: f32,
    pub(super) residual_multiplier: f32,
}

impl Factors {
    /// Sets the factors of a decoder beside its layers.
    pub(super) fn of(&self, decoder: DecoderArgs) -> Result<DecoderArgs> {
        ensure!(self.logits_scaling != 0.0, "logits_scaling is 0");
        let (embedding_scale, logit_scale) = (Some(self.embedding_multiplier), Some(1.0 / self.logits_scaling));
        Ok(DecoderArgs { embedding_scale, logit_scale, ..decoder })
    }
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, bias) = (common.norm()?, common.attention_bias);
        let attention = AttentionArgs {
            scale: self.factors.attention_multiplier,
            rope: Some(common.rope(10_000.0).args()?),
            qkv_bias: bias,
            o_bias: bias,
            ..common.attention()
        };
        let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
        let decoder = common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let block = BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp)));
            Ok(BlockArgs { residual_scale: Some(self.factors.residual_multiplier), ..block })
        })?;
        self.factors.of(decoder)
    }
}
