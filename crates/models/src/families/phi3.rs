//! The `phi3` architecture (Phi 3 and 4), as in mlx-lm's `phi3.py`: Llama with fused projections.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, MlpForm, ModuleArgs, Projections};
use crate::rope_scaling::RopeConfig;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    original_max_position_embeddings: f32,
}

impl Family for Args {
    const DEFAULTS: &str =
        r#"{"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here, and passes over other kinds of scaling.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let scaling = common.rope_scaling.clone().filter(|scaling| ["longrope", "su", "linear"].contains(&scaling.kind()));
        let scaling = scaling.map(|scaling| scaling.of_context(self.original_max_position_embeddings));
        let rope = RopeConfig { scaling: scaling.as_ref(), ..common.plain_rope(10_000.0) };
        let rope = rope.turning(common.turned()).traditional(common.is_traditional()).args()?;
        let norm = common.norm()?;
        let projections = Projections::Fused { qkv: "qkv_proj", output: "o_proj" };
        let attention = AttentionArgs { rope: Some(rope), projections, ..common.attention() };
        let mlp = MlpArgs { form: MlpForm::FUSED, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
