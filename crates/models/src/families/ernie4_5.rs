//! The `ernie4_5` architecture, as in mlx-lm's `ernie4_5.py`: Llama with one switch for all biases.
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
    use_bias: bool,
}

/// Returns attention with neighbours turned together.
pub(super) fn attention(common: &Common, bias: bool) -> Result<AttentionArgs> {
    let rope = common.plain_rope(common.theta()?).traditional(true).args()?;
    Ok(AttentionArgs { rope: Some(rope), qkv_bias: bias, o_bias: bias, ..common.attention() })
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, norm) = (&self.common, self.common.norm()?);
        let attention = attention(common, self.use_bias)?;
        let mlp = MlpArgs { bias: self.use_bias, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
