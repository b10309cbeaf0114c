//! The `llama` architecture (Llama 2 and 3, Mistral, and many that share it), as in mlx-lm's `llama.py`.
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
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, bias) = (common.norm()?, common.attention_bias);
        let rope = Some(common.rope(10_000.0).traditional(common.is_traditional()).args()?);
        let attention = AttentionArgs { rope, qkv_bias: bias, o_bias: bias, ..common.attention() };
        let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
        common.decoder(is_tied, norm, |layer| {
            // Older Mistral configs name a window that no layer uses: only `layer_types` gives a layer one.
            let attention = AttentionArgs { window: common.window(layer, |_| false)?, ..attention.clone() };
            let mixer = ("self_attn", ModuleArgs::Attention(attention));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
