//! The `cohere2` architecture (Command R7B and A), as in mlx-lm's `cohere2.py`: attention and the feed-forward layer get the
//! same input, and only layers with a window have positions.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ModuleArgs, NormArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    layer_norm_eps: f32,
    layer_norm_bias: bool,
    logit_scale: f32,
    sliding_window_pattern: usize,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "hidden_size": 4096, "head_dim": 128, "num_hidden_layers": 32, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 50000.0, "vocab_size": 256000,
        "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "layer_norm_bias": false, "sliding_window": 4096,
        "sliding_window_pattern": 4
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, pattern) = (&self.common, self.sliding_window_pattern);
        ensure!(pattern > 0, "sliding_window_pattern is 0");
        let (norm, bias) = (NormArgs::layer(self.layer_norm_eps, self.layer_norm_bias), common.attention_bias);
        let rope = common.plain_rope(50_000.0).traditional(true).args()?;
        let attention = AttentionArgs { qkv_bias: bias, o_bias: bias, ..common.attention() };
        let decoder = common.decoder(is_tied, norm, |layer| {
            let is_sliding = !(layer + 1).is_multiple_of(pattern);
            let window = common.sliding_window.filter(|_| is_sliding);
            let rope = is_sliding.then(|| rope.clone());
            let mixer = ModuleArgs::Attention(AttentionArgs { window, rope, ..attention.clone() });
            let part = PartArgs::new("input_layernorm", "self_attn", mixer);
            let part = part.and("mlp", ModuleArgs::Mlp(common.mlp()));
            Ok(BlockArgs::of(common.hidden_size, norm, vec![part]))
        })?;
        Ok(DecoderArgs { logit_scale: Some(self.logit_scale), ..decoder })
    }
}
