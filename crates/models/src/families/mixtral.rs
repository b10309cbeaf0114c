//! The `mixtral` architecture, as in mlx-lm's `mixtral.py`: Mistral with experts in all layers.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, ModuleArgs, RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    num_experts_per_tok: i32,
    num_local_experts: i32,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_experts_per_tok": 2, "num_key_value_heads": 8, "num_local_experts": 8,
        "rms_norm_eps": 1e-5
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm reads neither `head_dim` nor `rope_scaling` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, dims) = (common.norm()?, common.hidden_size);
        let rope = Some(common.plain_rope(1_000_000.0).traditional(common.is_traditional()).args()?);
        let attention = AttentionArgs { rope, ..common.attention() };
        let router = RouterArgs {
            scores: Scores::SoftmaxOfChosen,
            ..RouterArgs::new(self.num_local_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs::new(dims, common.intermediate_size, router);
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let feed_forward = ("block_sparse_moe", ModuleArgs::Experts(experts.clone()));
            Ok(BlockArgs::usual((dims, norm), mixer, feed_forward))
        })
    }
}
