//! The `gemma4_text` architecture, as in mlx-lm's `gemma4_text.py`: two sizes of heads, inputs of their own for layers,
//! layers that use the keys of others, and experts beside a dense layer.
//! Knows neither files nor the text of tokens.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::common::{Common, turned};
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, HeadNorm, MlpArgs, ModuleArgs, NormArgs, PartArgs};
use crate::layers::{PerLayerArgs, Projections, RouterArgs, Scores};
use crate::rope_scaling::{RopeConfig, RopeScaling};
use crate::runtime::{Activation, RopeArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    global_head_dim: Option<i32>,
    num_global_key_value_heads: Option<i32>,
    num_kv_shared_layers: usize,
    vocab_size_per_layer_input: i32,
    hidden_size_per_layer_input: Option<i32>,
    rope_parameters: BTreeMap<String, RopeParameters>,
    sliding_window_pattern: usize,
    attention_k_eq_v: bool,
    final_logit_softcapping: Option<f32>,
    use_double_wide_mlp: bool,
    enable_moe_block: bool,
    num_experts: Option<i32>,
    top_k_experts: Option<i32>,
    moe_intermediate_size: Option<i32>,
}

/// How positions turn the heads of one kind of layers.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
    #[serde(flatten)]
    scaling: RopeScaling,
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

impl Args {
    fn kind(&self, layer: usize) -> Result<&'static str> {
        let pattern = self.sliding_window_pattern;
        ensure!(pattern > 0, "sliding_window_pattern is 0");
        let usual = if (layer + 1).is_multiple_of(pattern) { FULL } else { SLIDING };
        Ok(self.common.kind(layer, &[FULL, SLIDING])?.unwrap_or(usual))
    }

    /// Returns the first layer without keys of its own, if there is one.
    fn first_shared(&self) -> usize {
        self.common.num_hidden_layers.saturating_sub(self.num_kv_shared_layers)
    }

    /// Returns the layer whose keys a layer uses, if it has none.
    fn source(&self, layer: usize) -> Result<Option<usize>> {
        let first = self.first_shared();
        if layer < first {
            return Ok(None);
        }
        let kind = self.kind(layer)?;
        let same = |other: &usize| self.kind(*other).is_ok_and(|other| other == kind);
        (0..first).rev().find(same).map(Some).with_context(|| format!("layer {layer} has no keys to use"))
    }

    fn rope(&self, kind: &str, dims: i32) -> Result<RopeArgs> {
        let parameters = self.rope_parameters.get(kind);
        let factor = parameters.and_then(|parameters| parameters.partial_rotary_factor).unwrap_or(1.0);
        let config = RopeConfig {
            dims,
            base: parameters.and_then(|parameters| parameters.rope_theta).unwrap_or(10_000.0),
            traditional: self.common.rope_traditional.unwrap_or(false),
            scaling: parameters.map(|parameters| &parameters.scaling),
            max_position_embeddings: self.common.max_position_embeddings,
        };
        config.args_of(turned(dims, factor))
    }

    fn attention(&self, layer: usize, norm: NormArgs) -> Result<AttentionArgs> {
        let (common, kind) = (&self.common, self.kind(layer)?);
        let is_full = kind == FULL;
        let own = self.global_head_dim.filter(|dims| is_full && *dims != 0);
        let head_dim = own.unwrap_or_else(|| common.head_dim());
        let keys_as_values = self.attention_k_eq_v && is_full;
        let fewer = self.num_global_key_value_heads.filter(|_| keys_as_values);
        let usual = common.attention();
        let heads = (usual.n_heads, fewer.unwrap_or(usual.n_kv_heads));
        let usual = AttentionArgs::new(common.hidden_size, heads.0, heads.1, head_dim);
        Ok(AttentionArgs {
            scale: 1.0,
            rope: Some(self.rope(kind, head_dim)?),
            window: common.sliding_window.filter(|_| !is_full),
            projections: if keys_as_values { Projections::KeysAsValues } else { usual.projections },
            head_norm: HeadNorm::each(norm),
            value_norm: Some(norm.eps),
            source: self.source(layer)?,
            ..usual
        })
    }

    fn mlp(&self, layer: usize) -> ModuleArgs {
        let first = self.first_shared();
        let is_wide = self.use_double_wide_mlp && layer >= first && first > 0;
        let size = self.common.intermediate_size.saturating_mul(if is_wide { 2 } else { 1 });
        let usual = MlpArgs::new(self.common.hidden_size, size);
        ModuleArgs::Mlp(MlpArgs { activation: Activation::Gelu, ..usual })
    }

    fn feed_forward(&self, layer: usize, norm: NormArgs) -> Result<PartArgs> {
        let (dims, mlp) = (self.common.hidden_size, self.mlp(layer));
        let after = "post_feedforward_layernorm";
        if !self.enable_moe_block {
            return Ok(PartArgs::new("pre_feedforward_layernorm", "mlp", mlp).then(after));
        }
        let chosen = self.top_k_experts.context("no top_k_experts")?;
        let router = RouterArgs {
            path: "router.proj",
            scores: Scores::SoftmaxOfChosen,
            expert_scale: Some("router.per_expert_scale"),
            norm: Some(("router.scale", norm.eps)),
            ..RouterArgs::new(self.num_experts.context("no num_experts")?, chosen)
        };
        let size = self.moe_intermediate_size.context("no moe_intermediate_size")?;
        let experts = ModuleArgs::Experts(ExpertsArgs {
            path: "experts.switch_glu",
            activation: Activation::Gelu,
            input_norm: Some(("pre_feedforward_layernorm_2", norm)),
            ..ExpertsArgs::new(dims, size, router)
        });
        let normed = |before, inner, after| ModuleArgs::Normed { before, inner: Box::new(inner), after, norm, dims };
        let mlp = normed(Some("pre_feedforward_layernorm"), mlp, "post_feedforward_layernorm_1");
        let experts = normed(None, experts, "post_feedforward_layernorm_2");
        Ok(PartArgs { before: None, after: Some(after), modules: vec![("mlp", mlp), ("", experts)] })
    }

    fn per_layer(&self, norm: NormArgs) -> Result<Option<PerLayerArgs>> {
        let Some(dims) = self.hidden_size_per_layer_input.filter(|dims| *dims != 0) else { return Ok(None) };
        let layers = i32::try_from(self.common.num_hidden_layers)?;
        let (hidden_size, vocab_size) = (self.common.hidden_size, self.vocab_size_per_layer_input);
        Ok(Some(PerLayerArgs { hidden_size, dims, layers, vocab_size, norm }))
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144, "num_attention_heads": 8,
        "head_dim": 256, "global_head_dim": 512, "rms_norm_eps": 1e-6, "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144, "num_key_value_heads": 1, "num_kv_shared_layers": 20,
        "hidden_size_per_layer_input": 256, "sliding_window": 512, "sliding_window_pattern": 5,
        "max_position_embeddings": 131072, "attention_k_eq_v": false, "final_logit_softcapping": 30.0,
        "use_double_wide_mlp": true, "enable_moe_block": false, "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
            "sliding_attention": {"partial_rotary_factor": 1.0, "rope_theta": 10000.0, "rope_type": "default"}
        }
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, norm) = (&self.common, self.common.norm()?);
        let per_layer = self.per_layer(norm)?;
        let decoder = common.decoder(is_tied, norm, |layer| {
            let attention = ModuleArgs::Attention(self.attention(layer, norm)?);
            let attention = PartArgs::new("input_layernorm", "self_attn", attention);
            let mut parts = vec![attention.then("post_attention_layernorm"), self.feed_forward(layer, norm)?];
            if let Some(inputs) = per_layer {
                let after = Some("post_per_layer_input_norm");
                parts.push(PartArgs { before: None, after, modules: vec![("", ModuleArgs::PerLayer(inputs))] });
            }
            Ok(BlockArgs { scalar: Some("layer_scalar"), ..BlockArgs::of(common.hidden_size, norm, parts) })
        })?;
        let embedding_scale = Some((common.hidden_size as f32).sqrt());
        Ok(DecoderArgs { embedding_scale, softcap: self.final_logit_softcapping, per_layer, ..decoder })
    }
}
