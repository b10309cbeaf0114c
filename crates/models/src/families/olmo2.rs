//! The `olmo2` architecture, as in mlx-lm's `olmo2.py`: norms come after both parts of a layer, and on all heads together.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, MlpArgs, ModuleArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

/// Returns the parts of a layer of Olmo 2 and 3.
pub(super) fn parts(attention: AttentionArgs, mlp: MlpArgs) -> Vec<PartArgs> {
    let part = |path, module, after| PartArgs { before: None, after: Some(after), modules: vec![(path, module)] };
    vec![
        part("self_attn", ModuleArgs::Attention(attention), "post_attention_layernorm"),
        part("mlp", ModuleArgs::Mlp(mlp), "post_feedforward_layernorm"),
    ]
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, bias) = (common.norm()?, common.attention_bias);
        let attention = AttentionArgs {
            rope: Some(common.rope(10_000.0).traditional(common.is_traditional()).args()?),
            qkv_bias: bias,
            o_bias: bias,
            head_norm: HeadNorm::All(norm),
            ..common.attention()
        };
        let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            Ok(BlockArgs::of(common.hidden_size, norm, parts(attention.clone(), mlp)))
        })
    }
}
