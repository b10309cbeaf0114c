//! The `internlm3` architecture, as in mlx-lm's `internlm3.py`: Llama with names of its own for its biases.
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
    #[serde(default)]
    bias: bool,
    #[serde(default)]
    qkv_bias: bool,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"max_position_embeddings": 32768}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, rope) = (common.norm()?, Some(common.rope(10_000.0).traditional(common.is_traditional()).args()?));
        let (qkv_bias, o_bias) = (self.qkv_bias, self.qkv_bias);
        let attention = AttentionArgs { rope, qkv_bias, o_bias, ..common.attention() };
        let mlp = MlpArgs { bias: self.bias, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
