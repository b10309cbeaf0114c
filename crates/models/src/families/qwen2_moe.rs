//! The `qwen2_moe` architecture, as in mlx-lm's `qwen2_moe.py`: Qwen2 with experts, and one more that all tokens go through.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, MlpArgs, ModuleArgs, PartArgs, RouterArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    num_experts_per_tok: i32,
    num_experts: i32,
    moe_intermediate_size: i32,
    shared_expert_intermediate_size: i32,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm reads neither `head_dim` nor `rope_scaling` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let (norm, dims) = (common.norm()?, common.hidden_size);
        let rope = Some(common.plain_rope(1_000_000.0).traditional(common.is_traditional()).args()?);
        let attention = AttentionArgs { rope, qkv_bias: true, ..common.attention() };
        let router = RouterArgs::new(self.num_experts, self.num_experts_per_tok);
        let experts = ExpertsArgs::new(dims, self.moe_intermediate_size, router);
        let shared = shared(dims, self.shared_expert_intermediate_size);
        common.decoder(is_tied, norm, |_| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let experts = ModuleArgs::Experts(experts.clone());
            let parts = vec![
                PartArgs::new("input_layernorm", "self_attn", mixer),
                PartArgs::new("post_attention_layernorm", "mlp", experts).and("mlp", ModuleArgs::Mlp(shared)),
            ];
            Ok(BlockArgs::of(dims, norm, parts))
        })
    }
}

/// Returns the expert that all tokens go through, which has a gate of its own.
pub(super) fn shared(hidden_size: i32, intermediate_size: i32) -> MlpArgs {
    let output_gate = Some("shared_expert_gate");
    MlpArgs { below: "shared_expert", output_gate, ..MlpArgs::new(hidden_size, intermediate_size) }
}
