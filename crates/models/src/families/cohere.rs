//! The `cohere` architecture (Command R), as in mlx-lm's `cohere.py`: attention and the feed-forward layer get the same
//! input.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, ModuleArgs, NormArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    layer_norm_eps: f32,
    layer_norm_bias: bool,
    logit_scale: f32,
    use_qk_norm: bool,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "hidden_size": 8192, "num_hidden_layers": 40, "intermediate_size": 22528, "num_attention_heads": 64,
        "num_key_value_heads": 64, "vocab_size": 256000, "layer_norm_eps": 1e-5, "logit_scale": 0.0625,
        "layer_norm_bias": false, "use_qk_norm": false
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, bias) = (NormArgs::layer(self.layer_norm_eps, self.layer_norm_bias), common.attention_bias);
        let rope = common.plain_rope(8_000_000.0).traditional(true).args()?;
        let head_norm = match self.use_qk_norm {
            true => HeadNorm::Apart(NormArgs::layer(self.layer_norm_eps, false)),
            false => HeadNorm::None,
        };
        let attention = AttentionArgs {
            rope: Some(rope),
            qkv_bias: bias,
            o_bias: bias,
            head_norm,
            ..common.attention()
        };
        let decoder = common.decoder(is_tied, norm, |_| {
            let part = PartArgs::new("input_layernorm", "self_attn", ModuleArgs::Attention(attention.clone()));
            let part = part.and("mlp", ModuleArgs::Mlp(common.mlp()));
            Ok(BlockArgs::of(common.hidden_size, norm, vec![part]))
        })?;
        Ok(DecoderArgs { logit_scale: Some(self.logit_scale), ..decoder })
    }
}
