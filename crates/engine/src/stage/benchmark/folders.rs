//! The folders of one configuration of a benchmark, and what its files say without running it.
//! Knows nothing of how answers are scored.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{OrBug, Result};
use crate::stage::{Benchmark, Inputs};
use artifact::AtPath;
use protocol::ModelFolders;
use weights::adapter::{Adapter, Base};
use weights::checkpoint::{Checkpoint, own_code};
use weights::kernels::QuantSpec;
use weights::rewrite::TokenizerOf;
use weights::survival::{Survival, read_survival};

/// The folders of one configuration.
pub(super) struct Folders<'a> {
    model: &'a Path,
    adapter: Option<&'a Path>,
    /// Whether the tokenizer and the chat template of the adapter come before those of the model.
    own_tokenizer: bool,
    /// Variables of the chat template that the configuration sets.
    template_args: &'a Map<String, Value>,
}

/// What the files of a configuration say about it.
pub(super) struct Facts {
    /// The size of all files of the model and of the adapter, in bytes.
    pub(super) disk_bytes: u64,
    /// Bits that all tensors take, per weight of the model.
    pub(super) bits_per_weight: f64,
    /// The default quantization in `config.json`; `None` if it has none.
    pub(super) quantization: Option<QuantSpec>,
    /// The programs in the model's folder.
    pub(super) code: Vec<String>,
    /// How much of the fine-tuning survived quantization, as the `quantize` node measured it.
    pub(super) survival: Option<Survival>,
}

impl<'a> Folders<'a> {
    /// Finds the folders of the configuration called `name`.
    pub(super) fn of(parameters: &'a Benchmark, name: &str, inputs: &'a Inputs) -> Result<Self> {
        let config = parameters.configs.iter().find(|config| config.name == name);
        let config = config.or_bug("a benchmark has the config that is measured")?;
        let folder = |role: &str| inputs.folder(&format!("{name}.{role}"));
        let adapter = config.adapter.then(|| folder("adapter")).transpose()?;
        let own_tokenizer = config.tokenizer == TokenizerOf::Adapter;
        let template_args = &config.template_args;
        Ok(Self { model: folder("model")?, adapter, own_tokenizer, template_args })
    }

    /// Reads the facts from the files. Fails if the adapter does not fit, before a model is loaded for it.
    pub(super) fn facts(&self) -> Result<Facts> {
        let checkpoint = Checkpoint::open(self.model)?;
        let mut stored = checkpoint.stored();
        if let Some(folder) = self.adapter {
            let mut adapter = Adapter::open(folder)?;
            adapter.place(&Base::of(&checkpoint))?;
            stored += adapter.stored();
        }
        Ok(Facts {
            disk_bytes: self.disk_bytes()?,
            bits_per_weight: stored as f64 * 8.0 / checkpoint.parameters() as f64,
            quantization: checkpoint.default_spec(),
            code: own_code(self.model)?,
            survival: read_survival(self.model)?,
        })
    }

    /// Returns the variables of the chat template that the configuration sets.
    pub(super) fn template_args(&self) -> &Map<String, Value> {
        self.template_args
    }

    /// Returns the folders for a worker.
    pub(super) fn owned(&self) -> ModelFolders {
        let adapter = self.adapter.map(Path::to_owned);
        let tokenizer = adapter.clone().filter(|_| self.own_tokenizer);
        ModelFolders { model: self.model.to_owned(), adapter, tokenizer }
    }

    /// Returns the size of all files that are not hidden, in bytes.
    fn disk_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        let mut folders: Vec<_> =
            [Some(self.model), self.adapter].into_iter().flatten().map(Path::to_owned).collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).at("read", &folder)? {
                let entry = entry.at("read", &folder)?;
                let path = entry.path();
                let metadata = fs::metadata(&path).at("read", &path)?;
                match (entry.file_name().as_encoded_bytes().first(), metadata.is_dir()) {
                    (Some(b'.'), _) => {}
                    // A link to a folder may lead back to where it lies.
                    (_, true) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => folders.push(path),
                    (_, true) => {}
                    (_, false) => sum += metadata.len(),
                }
            }
        }
        Ok(sum)
    }
}
