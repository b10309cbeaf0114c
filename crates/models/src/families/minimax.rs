//! The `minimax` architecture (MiniMax M2), as in mlx-lm's `minimax.py`: experts that are chosen by corrected sigmoids, and
//! norms on all heads together.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, HeadNorm, ModuleArgs, RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    num_experts_per_tok: i32,
    num_local_experts: i32,
    rotary_dim: i32,
    use_qk_norm: bool,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"use_qk_norm": true}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, dims) = (common.norm()?, common.hidden_size);
        let rope = common.plain_rope(10_000.0).turning(self.rotary_dim).args()?;
        let head_norm = if self.use_qk_norm { HeadNorm::All(norm) } else { HeadNorm::None };
        let attention = AttentionArgs { rope: Some(rope), head_norm, ..common.attention() };
        let router = RouterArgs {
            scores: Scores::Sigmoid,
            correction: Some("e_score_correction_bias"),
            normalized: Some(1e-20),
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
