//! The `lfm2_moe` architecture, as in mlx-lm's `lfm2_moe.py`: LFM2 with experts in all but the first layers.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::lfm2::Hybrid;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{ExpertsArgs, MlpArgs, ModuleArgs, RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    hybrid: Hybrid,
    intermediate_size: i32,
    moe_intermediate_size: i32,
    num_experts: i32,
    num_experts_per_tok: i32,
    norm_topk_prob: bool,
    use_expert_bias: bool,
    num_dense_layers: usize,
    routed_scaling_factor: f32,
}

impl Family for Args {
    const ROPE_PARAMETERS_WIN: bool = true;
    const DEFAULTS: &str = r#"{"routed_scaling_factor": 1.0}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let dims = self.hybrid.hidden_size;
        let router = RouterArgs {
            scores: Scores::Sigmoid,
            correction: self.use_expert_bias.then_some("expert_bias"),
            normalized: self.norm_topk_prob.then_some(1e-6),
            scale: self.routed_scaling_factor,
            ..RouterArgs::new(self.num_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs::new(dims, self.moe_intermediate_size, router);
        let mlp = MlpArgs::new(dims, self.intermediate_size);
        self.hybrid.decoder(is_tied, |layer| {
            Ok(match layer < self.num_dense_layers {
                true => ModuleArgs::Mlp(mlp),
                false => ModuleArgs::Experts(experts.clone()),
            })
        })
    }
}
