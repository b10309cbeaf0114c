//! The `granitemoe` architecture (Granite 3 with experts), as in mlx-lm's `granitemoe.py`.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use super::granite::Factors;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, ModuleArgs, RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    factors: Factors,
    num_local_experts: i32,
    num_experts_per_tok: i32,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, dims, bias) = (common.norm()?, common.hidden_size, common.attention_bias);
        let attention = AttentionArgs {
            scale: self.factors.attention_multiplier,
            rope: Some(common.rope(10_000.0).args()?),
            qkv_bias: bias,
            o_bias: bias,
            ..common.attention()
        };
        let router = RouterArgs {
            path: "router.layer",
            scores: Scores::SoftmaxOfChosen,
            ..RouterArgs::new(self.num_local_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs::new(dims, common.intermediate_size, router);
        let decoder = common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            let feed_forward = ("block_sparse_moe", ModuleArgs::Experts(experts.clone()));
            let block = BlockArgs::usual((dims, norm), mixer, feed_forward);
            Ok(BlockArgs { residual_scale: Some(self.factors.residual_multiplier), ..block })
        })?;
        self.factors.of(decoder)
    }
}
