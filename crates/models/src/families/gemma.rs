//! The `gemma` architecture, as in mlx-lm's `gemma.py`: Llama with Gemma's norms and GELU, and scaled embeddings.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, ModuleArgs, NormArgs};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = NormArgs::gemma(common.norm()?.eps);
        let attention = AttentionArgs { rope: Some(common.plain_rope(10_000.0).traditional(common.is_traditional()).args()?), ..common.attention() };
        let mlp = MlpArgs { activation: Activation::ExactGelu, ..common.mlp() };
        let decoder = common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })?;
        Ok(DecoderArgs { embedding_scale: Some((common.hidden_size as f32).sqrt()), ..decoder })
    }
}
