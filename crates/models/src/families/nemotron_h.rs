//! The `nemotron_h` architecture (Nemotron Nano 2 and 3), as in mlx-lm's `nemotron_h.py`: each layer is one of Mamba,
//! attention, a feed-forward layer or experts.
//! Knows neither files nor the text of tokens.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::common::{Common, Number};
use crate::config::Family;
use crate::decoder::{self, DecoderArgs, Names};
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, Form, MambaArgs, MlpArgs, MlpForm, ModuleArgs, NormArgs};
use crate::layers::{PartArgs, RouterArgs, Scores};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    mamba_num_heads: i32,
    mamba_head_dim: i32,
    mamba_proj_bias: bool,
    ssm_state_size: i32,
    conv_kernel: i32,
    n_groups: i32,
    layer_norm_epsilon: f32,
    use_conv_bias: bool,
    hybrid_override_pattern: Option<Pattern>,
    layers_block_type: Option<Vec<String>>,
    moe_intermediate_size: Option<i32>,
    moe_shared_expert_intermediate_size: Option<i32>,
    moe_latent_size: Option<i32>,
    n_group: Option<i32>,
    n_routed_experts: Option<i32>,
    n_shared_experts: Option<i32>,
    topk_group: Option<i32>,
    num_experts_per_tok: Option<i32>,
    norm_topk_prob: Option<bool>,
    routed_scaling_factor: Option<f32>,
    time_step_limit: Option<[Number; 2]>,
}

/// The kinds of layers, one character for each.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Pattern {
    Text(String),
    List(Vec<String>),
}

impl Args {
    /// Returns the kinds of the layers: `M` for Mamba, `*` for attention, `-` for a feed-forward layer, `E` for experts.
    fn kinds(&self) -> Result<Vec<String>> {
        match (&self.hybrid_override_pattern, self.layers_block_type.as_ref().or(self.common.layer_types.as_ref())) {
            (Some(Pattern::Text(text)), _) => Ok(text.chars().map(String::from).collect()),
            (Some(Pattern::List(list)), _) => Ok(list.clone()),
            (None, Some(types)) => types.iter().map(|kind| Ok(short(kind)?.to_owned())).collect(),
            (None, None) => bail!("neither layers_block_type nor hybrid_override_pattern"),
        }
    }

    fn module(&self, kind: &str) -> Result<ModuleArgs> {
        let common = &self.common;
        let bias = common.attention_bias;
        Ok(match kind {
            "M" => ModuleArgs::Mamba(self.mamba()),
            "*" => ModuleArgs::Attention(AttentionArgs { qkv_bias: bias, o_bias: bias, ..common.attention() }),
            "-" => ModuleArgs::Mlp(self.mlp(common.intermediate_size)),
            "E" => ModuleArgs::Experts(self.experts()?),
            other => bail!("a layer is of the kind {other:?}"),
        })
    }

    fn mamba(&self) -> MambaArgs {
        MambaArgs {
            hidden_size: self.common.hidden_size,
            heads: self.mamba_num_heads,
            head_dim: self.mamba_head_dim,
            state_size: self.ssm_state_size,
            kernel: self.conv_kernel,
            groups: self.n_groups,
            bias: [self.mamba_proj_bias, self.use_conv_bias],
            steps: self.time_step_limit.map_or([0.0, f32::INFINITY], |limits| limits.map(|limit| limit.0)),
            norm_groups: self.n_groups,
            eps: self.layer_norm_epsilon,
        }
    }

    fn mlp(&self, size: i32) -> MlpArgs {
        let form = MlpForm::Plain { up: "up_proj", down: "down_proj" };
        let (bias, activation) = (self.common.mlp_bias, Activation::SquaredRelu);
        MlpArgs { form, bias, activation, ..MlpArgs::new(self.common.hidden_size, size) }
    }

    fn experts(&self) -> Result<ExpertsArgs> {
        let (common, chosen) = (&self.common, self.num_experts_per_tok.context("no num_experts_per_tok")?);
        let is_normalized = self.norm_topk_prob.unwrap_or(false) && chosen > 1;
        let groups = self.n_group.zip(self.topk_group).map(|(groups, kept)| [groups, kept]);
        let router = RouterArgs {
            scores: Scores::Sigmoid,
            correction: Some("gate.e_score_correction_bias"),
            groups,
            normalized: is_normalized.then_some(1e-20),
            scale: self.routed_scaling_factor.context("no routed_scaling_factor")?,
            ..RouterArgs::new(self.n_routed_experts.context("no n_routed_experts")?, chosen)
        };
        let size = self.moe_intermediate_size.context("no moe_intermediate_size")?;
        Ok(ExpertsArgs {
            form: Form::Plain,
            activation: Activation::SquaredRelu,
            latent: self.moe_latent_size.map(|size| (size, common.mlp_bias)),
            ..ExpertsArgs::new(common.hidden_size, size, router)
        })
    }

    fn part(&self, kind: &str) -> Result<PartArgs> {
        let part = PartArgs::new("norm", "mixer", self.module(kind)?);
        if kind != "E" || self.n_shared_experts.is_none() {
            return Ok(part);
        }
        let size = self.moe_shared_expert_intermediate_size;
        let shared = self.mlp(size.context("no moe_shared_expert_intermediate_size")?);
        Ok(part.and("mixer.shared_experts", ModuleArgs::Mlp(shared)))
    }
}

/// Returns the character for a kind of layer.
fn short(kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "full_attention" | "attention" => "*",
        "linear_attention" | "mamba" | "conv" => "M",
        "moe" => "E",
        "mlp" => "-",
        other => bail!("a layer is of the kind {other:?} in layers_block_type"),
    })
}

impl Family for Args {
    /// The number of layers follows from their list.
    const DEFAULTS: &str = r#"{"num_hidden_layers": 0}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (kinds, dims) = (self.kinds()?, self.common.hidden_size);
        let norm = NormArgs::rms(self.layer_norm_epsilon);
        let layers = decoder::layers(kinds.len(), |layer| {
            Ok(BlockArgs::of(dims, norm, vec![self.part(&kinds[layer])?]))
        })?;
        let names = Names { body: "backbone", embedding: "embeddings", norm: "norm_f", ..Names::USUAL };
        let decoder = DecoderArgs::new([self.common.vocab_size, dims], norm, is_tied, layers);
        Ok(DecoderArgs { names, ..decoder })
    }
}
