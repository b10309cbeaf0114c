//! The `qwen3_moe` architecture, as in mlx-lm's `qwen3_moe.py`: Qwen3 with experts in most layers.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
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
    decoder_sparse_step: usize,
    mlp_only_layers: Vec<usize>,
    moe_intermediate_size: i32,
    norm_topk_prob: bool,
}

impl Args {
    fn has_experts(&self, layer: usize) -> bool {
        let is_sparse = (layer + 1).is_multiple_of(self.decoder_sparse_step);
        self.num_experts > 0 && is_sparse && !self.mlp_only_layers.contains(&layer)
    }
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        ensure!(self.decoder_sparse_step > 0, "decoder_sparse_step is 0");
        let norm = common.norm()?;
        // mlx-lm does not read `rope_scaling` here.
        let rope = common.plain_rope(common.theta()?).args()?;
        let head_norm = HeadNorm::each(norm);
        let attention = AttentionArgs { rope: Some(rope), head_norm, ..common.attention() };
        let router = RouterArgs {
            normalized: self.norm_topk_prob.then_some(0.0),
            ..RouterArgs::new(self.num_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs::new(common.hidden_size, self.moe_intermediate_size, router);
        common.decoder(is_tied, norm, |layer| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let feed_forward = match self.has_experts(layer) {
                true => ModuleArgs::Experts(experts.clone()),
                false => ModuleArgs::Mlp(common.mlp()),
            };
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", feed_forward)))
        })
    }
}
