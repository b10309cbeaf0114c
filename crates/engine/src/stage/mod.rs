//! The stages: what each kind of node does, as a function from folders to a folder.
//! Knows nothing of the graph, of keys or of the store.

mod base;
mod benchmark;
mod params;
mod worker;

pub use params::{BackendKind, Benchmark, Config, Kind, Stage};
pub use worker::WorkerProgram;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{OrBug, Result, require};
use artifact::{Output, Tick};
use protocol::MLX_ID;
use weights::adapter::Adapter;
use weights::checkpoint::ModelOrigin;
use weights::kernels::Cpu;
use weights::rewrite::{FineTuning, Job, Operation};

/// The role of the model that the fine-tuning of a `quantize` node's model began with.
pub const BASE_ROLE: &str = "base";

/// The role of what that fine-tuning made, if another `quantize` node lies between.
pub const FUSED_ROLE: &str = "fused";

/// Where the inputs of a stage lie.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The folder of each input node, by role.
    pub folders: BTreeMap<String, PathBuf>,
    /// The file or folder outside the graph.
    pub source: Option<PathBuf>,
    /// The repository and commit on the hub that the weights descend from, for `fuse` and `quantize`.
    pub origin: Option<ModelOrigin>,
    /// What was measured earlier, for a benchmark of which only the questions are new: its files by name.
    pub measured: BTreeMap<String, Vec<u8>>,
}

impl Inputs {
    fn folder(&self, role: &str) -> Result<&Path> {
        self.folders.get(role).map(PathBuf::as_path).or_bug("a stage has its inputs")
    }

    fn source(&self) -> Result<&Path> {
        self.source.as_deref().or_bug("there is no source")
    }
}

/// What stages are computed with.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// What weights are computed with.
    pub backend: BackendKind,
    /// What answers requests for MLX.
    pub worker: &'a WorkerProgram,
}

/// What a stage counts as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Bytes,
    Queries,
}

impl Stage {
    /// Names what the stage computes with, as far as its bytes depend on it.
    pub fn backend(&self, chosen: BackendKind) -> &'static str {
        match self {
            Self::Base | Self::Adapter => "none",
            Self::Fuse(_) | Self::Quantize(_) => chosen.id(),
            Self::Benchmark(_) => MLX_ID,
        }
    }

    /// Whether the stage runs on MLX, of which there is one: stages that do wait for each other.
    pub fn uses_mlx(&self, chosen: BackendKind) -> bool {
        self.backend(chosen) == MLX_ID
    }

    /// Returns what the stage counts as it goes.
    pub fn unit(&self) -> Unit {
        if matches!(self, Self::Benchmark(_)) { Unit::Queries } else { Unit::Bytes }
    }
}

/// Runs `stage` on `inputs`; writes into `output`. A `base` or `adapter` writes nothing: it is its source.
pub fn run(
    stage: &Stage,
    inputs: &Inputs,
    output: &Output,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<()> {
    let operation = match stage {
        Stage::Base => return base::check(inputs.source()?, output),
        Stage::Adapter => return Ok(Adapter::open(inputs.source()?)?.check()?),
        Stage::Benchmark(parameters) => {
            return benchmark::run(parameters, inputs, output, environment.worker, tick);
        }
        Stage::Fuse(options) => {
            let adapter = inputs.folder("adapter")?.to_owned();
            Operation::Fuse { adapter, options: options.clone() }
        }
        Stage::Quantize(options) => {
            let fused = inputs.folders.get(FUSED_ROLE).cloned();
            let base = inputs.folders.get(BASE_ROLE).cloned();
            let fine_tuning = base.map(|base| FineTuning { base, fused });
            Operation::Quantize { options: options.clone(), fine_tuning }
        }
    };
    let job = Job { model: inputs.folder("model")?.to_owned(), operation, origin: inputs.origin.clone() };
    match environment.backend {
        BackendKind::Mlx => environment.worker.rewrite(job, output, tick),
        BackendKind::Cpu => Ok(job.run(output, &Cpu::default(), tick)?),
    }
}

/// Checks what can be known before anything runs, so that a mistake at the end of a graph is not found after an
/// hour of work. `bases` are the model folders outside the graph that the node descends from.
pub fn preflight(stage: &Stage, source: Option<&Path>, bases: &[PathBuf]) -> Result<()> {
    match stage {
        Stage::Base | Stage::Adapter => {
            let source = source.or_bug("there is no source")?;
            require!(source.is_dir(), Source, "the source {} is not a folder", source.display());
        }
        Stage::Quantize(parameters) => {
            bases.iter().try_for_each(|base| Job::check_quantize(parameters, base))?;
        }
        Stage::Benchmark(parameters) => {
            benchmark::preflight(parameters, source.or_bug("there is no suite")?)?;
        }
        Stage::Fuse(_) => {}
    }
    Ok(())
}
