//! Makes models from models: fuses an adapter into the weights, or quantizes the weights.
//! Knows nothing of graphs, keys or caches: folders in, a folder out.
//!
//! A rewrite goes through a model once: every weight is read in blocks of rows, computed on all cores, and
//! written in the order of the file. It needs memory for a few chunks of blocks and the codes of one tensor,
//! never for a whole model.

mod allot;
mod auto;
mod baseline;
mod block;
mod chunk;
mod fuse;
mod measure;
mod options;
mod quantize;
mod rounding;
mod rules;
mod run;
mod survey;
mod survival;
mod target;
mod write_queue;

pub use options::{AutoBits, Dtype, Fuse, Mixed, Override, Quantize, Scale, TargetBits, TokenizerOf};
pub use quantize::FineTuning;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{ModelOrigin, copy_side_files};
use crate::error::Result;
use crate::kernels::Backend;
use artifact::{Output, Tick};

/// An order to make one model folder from another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The folder of the input model.
    pub model: PathBuf,
    /// What is done to the model.
    pub operation: Operation,
    /// Where the model comes from, for the model card.
    pub origin: Option<ModelOrigin>,
}

/// What is done to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Merges adapters into the weights.
    Fuse {
        /// The folders of the adapters, in the order in which they are summed.
        adapters: Vec<PathBuf>,
        /// The options of `fuse`.
        options: Fuse,
    },
    /// Quantizes the weights.
    Quantize {
        /// The options of `quantize`.
        options: Quantize,
        /// The fine-tuning that the model descends from, to measure how much of it survives.
        fine_tuning: Option<FineTuning>,
        /// The folder of a probe, which says what inputs the layers have.
        #[serde(default)]
        probe: Option<PathBuf>,
    },
}

impl Job {
    /// Returns a job that quantizes the model in the folder `model`.
    pub fn quantize(model: impl Into<PathBuf>, options: Quantize) -> Self {
        let operation = Operation::Quantize { options, fine_tuning: None, probe: None };
        Self { model: model.into(), operation, origin: None }
    }

    /// Returns a job that fuses the adapter in the folder `adapter` into the model in the folder `model`.
    pub fn fuse(model: impl Into<PathBuf>, adapter: impl Into<PathBuf>, options: Fuse) -> Self {
        let operation = Operation::Fuse { adapters: vec![adapter.into()], options };
        Self { model: model.into(), operation, origin: None }
    }

    /// Makes the model and writes it into `output`: weights, `config.json`, and the files beside them. `tick`
    /// is told how many bytes of the source are done.
    ///
    /// # Errors
    /// Fails if an input cannot be read or is not valid, if the options or the adapter do not fit the model,
    /// or if a weight is out of range. It also fails if the backend fails, if `output` cannot be written, or
    /// if `tick` asks to stop.
    pub fn run(&self, output: &Output, backend: &dyn Backend, tick: Tick<'_>) -> Result<()> {
        match &self.operation {
            Operation::Fuse { adapters, options } => {
                fuse::run(options, &self.model, adapters, output, backend, tick)?;
            }
            Operation::Quantize { options, fine_tuning, probe } => {
                let context = (fine_tuning.as_ref(), probe.as_deref());
                quantize::run(options, &self.model, context, output, backend, tick)?;
            }
        }
        copy_side_files(&self.model, self.tokenizer(), self.origin.as_ref(), output)
    }

    /// Returns the folder of the adapter whose tokenizer the new model has.
    fn tokenizer(&self) -> Option<&Path> {
        match &self.operation {
            Operation::Fuse { adapters, options } if options.tokenizer == TokenizerOf::Adapter => {
                adapters.last().map(PathBuf::as_path)
            }
            Operation::Fuse { .. } | Operation::Quantize { .. } => None,
        }
    }

    /// Checks, without reading weights, that `options` fit the model in the folder `model`. A folder that
    /// cannot be opened as a model passes the check.
    ///
    /// # Errors
    /// Fails if the options do not fit the model, for example if an override matches no layer.
    pub fn check_quantize(options: &Quantize, model: &Path) -> Result<()> {
        quantize::check(options, model)
    }
}
