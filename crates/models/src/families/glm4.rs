//! The `glm4` architecture, as in mlx-lm's `glm4.py`: norms before and after both parts of a layer, and a part of each head
//! is turned.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, MlpForm, ModuleArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"rope_traditional": true}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, rope) = (common.norm()?, Some(common.plain_rope(10_000.0).turning(common.turned()).traditional(common.is_traditional()).args()?));
        let attention = AttentionArgs { rope, qkv_bias: common.attention_bias, ..common.attention() };
        let mlp = MlpArgs { form: MlpForm::FUSED, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let parts = vec![
                PartArgs::new("input_layernorm", "self_attn", mixer).then("post_self_attn_layernorm"),
                PartArgs::new("post_attention_layernorm", "mlp", ModuleArgs::Mlp(mlp)).then("post_mlp_layernorm"),
            ];
            Ok(BlockArgs::of(common.hidden_size, norm, parts))
        })
    }
}
