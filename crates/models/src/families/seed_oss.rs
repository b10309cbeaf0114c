//! The `seed_oss` architecture, as in mlx-lm's `seed_oss.py`: Llama where the output of attention has a switch of its own
//! for its bias.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    attention_out_bias: bool,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, rope) = (common.norm()?, Some(common.rope(10_000.0).traditional(common.is_traditional()).args()?));
        let (qkv_bias, o_bias) = (common.attention_bias, self.attention_out_bias);
        let attention = AttentionArgs { rope, qkv_bias, o_bias, ..common.attention() };
        let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
