//! Models made from models: an adapter fused into the weights, or the weights quantized.
//! Knows nothing of graphs, keys or caches: folders in, a folder out.
//!
//! A rewrite goes through a model once: every weight is read in blocks of rows, computed on all cores, and written in
//! the order of the file. Memory is that of a few blocks, never that of a model.

mod block;
mod chunk;
mod fuse;
mod measure;
mod options;
mod quantize;
mod rules;
mod run;
mod survival;
mod target;
mod write_queue;

pub use options::{Dtype, Fuse, Mixed, Override, Quantize};
pub use quantize::FineTuning;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{ModelOrigin, copy_side_files};
use crate::error::Result;
use crate::kernels::Backend;
use artifact::{Output, Tick};

/// A model folder to be made from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The folder of the model that is read.
    pub model: PathBuf,
    /// What is done to it.
    pub operation: Operation,
    /// Where the model comes from, for the model card.
    pub origin: Option<ModelOrigin>,
}

/// What is done to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The adapter in this folder is merged into the weights.
    Fuse {
        /// The adapter's folder.
        adapter: PathBuf,
        /// How.
        options: Fuse,
    },
    /// The weights are quantized.
    Quantize {
        /// How.
        options: Quantize,
        /// Where the model was fine-tuned, to measure what quantizing leaves of that.
        fine_tuning: Option<FineTuning>,
    },
}

impl Job {
    /// Quantizes the model in the folder `model`.
    pub fn quantize(model: impl Into<PathBuf>, options: Quantize) -> Self {
        let operation = Operation::Quantize { options, fine_tuning: None };
        Self { model: model.into(), operation, origin: None }
    }

    /// Fuses the adapter in the folder `adapter` into the model in the folder `model`.
    pub fn fuse(model: impl Into<PathBuf>, adapter: impl Into<PathBuf>, options: Fuse) -> Self {
        let operation = Operation::Fuse { adapter: adapter.into(), options };
        Self { model: model.into(), operation, origin: None }
    }

    /// Makes the model and writes it into `output`: weights, `config.json`, and the files beside them. `tick` is told
    /// how many bytes of the source are done.
    pub fn run(&self, output: &Output, backend: &dyn Backend, tick: Tick<'_>) -> Result<()> {
        match &self.operation {
            Operation::Fuse { adapter, options } => {
                fuse::run(options, &self.model, adapter, output, backend, tick)?;
            }
            Operation::Quantize { options, fine_tuning } => {
                quantize::run(options, &self.model, fine_tuning.as_ref(), output, backend, tick)?;
            }
        }
        copy_side_files(&self.model, self.origin.as_ref(), output)
    }

    /// Checks, without reading weights, that `options` fit the model in the folder `model`.
    pub fn check_quantize(options: &Quantize, model: &Path) -> Result<()> {
        quantize::check(options, model)
    }
}
