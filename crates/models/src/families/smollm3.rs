//! The `smollm3` architecture, as in mlx-lm's `smollm3.py`: Llama without positions in some layers.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::common::Common;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, ModuleArgs};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    /// 1 for each layer with positions, 0 for each other.
    no_rope_layers: Option<Vec<u8>>,
    no_rope_layer_interval: usize,
}

impl Args {
    fn has_positions(&self, layer: usize) -> bool {
        match &self.no_rope_layers {
            Some(layers) => layers.get(layer) != Some(&0),
            None => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
        }
    }
}

impl Family for Args {
    const DEFAULTS: &str = r#"{"no_rope_layer_interval": 4}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        ensure!(self.no_rope_layer_interval > 0, "no_rope_layer_interval is 0");
        if let Some(layers) = &self.no_rope_layers {
            let (found, wanted) = (layers.len(), common.num_hidden_layers);
            ensure!(found == wanted, "{found} no_rope_layers for {wanted} layers");
        }
        let (norm, bias, rope) = (common.norm()?, common.attention_bias, common.rope(10_000.0).traditional(common.is_traditional()).args()?);
        let attention = AttentionArgs { qkv_bias: bias, o_bias: bias, ..common.attention() };
        let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
        common.decoder(is_tied, norm, |layer| {
            let rope = self.has_positions(layer).then(|| rope.clone());
            let window = common.window(layer, |_| false)?;
            let mixer = ModuleArgs::Attention(AttentionArgs { rope, window, ..attention.clone() });
            let feed_forward = ("mlp", ModuleArgs::Mlp(mlp));
            Ok(BlockArgs::usual((common.hidden_size, norm), ("self_attn", mixer), feed_forward))
        })
    }
}
