//! The form of a stage in an encoded manifest, with every field and without a tag.
//! Knows nothing of what the fields mean.
//!
//! [`Stage`] itself is tagged for people to read, and leaves out fields that have their default, so that keys
//! stay as they are. Only formats that describe themselves can read that back, and postcard does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stage::{Benchmark, Config, Device, DeviceChoice, Kind, Probe, Run, Stage};
use report::{Bound, Criterion, Gate, Quantity, Verdict};
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
    Files,
    #[serde(with = "PlainRun")]
    Run(Run),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Run")]
struct PlainRun {
    command: Vec<String>,
    deterministic: bool,
    files: Vec<String>,
    env: Vec<String>,
    key_env: BTreeMap<String, Option<String>>,
    makes: Kind,
    outputs: Vec<String>,
    timeout: Option<u64>,
    tool: Vec<String>,
    version: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Benchmark")]
struct PlainBenchmark {
    #[serde(with = "plain_configs")]
    configs: Vec<Config>,
    #[serde(with = "plain_gates")]
    gates: Vec<Gate>,
    device: DeviceChoice,
    runs_on: Device,
    reference: Option<String>,
    #[serde(with = "plain_verdicts")]
    verdicts: Vec<Verdict>,
}

/// A criterion with every field.
type PlainCriterion = (Bound, Option<String>, Quantity);

fn plain(criteria: &[Criterion]) -> Vec<PlainCriterion> {
    let plain = |criterion: &Criterion| (criterion.bound, criterion.category.clone(), criterion.quantity);
    criteria.iter().map(plain).collect()
}

fn criteria(plain: Vec<PlainCriterion>) -> Vec<Criterion> {
    plain.into_iter().map(|(bound, category, quantity)| Criterion { bound, category, quantity }).collect()
}

/// Gates with every field.
mod plain_gates {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Gate, PlainCriterion, criteria, plain};

    pub(super) fn serialize<S: Serializer>(gates: &[Gate], serializer: S) -> Result<S::Ok, S::Error> {
        let plain = gates.iter().map(|gate| (&gate.against, &gate.config, plain(&gate.criteria)));
        plain.collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Gate>, D::Error> {
        let plain = Vec::<(Option<String>, String, Vec<PlainCriterion>)>::deserialize(deserializer)?;
        let gate = |(against, config, plain)| Gate { against, config, criteria: criteria(plain) };
        Ok(plain.into_iter().map(gate).collect())
    }
}

/// Verdicts with every field.
mod plain_verdicts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{PlainCriterion, Verdict, criteria, plain};

    type Plain = (Option<String>, String, Vec<PlainCriterion>, Vec<PlainCriterion>, Option<String>);

    pub(super) fn serialize<S: Serializer>(verdicts: &[Verdict], serializer: S) -> Result<S::Ok, S::Error> {
        let plain = verdicts.iter().map(|Verdict { against, config, minimum, optimal, otherwise }| {
            (against, config, plain(minimum), plain(optimal), otherwise)
        });
        plain.collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Verdict>, D::Error> {
        let verdict = |(against, config, minimum, optimal, otherwise): Plain| Verdict {
            against,
            config,
            minimum: criteria(minimum),
            optimal: criteria(optimal),
            otherwise,
        };
        Ok(Vec::<Plain>::deserialize(deserializer)?.into_iter().map(verdict).collect())
    }
}

/// Configurations with every field.
mod plain_configs {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use super::{Config, TokenizerOf};

    pub(super) fn serialize<S: Serializer>(configs: &[Config], serializer: S) -> Result<S::Ok, S::Error> {
        let plain = configs.iter().map(|Config { adapter, name, tokenizer, template_args }| {
            // A value of any kind does not describe itself in postcard, so it is a text.
            (adapter, name, tokenizer, Value::Object(template_args.clone()).to_string())
        });
        plain.collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Config>, D::Error> {
        let plain = Vec::<(bool, String, TokenizerOf, String)>::deserialize(deserializer)?;
        let config = |(adapter, name, tokenizer, text): (_, _, _, String)| {
            let template_args = serde_json::from_str(&text).map_err(D::Error::custom)?;
            Ok(Config { adapter, name, tokenizer, template_args })
        };
        plain.into_iter().map(config).collect()
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
