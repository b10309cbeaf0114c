//! The `nemotron` architecture (Nemotron 4, Minitron), as in mlx-lm's `nemotron.py`: layer norms whose files hold the weight
//! minus one, and a feed-forward layer without a gate.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, MlpForm, ModuleArgs, NormArgs, NormWeight};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    norm_eps: f32,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"partial_rotary_factor": 0.5}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        let norm = NormArgs { weight: NormWeight::MinusOne, ..NormArgs::layer(self.norm_eps, true) };
        let (rope, bias) = (Some(common.rope(10_000.0).turning(common.turned()).args()?), common.attention_bias);
        let attention = AttentionArgs { rope, qkv_bias: bias, o_bias: bias, ..common.attention() };
        let form = MlpForm::Plain { up: "up_proj", down: "down_proj" };
        let (activation, bias) = (Activation::SquaredRelu, common.mlp_bias);
        let mlp = MlpArgs { bias, activation, form, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
