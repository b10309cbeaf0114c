//! The `gemma2` architecture, as in mlx-lm's `gemma2.py`: norms before and after both parts of a layer, and soft caps.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, ModuleArgs, NormArgs, PartArgs};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    attn_logit_softcapping: f32,
    final_logit_softcapping: f32,
    query_pre_attn_scalar: f32,
}

/// Returns the parts of a layer of Gemma 2 and 3.
pub(super) fn parts(attention: AttentionArgs, mlp: MlpArgs) -> Vec<PartArgs> {
    let mlp = ModuleArgs::Mlp(MlpArgs { activation: Activation::Gelu, ..mlp });
    let attention = PartArgs::new("input_layernorm", "self_attn", ModuleArgs::Attention(attention));
    let feed_forward = PartArgs::new("pre_feedforward_layernorm", "mlp", mlp);
    vec![attention.then("post_attention_layernorm"), feed_forward.then("post_feedforward_layernorm")]
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 144.0
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = NormArgs::gemma(common.norm()?.eps);
        let attention = AttentionArgs {
            scale: 1.0 / self.query_pre_attn_scalar.sqrt(),
            rope: Some(common.plain_rope(10_000.0).traditional(common.is_traditional()).args()?),
            softcap: Some(self.attn_logit_softcapping),
            ..common.attention()
        };
        let decoder = common.decoder(is_tied, norm, |_| {
            Ok(BlockArgs::of(common.hidden_size, norm, parts(attention.clone(), common.mlp())))
        })?;
        let embedding_scale = Some((common.hidden_size as f32).sqrt());
        Ok(DecoderArgs { embedding_scale, softcap: Some(self.final_logit_softcapping), ..decoder })
    }
}
