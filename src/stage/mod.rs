//! The stages: what each kind of node does, as a function from folders to a folder.
//! Knows nothing of the graph, of keys or of the store.

mod base;
mod benchmark;
mod checkpoint;
mod fuse;
mod params;
mod pass;
mod quantize;
mod rules;
mod suite;
mod survival;
mod worker;

pub use checkpoint::{Checkpoint, ModelSummary};
pub use params::{Benchmark, Config, Dtype, Fuse, Kind, Mixed, Override, Quantize, Stage};
pub use survival::read_survival;
pub use worker::{Reply, Request};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::adapter::{Adapter, Base};
use crate::backend::{Backend, BackendKind, Cpu, MLX_ID};
use crate::failure::Interrupted;
use crate::origin::Origin;
use crate::output::Output;
use quantize::FineTuning;

/// The file in which a quantized model says what is left of the fine-tuning it descends from.
pub const SURVIVAL_FILE: &str = "survival.json";

/// The role of the model that the fine-tuning of a `quantize` node's model began with.
pub const BASE_ROLE: &str = "base";

/// The role of what that fine-tuning made, if another `quantize` node lies between.
pub const FUSED_ROLE: &str = "fused";

/// Where the inputs of a stage lie.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Inputs {
    /// The folder of each input node, by role.
    pub folders: BTreeMap<String, PathBuf>,
    /// The file or folder outside the graph.
    pub source: Option<PathBuf>,
    /// The repository and commit on the hub that the weights descend from, for `fuse` and `quantize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What was measured earlier, for a benchmark of which only the questions are new: its files by name.
    #[serde(skip)]
    pub measured: BTreeMap<String, Vec<u8>>,
}

impl Inputs {
    fn folder(&self, role: &str) -> anyhow::Result<&Path> {
        self.folders
            .get(role)
            .map(PathBuf::as_path)
            .with_context(|| format!("BUG: there is no input `{role}`"))
    }

    fn source(&self) -> anyhow::Result<&Path> {
        self.source.as_deref().context("BUG: there is no source")
    }
}

/// Reports how much of a stage is done, of how much; answers whether to go on.
pub type Tick<'a> = &'a (dyn Fn(u64, u64) -> Result<(), Interrupted> + Sync);

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
    backend: BackendKind,
    tick: Tick<'_>,
) -> anyhow::Result<()> {
    match (stage, backend) {
        (Stage::Base, _) => base::check(inputs.source()?, output),
        (Stage::Adapter, _) => Adapter::open(inputs.source()?)?.check(),
        (Stage::Benchmark(parameters), _) => benchmark::run(parameters, inputs, output, tick),
        (_, BackendKind::Mlx) => worker::transform(stage, inputs, output, tick),
        (_, BackendKind::Cpu) => transform(stage, inputs, output, &Cpu::default(), tick),
    }
}

/// Runs a stage that makes weights of weights, on any backend.
pub fn transform(
    stage: &Stage,
    inputs: &Inputs,
    output: &Output,
    backend: &dyn Backend,
    tick: Tick<'_>,
) -> anyhow::Result<()> {
    match stage {
        Stage::Fuse(parameters) => {
            let (model, adapter) = (inputs.folder("model")?, inputs.folder("adapter")?);
            fuse::run(parameters, model, adapter, output, backend, tick)
        }
        Stage::Quantize(parameters) => {
            let optional = |role: &str| inputs.folders.get(role).map(PathBuf::as_path);
            let fused = optional(FUSED_ROLE);
            let fine_tuning = optional(BASE_ROLE).map(|base| FineTuning { base, fused });
            quantize::run(parameters, inputs.folder("model")?, fine_tuning, output, backend, tick)
        }
        _ => anyhow::bail!("BUG: `{}` makes no weights", stage.word()),
    }?;
    checkpoint::copy_side_files(inputs.folder("model")?, inputs.origin.as_ref(), output)
}

/// Returns what an adapter of this model must fit.
fn base_of(checkpoint: &Checkpoint) -> Base {
    let weights = checkpoint.weights().iter().map(|(name, weight)| (name.clone(), weight.shape.clone()));
    Base::new(weights, &checkpoint.config)
}

/// Checks what can be known before anything runs, so that a mistake at the end of a graph is not found after an
/// hour of work. `bases` are the model folders outside the graph that the node descends from.
pub fn preflight(stage: &Stage, source: Option<&Path>, bases: &[PathBuf]) -> anyhow::Result<()> {
    match stage {
        Stage::Base | Stage::Adapter => {
            let source = source.context("BUG: there is no source")?;
            anyhow::ensure!(source.is_dir(), "the source {} is not a folder", source.display());
        }
        Stage::Quantize(parameters) => {
            bases.iter().try_for_each(|base| quantize::preflight(parameters, base))?;
        }
        Stage::Benchmark(parameters) => {
            benchmark::preflight(parameters, source.context("BUG: there is no suite")?)?;
        }
        Stage::Fuse(_) => {}
    }
    Ok(())
}
