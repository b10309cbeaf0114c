//! The `glm4_moe` architecture (GLM 4.5 to 4.7), as in mlx-lm's `glm4_moe.py`: experts that are chosen by corrected
//! sigmoids, and one more that all tokens go through.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use super::deepseek_v3::Routing;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, ModuleArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    routing: Routing,
    use_qk_norm: bool,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"topk_method": "noaux_tc", "moe_layer_freq": 1}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let attention = AttentionArgs {
            rope: Some(common.plain_rope(10_000.0).turning(common.turned()).args()?),
            qkv_bias: common.attention_bias,
            head_norm: if self.use_qk_norm { HeadNorm::each(norm) } else { HeadNorm::None },
            ..common.attention()
        };
        common.decoder(is_tied, norm, |layer| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let mixer = PartArgs::new("input_layernorm", "self_attn", mixer);
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, self.routing.part(common, layer, 0.0)?]))
        })
    }
}
