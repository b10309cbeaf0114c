//! The `glm4_moe_lite` architecture (GLM 4.7 Flash), as in mlx-lm's `glm4_moe_lite.py`: DeepSeek V3 with norms of its own.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use super::deepseek_v3::{Latent, Routing};
use crate::layers::{BlockArgs, ModuleArgs, PartArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    latent: Latent,
    #[serde(flatten)]
    routing: Routing,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240, "moe_intermediate_size": 1536,
        "num_hidden_layers": 47, "num_attention_heads": 20, "num_key_value_heads": 20, "n_shared_experts": 1,
        "n_routed_experts": 64, "routed_scaling_factor": 1.8, "kv_lora_rank": 512, "q_lora_rank": 768,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 192, "v_head_dim": 256, "topk_method": "noaux_tc",
        "norm_topk_prob": true, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 4, "moe_layer_freq": 1,
        "first_k_dense_replace": 1, "max_position_embeddings": 202752, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let attention = self.latent.attention(common, norm)?;
        common.decoder(is_tied, norm, |layer| {
            let mixer = PartArgs::new("input_layernorm", "self_attn", ModuleArgs::Latent(attention.clone()));
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, self.routing.part(common, layer, 1e-20)?]))
        })
    }
}
