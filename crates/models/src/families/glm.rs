//! The `glm` architecture (GLM 4), as in mlx-lm's `glm.py`: Llama whose gate and up projection are one matrix.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, MlpForm, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let rope = common.plain_rope(10_000.0).traditional(true).args()?;
        let attention =
            AttentionArgs { rope: Some(rope), qkv_bias: common.attention_bias, ..common.attention() };
        let mlp = MlpArgs { form: MlpForm::FUSED, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
