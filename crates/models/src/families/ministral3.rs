//! The `ministral3` architecture, as in mlx-lm's `ministral3.py`: Llama whose queries grow with the position.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ModuleArgs, PositionScale};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    rope_parameters: RopeParameters,
}

#[derive(Deserialize)]
struct RopeParameters {
    llama_4_scaling_beta: f32,
    original_max_position_embeddings: f32,
}

impl Family for Args {
    const ROPE_PARAMETERS_WIN: bool = true;
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let rope = common.rope(common.theta()?).args()?;
        let RopeParameters { llama_4_scaling_beta: beta, original_max_position_embeddings: context } =
            self.rope_parameters;
        let position_scale = Some(PositionScale { beta, context });
        let attention = AttentionArgs { rope: Some(rope), position_scale, ..common.attention() };
        common.decoder(is_tied, norm, |layer| {
            let window = common.window(layer, |_| false)?;
            let mixer = ModuleArgs::Attention(AttentionArgs { window, ..attention.clone() });
            let feed_forward = ("mlp", ModuleArgs::Mlp(common.mlp()));
            Ok(BlockArgs::usual((common.hidden_size, norm), ("self_attn", mixer), feed_forward))
        })
    }
}
