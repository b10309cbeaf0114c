//! The `dots1` architecture, as in mlx-lm's `dots1.py`: Qwen3's attention, and experts as in DeepSeek V3.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use super::deepseek_v3::Routing;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, ModuleArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    routing: Routing,
}

impl Family for Args {
    const DEFAULTS: &str =
        r#"{"n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "moe_layer_freq": 1}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, norm) = (&self.common, self.common.norm()?);
        let rope = common.rope(common.theta()?).args()?;
        let head_norm = HeadNorm::each(norm);
        let attention = AttentionArgs { rope: Some(rope), head_norm, ..common.attention() };
        common.decoder(is_tied, norm, |layer| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let mixer = PartArgs::new("input_layernorm", "self_attn", mixer);
            let mut feed_forward = self.routing.part(common, layer, 0.0)?;
            for (_, module) in &mut feed_forward.modules {
                match module {
                    ModuleArgs::Mlp(mlp) => mlp.bias = common.mlp_bias,
                    ModuleArgs::Experts(experts) => experts.path = "experts",
                    _ => {}
                }
            }
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, feed_forward]))
        })
    }
}
