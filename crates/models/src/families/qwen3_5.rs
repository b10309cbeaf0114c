//! The `qwen3_5` architecture and its variant with experts, as in mlx-lm's `qwen3_5.py`: Qwen3-Next with projections of its
//! own.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use super::qwen3_next::{Experts, Linear, attention};
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{BlockArgs, DeltaProjections};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    linear: Linear,
    #[serde(flatten)]
    experts: Experts,
}

impl Family for Args {
    const ROPE_PARAMETERS_WIN: bool = true;
    const DEFAULTS: &str = r#"{
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "rms_norm_eps": 1e-6, "vocab_size": 151936, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "linear_num_value_heads": 64, "linear_num_key_heads": 16, "linear_key_head_dim": 192,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 4, "num_experts": 0,
        "num_experts_per_tok": 0, "shared_expert_intermediate_size": 0, "moe_intermediate_size": 0,
        "norm_topk_prob": true, "partial_rotary_factor": 0.25,
        "rope_parameters": {"type": "default", "rope_theta": 100000.0, "partial_rotary_factor": 0.25}
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, norm) = (&self.common, self.common.norm()?);
        let attention = attention(common, 100_000.0)?;
        let has_experts = self.experts.num_experts > 0;
        common.decoder(is_tied, norm, |layer| {
            let mixer = self.linear.part(common, layer, DeltaProjections::Apart, &attention)?;
            let parts = vec![mixer, self.experts.part(common, has_experts)];
            Ok(BlockArgs::of(common.hidden_size, norm, parts))
        })
    }
}
