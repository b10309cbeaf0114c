//! Where one configuration of a benchmark lies, and what its files say of it without running it.
//! Knows nothing of suites' answers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::stage::{Benchmark, Inputs};
use artifact::AtPath;
use protocol::{Evaluate, Measure};
use report::Quantization;
use report::suite::Suite;
use weights::adapter::{Adapter, Base};
use weights::checkpoint::Checkpoint;
use weights::survival::{Survival, read_survival};

pub(super) struct Folders<'a> {
    model: &'a Path,
    adapter: Option<&'a Path>,
}

impl<'a> Folders<'a> {
    /// Finds the folders of the configuration called `name`.
    pub(super) fn of(parameters: &Benchmark, name: &str, inputs: &'a Inputs) -> anyhow::Result<Self> {
        let config = parameters.configs.iter().find(|config| config.name == name);
        let config = config.with_context(|| format!("BUG: there is no config `{name}`"))?;
        let folder = |role: &str| inputs.folder(&format!("{name}.{role}"));
        let adapter = config.adapter.then(|| folder("adapter")).transpose()?;
        Ok(Self { model: folder("model")?, adapter })
    }

    /// Refuses an adapter that does not fit before a model is loaded for it.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.adapter {
            Some(adapter) => Ok(Adapter::open(adapter)?.fits(&Base::of(&Checkpoint::open(self.model)?))?),
            None => Ok(()),
        }
    }

    /// Asks for answers to the queries.
    pub(super) fn measure(&self, suite: &Suite) -> Measure {
        let (model, adapter) = self.owned();
        Measure {
            model,
            adapter,
            conversations: suite.queries.iter().map(|query| query.conversation.clone()).collect(),
            max_tokens: suite.max_tokens,
            repeats: suite.repeats,
            warmup: suite.warmup,
        }
    }

    /// Asks for the texts to be evaluated, and compared with the distributions of `reference`.
    pub(super) fn evaluate(&self, suite: &Suite, reference: Option<&Self>) -> Evaluate {
        let (model, adapter) = self.owned();
        Evaluate {
            model,
            adapter,
            reference: reference.map(Self::owned),
            texts: suite.texts.clone(),
            context: suite.context,
        }
    }

    fn owned(&self) -> (PathBuf, Option<PathBuf>) {
        (self.model.to_owned(), self.adapter.map(Path::to_owned))
    }

    /// Bytes of all files of the model and of the adapter.
    pub(super) fn disk_bytes(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for folder in [Some(self.model), self.adapter].into_iter().flatten() {
            for entry in fs::read_dir(folder).at("read", folder)? {
                let path = entry.at("read", folder)?.path();
                sum += fs::metadata(&path).at("read", &path)?.len();
            }
        }
        Ok(sum)
    }

    /// Bits that the tensors take, per weight of the model.
    pub(super) fn bits_per_weight(&self) -> anyhow::Result<f64> {
        let checkpoint = Checkpoint::open(self.model)?;
        let mut stored = checkpoint.stored();
        if let Some(adapter) = self.adapter {
            stored += Adapter::open(adapter)?.stored();
        }
        Ok(stored as f64 * 8.0 / checkpoint.parameters() as f64)
    }

    /// How most weights are quantized, as `config.json` says; none if they are floats.
    pub(super) fn quantization(&self) -> anyhow::Result<Option<Quantization>> {
        let checkpoint = Checkpoint::open(self.model)?;
        let Some(section) = checkpoint.config.get("quantization") else { return Ok(None) };
        let number =
            |key: &str| section.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let mode = section.get("mode").and_then(Value::as_str).unwrap_or("affine");
        let read = |bits, group_size| Quantization { bits, group_size, mode: mode.to_owned() };
        Ok(number("bits").zip(number("group_size")).map(|(bits, group_size)| read(bits, group_size)))
    }

    /// What quantizing left of a fine-tuning, as its node found.
    pub(super) fn survival(&self) -> anyhow::Result<Option<Survival>> {
        Ok(read_survival(self.model)?)
    }
}
