//! The `exaone4` architecture, as in mlx-lm's `exaone4.py`: norms come after both parts of a layer and on each head, and
//! where some layers see only a sliding window, the others have no positions.
//! Knows neither files nor the text of tokens.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::common::Common;
use super::olmo2::parts;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, HeadNorm};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    /// `L` for each layer with a window, `G` for each other, over and over. It may be null, but not absent.
    #[serde(deserialize_with = "Option::deserialize")]
    sliding_window_pattern: Option<String>,
}

impl Family for Args {
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let common = &self.common;
        ensure!(common.head_dim.is_some(), "no head_dim");
        ensure!(common.num_key_value_heads.is_some(), "no num_key_value_heads");
        let (norm, rope) = (common.norm()?, common.rope(common.theta()?).args()?);
        // An empty pattern is none, as in Python.
        let pattern = self.sliding_window_pattern.as_deref().unwrap_or_default();
        let is_complete = pattern.is_empty() || (pattern.contains('L') && pattern.contains('G'));
        ensure!(is_complete, "sliding_window_pattern {pattern:?} lacks L or G");
        let pattern: Vec<char> = pattern.chars().collect();
        let attention = AttentionArgs { head_norm: HeadNorm::each(norm), ..common.attention() };
        common.decoder(is_tied, norm, |layer| {
            let kind = layer.checked_rem(pattern.len()).and_then(|place| pattern.get(place));
            let window = match kind {
                Some('L') => Some(common.sliding_window.context("sliding_window_pattern without sliding_window")?),
                _ => None,
            };
            let rope = (kind.is_none() || window.is_some()).then(|| rope.clone());
            let parts = parts(AttentionArgs { window, rope, ..attention.clone() }, common.mlp());
            Ok(BlockArgs::of(common.hidden_size, norm, parts))
        })
    }
}
