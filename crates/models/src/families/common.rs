//! The keys of `config.json` that most families have, and the usual parts that follow from them.
//! Does not know which family reads it: each takes the parts that it has, and changes what differs.

use anyhow::{Context, Result, ensure};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::decoder::{self, DecoderArgs};
use crate::layers::{AttentionArgs, BlockArgs, MlpArgs, NormArgs};
use crate::rope_scaling::{RopeConfig, RopeScaling};

/// The keys that most families have.
#[derive(Clone, Deserialize)]
pub(super) struct Common {
    pub(super) hidden_size: i32,
    pub(super) num_hidden_layers: usize,
    pub(super) intermediate_size: i32,
    pub(super) num_attention_heads: i32,
    pub(super) num_key_value_heads: Option<i32>,
    pub(super) head_dim: Option<i32>,
    pub(super) rms_norm_eps: Option<f32>,
    pub(super) vocab_size: i32,
    pub(super) rope_theta: Option<f32>,
    pub(super) rope_scaling: Option<RopeScaling>,
    pub(super) rope_traditional: Option<bool>,
    pub(super) partial_rotary_factor: Option<f32>,
    pub(super) max_position_embeddings: Option<i32>,
    #[serde(default)]
    pub(super) attention_bias: bool,
    #[serde(default)]
    pub(super) mlp_bias: bool,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) sliding_window: Option<i32>,
}

impl Common {
    /// Returns the size of a head: `head_dim`, or the part of the hidden vector that a head gets.
    pub(super) fn head_dim(&self) -> i32 {
        // A head_dim of 0 counts as absent, as in Python.
        let own = self.head_dim.filter(|dims| *dims != 0);
        own.or_else(|| self.hidden_size.checked_div(self.num_attention_heads)).unwrap_or_default()
    }

    /// Returns attention without positions, biases or norms.
    pub(super) fn attention(&self) -> AttentionArgs {
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        AttentionArgs::new(self.hidden_size, heads, kv_heads, self.head_dim())
    }

    /// Returns the gated feed-forward layer without biases.
    pub(super) fn mlp(&self) -> MlpArgs {
        MlpArgs::new(self.hidden_size, self.intermediate_size)
    }

    /// Returns `nn.RMSNorm`.
    pub(super) fn norm(&self) -> Result<NormArgs> {
        Ok(NormArgs::rms(self.rms_norm_eps.context("no rms_norm_eps")?))
    }

    /// Returns how positions turn whole heads, with `rope_scaling` if there is one. `base` stands in for `rope_theta`.
    pub(super) fn rope(&self, base: f32) -> RopeConfig<'_> {
        RopeConfig { scaling: self.rope_scaling.as_ref(), ..self.plain_rope(base) }
    }

    /// Returns how positions turn whole heads, whatever `rope_scaling` says. `base` stands in for `rope_theta`.
    pub(super) fn plain_rope(&self, base: f32) -> RopeConfig<'_> {
        RopeConfig {
            dims: self.head_dim(),
            base: self.rope_theta.unwrap_or(base),
            traditional: false,
            scaling: None,
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    /// Returns `rope_theta`, which must be there.
    pub(super) fn theta(&self) -> Result<f32> {
        self.rope_theta.context("no rope_theta")
    }

    /// Returns `rope_traditional`: whether neighbours are turned together.
    pub(super) fn is_traditional(&self) -> bool {
        self.rope_traditional.unwrap_or(false)
    }

    /// Returns how many dimensions of a head are turned by `partial_rotary_factor`.
    pub(super) fn turned(&self) -> i32 {
        turned(self.head_dim(), self.partial_rotary_factor.unwrap_or(1.0))
    }

    /// Returns the kind of a layer in `layer_types`.
    ///
    /// # Errors
    /// Fails if the list has another length than there are layers, or if the kind is not one of `known`.
    pub(super) fn kind(&self, layer: usize, known: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(types) = &self.layer_types else { return Ok(None) };
        let (found, wanted) = (types.len(), self.num_hidden_layers);
        ensure!(found == wanted, "{found} layer_types for {wanted} layers");
        let kind = types.get(layer).with_context(|| format!("layer {layer} has no type"))?;
        let known = known.iter().find(|known| *known == kind);
        known.copied().map(Some).with_context(|| format!("layer {layer} is {kind:?} in layer_types"))
    }

    /// Returns the window of a layer: `layer_types` says whether it has one, and if there is no such list, `slides`.
    pub(super) fn window(&self, layer: usize, slides: impl FnOnce(usize) -> bool) -> Result<Option<i32>> {
        let slides = match self.kind(layer, &["full_attention", "sliding_attention"])? {
            Some(kind) => kind == "sliding_attention",
            None => slides(layer),
        };
        if !slides {
            return Ok(None);
        }
        self.sliding_window.map(Some).context("sliding_attention without sliding_window")
    }

    /// Returns a decoder whose last norm is like the others. `layer` gives the arguments of each layer.
    pub(super) fn decoder(
        &self,
        is_tied: bool,
        norm: NormArgs,
        layer: impl FnMut(usize) -> Result<BlockArgs>,
    ) -> Result<DecoderArgs> {
        let layers = decoder::layers(self.num_hidden_layers, layer)?;
        Ok(DecoderArgs::new([self.vocab_size, self.hidden_size], norm, is_tied, layers))
    }
}

/// Returns how many of `dims` dimensions are turned.
pub(super) fn turned(dims: i32, factor: f32) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the part of a dimension is not turned, as in Python"
    )]
    let turned = (f64::from(dims) * f64::from(factor)) as i32;
    turned
}

/// A number that may be infinite. JSON has no such number, so a file has Python's `Infinity`, or as transformers 5 writes
/// it, `{"__float__": "Infinity"}`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub(super) f32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Finite(f32),
            Python(String),
            Tagged {
                #[serde(rename = "__float__")]
                name: String,
            },
        }
        let name = match Written::deserialize(deserializer)? {
            Written::Finite(number) => return Ok(Self(number)),
            // A NUL marks what is no text: see `text::python_json`.
            Written::Python(name) => name.trim_start_matches('\0').to_owned(),
            Written::Tagged { name } => name,
        };
        match name.as_str() {
            "Infinity" => Ok(Self(f32::INFINITY)),
            "-Infinity" => Ok(Self(f32::NEG_INFINITY)),
            other => Err(D::Error::custom(format!("{other:?} is not a number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_infinite() {
        let number = |json: &str| serde_json::from_str::<Number>(json).map(|number| number.0);
        assert_eq!(number("0.5").unwrap(), 0.5);
        assert_eq!(number(r#""\u0000Infinity""#).unwrap(), f32::INFINITY);
        assert_eq!(number(r#"{"__float__": "-Infinity"}"#).unwrap(), f32::NEG_INFINITY);
        assert!(number(r#""wide""#).unwrap_err().to_string().contains("\"wide\" is not a number"));
    }
}
