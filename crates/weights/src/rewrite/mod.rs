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

use crate::checkpoint::{Checkpoint, ModelOrigin, copy_side_files};
use crate::error::Result;
use crate::kernels::{Backend, Cpu};
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

/// How much memory a rewrite needs beside the largest weight, in bytes.
const BESIDE_WEIGHTS: u64 = 300_000_000;

/// How much of a model is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// All but the numbers.
    Outline,
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
        self.write(Extent::Whole, output, backend, tick)
    }

    /// Writes the outline of the model into `output`: all files that [`run`](Self::run) writes, but the numbers in the
    /// weights are holes, which take no space on most disks. The model and the adapters may be outlines themselves.
    /// With `bits: auto`, the bits are a guess. `survival.json` is left out, because it is measured.
    ///
    /// # Errors
    /// Fails if an input cannot be read or is not valid, if the options or the adapter do not fit the model, or if
    /// `output` cannot be written.
    pub fn outline(&self, output: &Output) -> Result<()> {
        self.write(Extent::Outline, output, &Cpu::default(), &|_, _| Ok(()))
    }

    fn write(&self, extent: Extent, output: &Output, backend: &dyn Backend, tick: Tick<'_>) -> Result<()> {
        match &self.operation {
            Operation::Fuse { adapters, options } => {
                fuse::run(options, &self.model, adapters, extent, output, backend, tick)?;
            }
            Operation::Quantize { options, fine_tuning, probe } => {
                let measured = fine_tuning.as_ref().filter(|_| extent == Extent::Whole);
                let context = (measured, probe.as_deref().filter(|_| extent == Extent::Whole));
                quantize::run(options, &self.model, context, extent, output, backend, tick)?;
            }
        }
        copy_side_files(&self.model, self.tokenizer(), self.origin.as_ref(), output)
    }

    /// Returns how much memory [`run`](Self::run) needs at most, in bytes: some for the queue and the threads, and twice the
    /// largest weight. `bench/weights.py` checks it.
    ///
    /// # Errors
    /// Fails if the model cannot be opened.
    pub fn memory(&self) -> Result<u64> {
        let checkpoint = Checkpoint::open(&self.model)?;
        let floats =
            checkpoint.weights().values().map(|weight| weight.rows() as u64 * weight.columns() as u64);
        Ok(BESIDE_WEIGHTS + 2 * 2 * floats.max().unwrap_or(0))
    }

    /// Returns the most bytes that the weights may take, if that was asked for with `bits: auto`.
    ///
    /// # Errors
    /// Fails if the model cannot be opened.
    pub fn budget(&self) -> Result<Option<u64>> {
        let Operation::Quantize { options: Quantize { auto: Some(auto), towers, .. }, .. } = &self.operation
        else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open_with(&self.model, *towers)?;
        #[expect(clippy::cast_possible_truncation, reason = "a size is not negative, and far below 2^53")]
        Ok(Some(auto.target_bits.bytes(checkpoint.parameters()) as u64))
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
