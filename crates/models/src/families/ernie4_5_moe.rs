//! The `ernie4_5_moe` architecture, as in mlx-lm's `ernie4_5_moe.py`: Ernie with experts in a range of layers, and more that all
//! tokens go through.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use super::common::Common;
use super::ernie4_5::attention;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{BlockArgs, ExpertsArgs, MlpArgs, ModuleArgs, PartArgs, RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    use_bias: bool,
    moe_num_experts: i32,
    moe_layer_start_index: Index,
    moe_layer_end_index: Option<Index>,
    moe_intermediate_size: i32,
    moe_k: i32,
    moe_layer_interval: usize,
    moe_num_shared_experts: i32,
    moe_gate_act: String,
}

/// The number of a layer, or of one for each modality.
#[derive(Deserialize)]
#[serde(untagged)]
enum Index {
    One(usize),
    Each(Vec<usize>),
}

impl Index {
    fn numbers(&self) -> &[usize] {
        match self {
            Self::One(number) => std::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }
}

impl Args {
    fn has_experts(&self, layer: usize) -> bool {
        let first = self.moe_layer_start_index.numbers().iter().min().copied().unwrap_or_default();
        let last = self.moe_layer_end_index.as_ref().and_then(|last| last.numbers().iter().max().copied());
        let last = last.unwrap_or(usize::MAX);
        (layer + 1).is_multiple_of(self.moe_layer_interval) && (first..=last).contains(&layer)
    }

    fn feed_forward(&self, layer: usize) -> Result<PartArgs> {
        let (common, norm, bias) = (&self.common, "post_attention_layernorm", self.use_bias);
        if !self.has_experts(layer) {
            let mlp = MlpArgs { bias, ..common.mlp() };
            return Ok(PartArgs::new(norm, "mlp", ModuleArgs::Mlp(mlp)));
        }
        let scores = match self.moe_gate_act.as_str() {
            "softmax" => Scores::Softmax,
            "sigmoid" => Scores::Sigmoid,
            other => bail!("moe_gate_act {other:?} is not supported"),
        };
        let router = RouterArgs {
            scores,
            normalized: Some(0.0),
            ..RouterArgs::new(self.moe_num_experts, self.moe_k)
        };
        let own = Some(self.moe_intermediate_size).filter(|size| *size != 0);
        let size = own.unwrap_or(common.intermediate_size);
        let experts = ExpertsArgs { bias, ..ExpertsArgs::new(common.hidden_size, size, router) };
        let part = PartArgs::new(norm, "mlp", ModuleArgs::Experts(experts));
        if self.moe_num_shared_experts <= 0 {
            return Ok(part);
        }
        let size = size.saturating_mul(self.moe_num_shared_experts);
        let shared = MlpArgs { bias, ..MlpArgs::new(common.hidden_size, size) };
        Ok(part.and("mlp.shared_experts", ModuleArgs::Mlp(shared)))
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{
        "moe_layer_start_index": 0, "moe_intermediate_size": 0, "moe_k": 1, "moe_layer_interval": 1,
        "moe_num_shared_experts": 0, "moe_gate_act": "softmax"
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        ensure!(self.moe_layer_interval > 0, "moe_layer_interval is 0");
        let (common, norm) = (&self.common, self.common.norm()?);
        let attention = attention(common, self.use_bias)?;
        common.decoder(is_tied, norm, |layer| {
            let mixer = ModuleArgs::Attention(attention.clone());
            let mixer = PartArgs::new("input_layernorm", "self_attn", mixer);
            Ok(BlockArgs::of(common.hidden_size, norm, vec![mixer, self.feed_forward(layer)?]))
        })
    }
}
