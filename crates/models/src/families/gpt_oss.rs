//! The `gpt_oss` architecture, as in mlx-lm's `gpt_oss.py`: attention with sinks, a window in every second layer, and
//! experts with biases.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, ModuleArgs, RouterArgs, Scores};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    num_local_experts: i32,
    num_experts_per_tok: i32,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "num_hidden_layers": 36, "num_local_experts": 128, "num_experts_per_tok": 4, "vocab_size": 201088,
        "rms_norm_eps": 1e-5, "hidden_size": 2880, "intermediate_size": 2880, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let (norm, dims) = (common.norm()?, common.hidden_size);
        let attention = AttentionArgs {
            rope: Some(common.rope(150_000.0).args()?),
            qkv_bias: true,
            o_bias: true,
            has_sinks: true,
            ..common.attention()
        };
        let router = RouterArgs {
            path: "router",
            bias: true,
            scores: Scores::SoftmaxOfChosen,
            ..RouterArgs::new(self.num_local_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs {
            path: "experts",
            activation: Activation::Clamped,
            bias: true,
            ..ExpertsArgs::new(dims, common.intermediate_size, router)
        };
        common.decoder(is_tied, norm, |layer| {
            let window = common.window(layer, |layer| layer.is_multiple_of(2))?;
            let mixer = ModuleArgs::Attention(AttentionArgs { window, ..attention.clone() });
            let feed_forward = ("mlp", ModuleArgs::Experts(experts.clone()));
            Ok(BlockArgs::usual((dims, norm), ("self_attn", mixer), feed_forward))
        })
    }
}
