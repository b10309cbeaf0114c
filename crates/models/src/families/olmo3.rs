//! The `olmo3` architecture, as in mlx-lm's `olmo3.py`: Olmo 2 where most layers see only a sliding window.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use super::olmo2::parts;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, bias) = (common.norm()?, common.attention_bias);
        let theta = common.theta()?;
        // The angles are stretched only in layers that see all tokens.
        let ropes = [common.rope(theta).args()?, common.plain_rope(theta).args()?];
        let attention = AttentionArgs {
            qkv_bias: bias,
            o_bias: bias,
            head_norm: HeadNorm::All(norm),
            ..common.attention()
        };
        common.decoder(is_tied, norm, |layer| {
            let window = common.window(layer, |layer| !(layer + 1).is_multiple_of(4))?;
            let rope = Some(ropes[usize::from(window.is_some())].clone());
            let parts = parts(AttentionArgs { window, rope, ..attention.clone() }, common.mlp());
            Ok(BlockArgs::of(common.hidden_size, norm, parts))
        })
    }
}
