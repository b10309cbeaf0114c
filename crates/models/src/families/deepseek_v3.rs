//! The `deepseek_v3` architecture (DeepSeek V3 and R1, Kimi K2), as in mlx-lm's `deepseek_v3.py`: latent attention, and
//! experts in groups that are chosen by corrected sigmoids.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{BlockArgs, ExpertsArgs, LatentArgs, MlpArgs, ModuleArgs, NormArgs, PartArgs, RouterArgs, Scores};
use crate::layers::usual_scale;
use crate::rope_scaling::RopeConfig;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    latent: Latent,
    #[serde(flatten)]
    routing: Routing,
}

/// The keys of latent attention.
#[derive(Deserialize)]
pub(super) struct Latent {
    q_lora_rank: Option<i32>,
    kv_lora_rank: i32,
    qk_rope_head_dim: i32,
    qk_nope_head_dim: i32,
    v_head_dim: i32,
}

impl Latent {
    /// Returns latent attention. `norm` is that of the short vectors.
    pub(super) fn attention(&self, common: &Common, norm: NormArgs) -> Result<LatentArgs> {
        let rope = RopeConfig {
            dims: self.qk_rope_head_dim,
            base: common.rope_theta.unwrap_or(10_000.0),
            traditional: true,
            scaling: common.rope_scaling.as_ref(),
            max_position_embeddings: common.max_position_embeddings,
        };
        let magnitude = common.rope_scaling.as_ref().map_or(1.0, |scaling| scaling.magnitude_of_all());
        let dims = self.qk_nope_head_dim.saturating_add(self.qk_rope_head_dim);
        Ok(LatentArgs {
            hidden_size: common.hidden_size,
            n_heads: common.num_attention_heads,
            q_lora_rank: self.q_lora_rank,
            kv_lora_rank: self.kv_lora_rank,
            qk_nope_head_dim: self.qk_nope_head_dim,
            rope: rope.args()?,
            v_head_dim: self.v_head_dim,
            scale: usual_scale(dims) * magnitude * magnitude,
            bias: common.attention_bias,
            norm,
        })
    }
}

/// The keys of experts that are chosen by corrected sigmoids.
#[derive(Deserialize)]
pub(super) struct Routing {
    moe_intermediate_size: i32,
    n_shared_experts: Option<i32>,
    n_routed_experts: Option<i32>,
    num_experts_per_tok: i32,
    n_group: i32,
    topk_group: i32,
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    first_k_dense_replace: usize,
    moe_layer_freq: usize,
    topk_method: String,
}

impl Routing {
    /// Returns the feed-forward part of a layer. `eps` is added to the sum that scores are divided by.
    pub(super) fn part(&self, common: &Common, layer: usize, eps: f32) -> Result<PartArgs> {
        ensure!(self.topk_method == "noaux_tc", "topk_method {:?} is not supported", self.topk_method);
        ensure!(self.moe_layer_freq > 0, "moe_layer_freq is 0");
        let norm = "post_attention_layernorm";
        let is_dense = layer < self.first_k_dense_replace || !layer.is_multiple_of(self.moe_layer_freq);
        let Some(experts) = self.n_routed_experts.filter(|_| !is_dense) else {
            return Ok(PartArgs::new(norm, "mlp", ModuleArgs::Mlp(common.mlp())));
        };
        let is_normalized = self.norm_topk_prob && self.num_experts_per_tok > 1;
        let router = RouterArgs {
            scores: Scores::Sigmoid,
            correction: Some("gate.e_score_correction_bias"),
            groups: Some([self.n_group, self.topk_group]),
            normalized: is_normalized.then_some(eps),
            scale: self.routed_scaling_factor,
            ..RouterArgs::new(experts, self.num_experts_per_tok)
        };
        let size = self.moe_intermediate_size;
        let experts = ExpertsArgs::new(common.hidden_size, size, router);
        let part = PartArgs::new(norm, "mlp", ModuleArgs::Experts(experts));
        Ok(match self.n_shared_experts {
            Some(shared) => {
                let mlp = MlpArgs::new(common.hidden_size, size.saturating_mul(shared));
                part.and("mlp.shared_experts", ModuleArgs::Mlp(mlp))
            }
            None => part,
        })
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407,
        "num_hidden_layers": 30, "num_attention_heads": 32, "num_key_value_heads": 32, "routed_scaling_factor": 1.0,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
        "topk_method": "noaux_tc", "norm_topk_prob": true, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1,
        "moe_layer_freq": 1, "first_k_dense_replace": 0, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = common.norm()?;
        let attention = self.latent.attention(common, NormArgs::rms(1e-6))?;
        common.decoder(is_tied, norm, |layer| {
            let mixer = PartArgs::new("input_layernorm", "self_attn", ModuleArgs::Latent(attention.clone()));
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, self.routing.part(common, layer, 0.0)?]))
        })
    }
}
