//! The form of a stage in an encoded manifest, with every field and without a tag.
//! Knows nothing of what the fields mean.
//!
//! [`Stage`] itself is tagged for people to read, and leaves out fields that have their default, so that keys
//! stay as they are. Only formats that describe themselves can read that back, and postcard does not.

use serde::{Deserialize, Serialize};

use crate::stage::{Benchmark, Probe, Stage};
use weights::checkpoint::Towers;
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{AutoBits, Dtype, Fuse, Mixed, Override, Quantize, TokenizerOf};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Stage")]
pub(super) enum PlainStage {
    Base,
    Adapter,
    #[serde(with = "PlainFuse")]
    Fuse(Fuse),
    #[serde(with = "PlainQuantize")]
    Quantize(Quantize),
    Probe(Probe),
    Benchmark(Benchmark),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Fuse")]
struct PlainFuse {
    dtype: Option<Dtype>,
    requantize: bool,
    rounding: Rounding,
    tokenizer: TokenizerOf,
    towers: Towers,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Quantize")]
struct PlainQuantize {
    auto: Option<AutoBits>,
    bits: usize,
    group_size: usize,
    mode: Mode,
    overrides: Vec<Override>,
    recipe: Option<Mixed>,
    rounding: Rounding,
    towers: Towers,
}
