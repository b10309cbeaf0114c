//! The `qwen2` architecture (Qwen 2 and 2.5), as in mlx-lm's `qwen2.py`: Llama with biases on queries, keys and values.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"max_position_embeddings": 32768}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, rope) = (common.norm()?, Some(common.rope(1_000_000.0).traditional(common.is_traditional()).args()?));
        let attention = AttentionArgs { rope, qkv_bias: true, ..common.attention() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let feed_forward = ("mlp", ModuleArgs::Mlp(common.mlp()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, feed_forward))
        })
    }
}
