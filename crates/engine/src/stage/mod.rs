//! The stages: what each kind of node does, as a function from folders to a folder.
//! Knows nothing of the graph, of keys or of the store.

mod base;
mod benchmark;
mod params;
mod probe;
mod run;
mod worker;

pub(crate) use benchmark::prompts;
pub use benchmark::{Counted, Doing, Entry, Host, Measured, Measuring, Prompt, Turn};
pub(crate) use params::ADAPTERS;
pub use params::{
    BackendKind, Benchmark, Config, Device, DeviceChoice, Kind, Probe, Stage, UndeclaredVolatile,
};
pub(crate) use run::is_name;
pub use run::{FILE_ROLE, OUT, Run, Template};
pub use worker::WorkerProgram;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{OrBug, Result, fail};
use artifact::{Digest, Output, Tick};
use report::SourceFacts;
pub use report::suite::Quoting;
use weights::adapter::Adapter;
use weights::checkpoint::{ModelOrigin, check_adapter_folder, check_model_folder, describe_file};
use weights::kernels::Cpu;
use weights::rewrite::{FineTuning, Fuse, Job, Operation, Quantize, TokenizerOf};

/// The role of the model before fine-tuning, for a `quantize` node below a `fuse` node.
pub const BASE_ROLE: &str = "base";

/// The role of the fine-tuned model, if other `quantize` nodes lie between it and the `quantize` node.
pub const FUSED_ROLE: &str = "fused";

/// The role of a probe, for a `quantize` node.
pub const PROBE_ROLE: &str = "probe";

/// The inputs of a stage.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The folder of each input node, by role.
    pub folders: BTreeMap<String, PathBuf>,
    /// The file or folder outside the graph.
    pub source: Option<PathBuf>,
    /// Whether messages may quote the source.
    pub quoting: Quoting,
    /// The repository and commit on the hub that the weights descend from, for `fuse` and `quantize`.
    pub origin: Option<ModelOrigin>,
    /// The files of an earlier measurement by name, for a benchmark that differs from it only in gates and
    /// verdicts.
    pub measured: BTreeMap<String, Vec<u8>>,
    /// The files of the last run of a benchmark by name, whatever it measured.
    pub previous: BTreeMap<String, Vec<u8>>,
    /// What a benchmark is about: the bases and adapters, and the commit around the project.
    pub about: (Vec<SourceFacts>, Option<String>),
    /// The class of the machine whose build asked for it, on a worker.
    pub asked_by: Option<String>,
    /// The folder of the pipeline file, for a command.
    pub root: PathBuf,
    /// The files of the input folders, for a command.
    pub files: Vec<InputFile>,
    /// The files of the project that a command names, by path: where they are, and their digests.
    pub project_files: BTreeMap<String, (PathBuf, Digest)>,
    /// Words of a command that are also paths of files in the project. The command does not see these.
    pub unnamed_files: Vec<String>,
    /// Words of a command that are whole paths of files in the project. The command sees them, and they are not part of its
    /// key.
    pub bypassing_files: Vec<String>,
}

/// A file of an input.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// The role of the input.
    pub role: String,
    /// Its path in the input.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
}

impl Inputs {
    fn folder(&self, role: &str) -> Result<&Path> {
        self.folders.get(role).map(PathBuf::as_path).or_bug("a stage has its inputs")
    }

    fn source(&self) -> Result<&Path> {
        self.source.as_deref().or_bug("there is no source")
    }
}

/// What the stages of a build are run with.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The backend that computes weights.
    pub backend: BackendKind,
    /// The worker programs, which run models, and weights on MLX.
    pub worker: &'a WorkerProgram,
    /// What knows the earlier measurements of a benchmark.
    pub host: &'a dyn Host,
    /// Where the output of a command goes.
    pub console: Console<'a>,
}

/// Where the output of a command goes.
#[derive(Clone, Copy)]
pub struct Console<'a> {
    /// The file that all of it is written to.
    pub log: Option<&'a Path>,
    /// Gets each line.
    pub line: &'a dyn Fn(&str),
}

/// The unit of the progress of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Bytes,
    Queries,
}

impl Stage {
    /// Returns the name of the backend in a recipe. It is `none` for stages that compute nothing.
    pub fn backend(&self, chosen: BackendKind) -> &'static str {
        match self {
            Self::Base | Self::Adapter | Self::Files | Self::Run(_) => "none",
            Self::Fuse(_) | Self::Quantize(_) => chosen.id(),
            // A probe is part of what weights are made from, so it is the same on every machine.
            Self::Probe(_) => Device::Cpu.id(),
            Self::Benchmark(benchmark) => benchmark.runs_on.id(),
        }
    }

    /// Whether the stage runs in a worker. Models take the whole machine, and there is one MLX, so such stages wait
    /// for each other.
    pub fn uses_worker(&self, chosen: BackendKind) -> bool {
        match self {
            Self::Base | Self::Adapter | Self::Files | Self::Run(_) => false,
            Self::Fuse(_) | Self::Quantize(_) => chosen == BackendKind::Mlx,
            Self::Probe(_) | Self::Benchmark(_) => true,
        }
    }

    /// Returns the unit of its progress.
    pub fn unit(&self) -> Unit {
        if matches!(self, Self::Benchmark(_)) { Unit::Queries } else { Unit::Bytes }
    }
}

/// Runs `stage` on `inputs` and writes into `output`; returns what a benchmark measured. A `base` or an `adapter`
/// writes nothing, because its artifact is its source.
///
/// # Errors
/// Fails if an input is not valid, if the output cannot be written, if the worker fails, or if `tick` asks to
/// stop.
pub fn run(
    stage: &Stage,
    inputs: &Inputs,
    output: &Output,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<Counted> {
    match stage {
        Stage::Benchmark(parameters) => benchmark::run(parameters, inputs, output, environment, tick),
        other => make(other, inputs, output, environment, tick).map(|()| Counted::default()),
    }
}

fn make(
    stage: &Stage,
    inputs: &Inputs,
    output: &Output,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<()> {
    match stage {
        Stage::Base => base::check(inputs.source()?, output),
        Stage::Adapter => Ok(Adapter::open(inputs.source()?)?.check()?),
        // Any files will do.
        Stage::Files => Ok(()),
        Stage::Run(parameters) => run::run(parameters, inputs, output, environment.console, tick),
        Stage::Benchmark(_) => fail!(Bug, "a benchmark makes no model"),
        Stage::Probe(parameters) => probe::run(parameters, inputs, output, environment.worker, tick),
        Stage::Fuse(options) => rewrite(fuse_job(options, inputs)?, output, environment, tick),
        Stage::Quantize(options) => rewrite(quantize_job(options, inputs)?, output, environment, tick),
    }
}

fn rewrite(job: Job, output: &Output, environment: &Environment<'_>, tick: Tick<'_>) -> Result<()> {
    match environment.backend {
        BackendKind::Mlx => environment.worker.rewrite(job, output, tick),
        BackendKind::Cpu => Ok(job.run(output, &Cpu::default(), tick)?),
    }
}

fn fuse_job(options: &Fuse, inputs: &Inputs) -> Result<Job> {
    let folders = adapter_roles(options).into_iter().map(|role| Ok(inputs.folder(&role)?.to_owned()));
    let operation = Operation::Fuse { adapters: folders.collect::<Result<_>>()?, options: options.clone() };
    Ok(Job { model: inputs.folder("model")?.to_owned(), operation, origin: inputs.origin.clone() })
}

fn adapter_roles(options: &Fuse) -> Vec<String> {
    match options.scales.len() {
        0 => vec!["adapter".to_owned()],
        count => (0..count).map(|number| format!("{ADAPTERS}{number}")).collect(),
    }
}

fn quantize_job(options: &Quantize, inputs: &Inputs) -> Result<Job> {
    let fused = inputs.folders.get(FUSED_ROLE).cloned();
    let base = inputs.folders.get(BASE_ROLE).cloned();
    let fine_tuning = base.map(|base| FineTuning { base, fused });
    let probe = inputs.folders.get(PROBE_ROLE).cloned();
    let operation = Operation::Quantize { options: options.clone(), fine_tuning, probe };
    Ok(Job { model: inputs.folder("model")?.to_owned(), operation, origin: inputs.origin.clone() })
}

/// What an outline says of the model.
pub(crate) struct Outlined {
    /// Whether the model will have exactly its size.
    pub(crate) is_exact: bool,
    /// How much memory it takes to make the model, in bytes.
    pub(crate) memory: u64,
    /// The most bytes that the weights may take, with `bits: auto`.
    pub(crate) budget: Option<u64>,
}

/// Writes the outline of what a `fuse` or `quantize` node makes into `output`: all files, with holes for the numbers. An
/// adapter that is not known yet is left out.
///
/// # Errors
/// Fails if an input cannot be read, or if `output` cannot be written.
pub(crate) fn outline(stage: &Stage, inputs: &Inputs, output: &Output) -> Result<Outlined> {
    let (job, is_exact) = match stage {
        Stage::Fuse(options) => {
            let is_known = adapter_roles(options).iter().all(|role| inputs.folders.contains_key(role));
            let bare = Fuse { scales: Vec::new(), tokenizer: TokenizerOf::Base, ..options.clone() };
            let operation = Operation::Fuse { adapters: Vec::new(), options: bare };
            let origin = inputs.origin.clone();
            let without = || Ok(Job { model: inputs.folder("model")?.to_owned(), operation, origin });
            (if is_known { fuse_job(options, inputs) } else { without() }?, is_known)
        }
        Stage::Quantize(options) => (quantize_job(options, inputs)?, options.auto.is_none()),
        _ => fail!(Bug, "only models are outlined"),
    };
    job.outline(output)?;
    Ok(Outlined { is_exact, memory: job.memory()?, budget: job.budget()? })
}

/// Checks what can be known before anything runs, so that a mistake at the end of a graph is not found after
/// an hour of work. `bases` are the model folders outside the graph that the node descends from, and `root` is the
/// folder of the pipeline file.
///
/// # Errors
/// Fails if a source is not a folder, if the parameters of a `quantize` node do not fit a base, or if a suite
/// cannot answer what a benchmark asks.
pub fn preflight(
    stage: &Stage,
    source: Option<&Path>,
    quoting: Quoting,
    bases: &[PathBuf],
    root: &Path,
) -> Result<()> {
    match stage {
        Stage::Run(parameters) => run::preflight(parameters, root)?,
        Stage::Base | Stage::Adapter => {
            let source = source.or_bug("there is no source")?;
            if !source.is_dir() {
                let what = describe_file(source)?.map_or_else(String::new, |what| format!(": it is {what}"));
                fail!(Source, "the source {} is not a folder{what}", source.display());
            }
            match stage {
                Stage::Base => check_model_folder(source)?,
                _ => check_adapter_folder(source)?,
            }
        }
        Stage::Quantize(parameters) => {
            bases.iter().try_for_each(|base| Job::check_quantize(parameters, base))?;
        }
        Stage::Benchmark(parameters) => {
            benchmark::preflight(parameters, source.or_bug("there is no suite")?, quoting)?;
        }
        Stage::Probe(_) => probe::preflight(source)?,
        Stage::Fuse(_) | Stage::Files => {}
    }
    Ok(())
}
