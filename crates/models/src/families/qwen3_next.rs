//! The `qwen3_next` architecture, as in mlx-lm's `qwen3_next.py`: gated delta nets in most layers, gated attention in the
//! others, and experts beside one that all tokens go through.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use super::qwen2_moe::shared;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, DeltaNetArgs, DeltaProjections, ExpertsArgs, HeadNorm, ModuleArgs};
use crate::layers::{PartArgs, RouterArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    linear: Linear,
    #[serde(flatten)]
    experts: Experts,
    decoder_sparse_step: usize,
    mlp_only_layers: Vec<usize>,
}

/// The keys of linear attention.
#[derive(Deserialize)]
pub(super) struct Linear {
    linear_num_value_heads: i32,
    linear_num_key_heads: i32,
    linear_key_head_dim: i32,
    linear_value_head_dim: i32,
    linear_conv_kernel_dim: i32,
    full_attention_interval: usize,
}

impl Linear {
    /// Returns the part of a layer that mixes tokens.
    pub(super) fn part(
        &self,
        common: &Common,
        layer: usize,
        projections: DeltaProjections,
        attention: &AttentionArgs,
    ) -> Result<PartArgs> {
        ensure!(self.full_attention_interval > 0, "full_attention_interval is 0");
        if (layer + 1).is_multiple_of(self.full_attention_interval) {
            let attention = ModuleArgs::Attention(attention.clone());
            return Ok(PartArgs::new("input_layernorm", "self_attn", attention));
        }
        let net = DeltaNetArgs {
            hidden_size: common.hidden_size,
            value_heads: self.linear_num_value_heads,
            key_heads: self.linear_num_key_heads,
            key_dim: self.linear_key_head_dim,
            value_dim: self.linear_value_head_dim,
            kernel: self.linear_conv_kernel_dim,
            eps: common.norm()?.eps,
            projections,
        };
        Ok(PartArgs::new("input_layernorm", "linear_attn", ModuleArgs::DeltaNet(net)))
    }
}

/// The keys of experts.
#[derive(Deserialize)]
pub(super) struct Experts {
    pub(super) num_experts: i32,
    num_experts_per_tok: i32,
    shared_expert_intermediate_size: i32,
    moe_intermediate_size: i32,
    norm_topk_prob: bool,
}

impl Experts {
    /// Returns the feed-forward part of a layer with experts, or without.
    pub(super) fn part(&self, common: &Common, has_experts: bool) -> PartArgs {
        let (dims, norm) = (common.hidden_size, "post_attention_layernorm");
        if !has_experts {
            return PartArgs::new(norm, "mlp", ModuleArgs::Mlp(common.mlp()));
        }
        let router = RouterArgs {
            normalized: self.norm_topk_prob.then_some(0.0),
            ..RouterArgs::new(self.num_experts, self.num_experts_per_tok)
        };
        let experts = ExpertsArgs::new(dims, self.moe_intermediate_size, router);
        let shared = shared(dims, self.shared_expert_intermediate_size);
        PartArgs::new(norm, "mlp", ModuleArgs::Experts(experts)).and("mlp", ModuleArgs::Mlp(shared))
    }
}

/// Returns attention with gates, a part of whose heads is turned as `common` says.
pub(super) fn attention(common: &Common, base: f32) -> Result<AttentionArgs> {
    let (norm, bias) = (common.norm()?, common.attention_bias);
    Ok(AttentionArgs {
        rope: Some(common.rope(base).turning(common.turned()).args()?),
        qkv_bias: bias,
        o_bias: bias,
        head_norm: HeadNorm::each(norm),
        is_gated: true,
        ..common.attention()
    })
}

impl Args {
    fn has_experts(&self, layer: usize) -> bool {
        let is_sparse = (layer + 1).is_multiple_of(self.decoder_sparse_step);
        self.experts.num_experts > 0 && is_sparse && !self.mlp_only_layers.contains(&layer)
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"norm_topk_prob": false, "full_attention_interval": 4}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        ensure!(self.decoder_sparse_step > 0, "decoder_sparse_step is 0");
        let (common, norm) = (&self.common, self.common.norm()?);
        let attention = attention(common, 10_000.0)?;
        common.decoder(is_tied, norm, |layer| {
            let mixer = self.linear.part(common, layer, DeltaProjections::ByHead, &attention)?;
            let parts = vec![mixer, self.experts.part(common, self.has_experts(layer))];
            Ok(BlockArgs::of(common.hidden_size, norm, parts))
        })
    }
}
