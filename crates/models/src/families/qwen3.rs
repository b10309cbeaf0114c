//! The `qwen3` architecture, as in mlx-lm's `qwen3.py`: Llama with a norm on each head.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let rope = common.rope(common.theta()?).args()?;
        let head_norm = HeadNorm::each(norm);
        let attention = AttentionArgs { rope: Some(rope), head_norm, ..common.attention() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let feed_forward = ("mlp", ModuleArgs::Mlp(common.mlp()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, feed_forward))
        })
    }
}
