//! The `olmoe` architecture, as in mlx-lm's `olmoe.py`: experts in all layers, and norms on all heads together.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, HeadNorm, ModuleArgs, RouterArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    num_experts: i32,
    num_experts_per_tok: i32,
    #[serde(default)]
    norm_topk_prob: bool,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, dims, bias) = (common.norm()?, common.hidden_size, common.attention_bias);
        let attention = AttentionArgs {
            rope: Some(common.rope(10_000.0).traditional(common.is_traditional()).args()?),
            qkv_bias: bias,
            o_bias: bias,
            head_norm: HeadNorm::All(norm),
            ..common.attention()
        };
        let router = RouterArgs {
            normalized: self.norm_topk_prob.then_some(0.0),
            ..RouterArgs::new(self.num_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs {
            bias: common.mlp_bias,
            ..ExpertsArgs::new(dims, common.intermediate_size, router)
        };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((dims, norm), mixer, ("mlp", ModuleArgs::Experts(experts.clone()))))
        })
    }
}
