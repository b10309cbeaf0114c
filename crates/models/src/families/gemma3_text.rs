//! The `gemma3_text` architecture, as in mlx-lm's `gemma3_text.py`: most layers see only a sliding window, and have a rope
//! base of their own.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use super::gemma2::parts;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm, NormArgs};
use crate::rope_scaling::RopeConfig;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    rope_local_base_freq: f32,
    query_pre_attn_scalar: f32,
    sliding_window_pattern: usize,
}

impl Args {
    fn is_sliding(&self, layer: usize) -> bool {
        !(layer + 1).is_multiple_of(self.sliding_window_pattern)
    }

    /// `layer_types` is the newer spelling of the pattern. mlx-lm does not read it, so both must agree.
    fn check_types(&self) -> Result<()> {
        let pattern = self.sliding_window_pattern;
        ensure!(pattern > 0, "sliding_window_pattern is 0");
        for (layer, kind) in self.common.layer_types.iter().flatten().enumerate() {
            let same = (kind == "sliding_attention") == self.is_sliding(layer);
            ensure!(same, "layer {layer} is {kind} in layer_types, but not by sliding_window_pattern {pattern}");
        }
        Ok(())
    }
}

impl Family for Args {
    /// Those of the 1B model, whose config omits most of the keys.
    const DEFAULTS: &str = r#"{
        "hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912, "num_attention_heads": 4,
        "head_dim": 256, "rms_norm_eps": 1e-6, "vocab_size": 262144, "num_key_value_heads": 1,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 256,
        "sliding_window": 512, "sliding_window_pattern": 6, "max_position_embeddings": 32768
    }"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        self.check_types()?;
        let common = &self.common;
        let norm = NormArgs::gemma(common.norm()?.eps);
        let local = RopeConfig { base: self.rope_local_base_freq, ..common.plain_rope(0.0) };
        let ropes = [common.rope(1_000_000.0).args()?, local.args()?];
        let scale = 1.0 / self.query_pre_attn_scalar.sqrt();
        let attention = AttentionArgs { scale, head_norm: HeadNorm::each(norm), ..common.attention() };
        let decoder = common.decoder(is_tied, norm, |layer| {
            let is_sliding = self.is_sliding(layer);
            let window = common.sliding_window.filter(|_| is_sliding);
            let rope = Some(ropes[usize::from(is_sliding)].clone());
            let parts = parts(AttentionArgs { window, rope, ..attention.clone() }, common.mlp());
            Ok(BlockArgs { is_clipped: true, ..BlockArgs::of(common.hidden_size, norm, parts) })
        })?;
        // Rounded to bfloat16, as in mlx-lm.
        let scale = half::bf16::from_f32((common.hidden_size as f32).sqrt()).to_f32();
        Ok(DecoderArgs { embedding_scale: Some(scale), ..decoder })
    }
}
