//! The form of a stage in an encoded manifest, with every field and without a tag.
//! Knows nothing of what the fields mean.
//!
//! [`Stage`] itself is tagged for people to read, and leaves out fields that have their default, so that keys
//! stay as they are. Only formats that describe themselves can read that back, and postcard does not.

use serde::{Deserialize, Serialize};

use crate::stage::{Benchmark, Config, Device, DeviceChoice, Probe, Stage};
use report::{Gate, Verdict};
use weights::checkpoint::Towers;
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{AutoBits, Dtype, Fuse, Mixed, Override, Quantize, Scale, TokenizerOf};

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
    #[serde(with = "PlainBenchmark")]
    Benchmark(Benchmark),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Benchmark")]
struct PlainBenchmark {
    #[serde(with = "plain_configs")]
    configs: Vec<Config>,
    gates: Vec<Gate>,
    device: DeviceChoice,
    runs_on: Device,
    reference: Option<String>,
    verdicts: Vec<Verdict>,
}

/// Configurations with every field.
mod plain_configs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Config, TokenizerOf};

    pub(super) fn serialize<S: Serializer>(configs: &[Config], serializer: S) -> Result<S::Ok, S::Error> {
        let plain = configs.iter().map(|config| (config.adapter, &config.name, config.tokenizer));
        plain.collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Config>, D::Error> {
        let plain = Vec::<(bool, String, TokenizerOf)>::deserialize(deserializer)?;
        Ok(plain.into_iter().map(|(adapter, name, tokenizer)| Config { adapter, name, tokenizer }).collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Fuse")]
struct PlainFuse {
    dtype: Option<Dtype>,
    requantize: bool,
    rounding: Rounding,
    scales: Vec<Scale>,
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
