//! The `starcoder2` architecture, as in mlx-lm's `starcoder2.py`: layer norms, biases everywhere, and a feed-forward layer
//! without a gate.
//! Knows neither files nor the text of tokens.

use anyhow::Result;
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, MlpForm, ModuleArgs, NormArgs};
use crate::runtime::Activation;

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    norm_epsilon: f32,
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"norm_epsilon": 1e-5, "vocab_size": 49152}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        // mlx-lm does not read `head_dim` here.
        let common = &Common { head_dim: None, ..self.common.clone() };
        let norm = NormArgs::layer(self.norm_epsilon, true);
        let rope = Some(common.plain_rope(100_000.0).args()?);
        let attention = AttentionArgs { rope, qkv_bias: true, o_bias: true, ..common.attention() };
        let form = MlpForm::Plain { up: "c_fc", down: "c_proj" };
        let mlp = MlpArgs { bias: true, activation: Activation::ExactGelu, form, ..common.mlp() };
        common.decoder(is_tied, norm, |_| {
            let mixer = ("self_attn", ModuleArgs::Attention(attention.clone()));
            Ok(BlockArgs::usual((common.hidden_size, norm), mixer, ("mlp", ModuleArgs::Mlp(mlp))))
        })
    }
}
