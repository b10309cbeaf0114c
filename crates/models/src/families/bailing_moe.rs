//! The `bailing_moe` architecture (Ling, Ring), as in mlx-lm's `bailing_moe.py`: fused projections, and experts that are chosen
//! by softmax or by corrected sigmoids.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, bail};
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::{DecoderArgs, Names};
use crate::layers::{
    AttentionArgs, BlockArgs, ExpertsArgs, HeadNorm, MlpArgs, ModuleArgs, NormArgs, PartArgs, Projections,
    RouterArgs, Scores,
};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    moe_intermediate_size: i32,
    num_experts: Option<i32>,
    num_shared_experts: i32,
    norm_topk_prob: bool,
    num_experts_per_tok: i32,
    first_k_dense_replace: usize,
    use_bias: bool,
    use_qkv_bias: bool,
    use_qk_norm: bool,
    rotary_dim: Option<i32>,
    moe_router_enable_expert_bias: bool,
    routed_scaling_factor: f32,
    score_function: String,
    n_group: i32,
    topk_group: i32,
    moe_shared_expert_intermediate_size: Option<i32>,
    moe_router_enable_shared_expert: bool,
}

impl Args {
    fn attention(&self, common: &Common, norm: NormArgs) -> Result<AttentionArgs> {
        let turned = self.rotary_dim.unwrap_or_else(|| common.turned());
        let rope = common.rope(common.theta()?).turning(turned).args()?;
        let names = ["query_layernorm", "key_layernorm"];
        Ok(AttentionArgs {
            rope: Some(rope),
            projections: Projections::Fused { qkv: "query_key_value", output: "dense" },
            qkv_bias: self.use_qkv_bias,
            o_bias: self.use_bias,
            head_norm: if self.use_qk_norm { HeadNorm::Each(names, norm) } else { HeadNorm::None },
            ..common.attention()
        })
    }

    fn feed_forward(&self, common: &Common, layer: usize) -> Result<PartArgs> {
        let (norm, dims, bias) = ("post_attention_layernorm", common.hidden_size, self.use_bias);
        let Some(experts) = self.num_experts.filter(|_| layer >= self.first_k_dense_replace) else {
            return Ok(PartArgs::new(norm, "mlp", ModuleArgs::Mlp(MlpArgs { bias, ..common.mlp() })));
        };
        let is_normalized = self.norm_topk_prob && self.num_experts_per_tok > 1;
        let router = RouterArgs {
            path: "gate.gate_proj",
            scores: match self.score_function.as_str() {
                "softmax" => Scores::Softmax,
                "sigmoid" => Scores::Sigmoid,
                other => bail!("score_function {other:?} is not supported"),
            },
            correction: self.moe_router_enable_expert_bias.then_some("gate.expert_bias"),
            groups: (self.n_group > 1).then_some([self.n_group, self.topk_group]),
            normalized: is_normalized.then_some(1e-20),
            scale: self.routed_scaling_factor,
            ..RouterArgs::new(experts, self.num_experts_per_tok)
        };
        let size = self.moe_intermediate_size;
        let experts = ExpertsArgs { bias, ..ExpertsArgs::new(dims, size, router) };
        let part = PartArgs::new(norm, "mlp", ModuleArgs::Experts(experts));
        if self.num_shared_experts <= 0 || !self.moe_router_enable_shared_expert {
            return Ok(part);
        }
        let own = self.moe_shared_expert_intermediate_size.filter(|size| *size != 0).unwrap_or(size);
        let shared = MlpArgs { bias, ..MlpArgs::new(dims, own.saturating_mul(self.num_shared_experts)) };
        Ok(part.and("mlp.shared_experts", ModuleArgs::Mlp(shared)))
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "use_bias": false, "use_qkv_bias": false, "use_qk_norm": false, "moe_router_enable_expert_bias": false,
        "routed_scaling_factor": 1.0, "score_function": "softmax", "n_group": 1, "topk_group": 4,
        "moe_router_enable_shared_expert": true
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let norm = common.norm()?;
        let attention = self.attention(common, norm)?;
        let decoder = common.decoder(is_tied, norm, |layer| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let mixer = PartArgs::new("input_layernorm", "attention", mixer);
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, self.feed_forward(common, layer)?]))
        })?;
        Ok(DecoderArgs { names: Names { embedding: "word_embeddings", ..Names::USUAL }, ..decoder })
    }
}
