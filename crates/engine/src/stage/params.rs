//! The parameters of each stage: the same structs are read from YAML, hashed in a recipe, and passed to
//! `run`.
//! Knows nothing of files: inputs are named by the graph, contents by the recipe.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{PROBE_ROLE, Run};
use artifact::Artifact;
use protocol::{CPU_ID, MLX_ELSEWHERE_ID, MLX_ID};
use report::{Gate, Quantity, Verdict};
use weights::rewrite::{Fuse, Quantize, TokenizerOf};

/// The kinds of nodes. In a recipe: `{"stage": "quantize", "parameters": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", content = "parameters", rename_all = "snake_case")]
pub enum Stage {
    /// Takes in a model folder, which is checked and referenced in place.
    Base,
    /// Takes in a LoRA adapter folder, which is checked and referenced in place.
    Adapter,
    /// Dequantizes a model and merges an adapter into it.
    Fuse(Fuse),
    /// Quantizes a model's linear and embedding weights.
    Quantize(Quantize),
    /// Observes the inputs of a model's layers.
    Probe(Probe),
    /// Runs models on a suite of queries and compares them.
    Benchmark(Benchmark),
    /// Takes in a file or a folder of any kind, which is referenced in place.
    Files,
    /// Runs a command of the user.
    Run(Run),
}

/// Parameters of `probe`. What the model reads is a source, or else random tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How many directions are kept for each layer.
    pub directions: usize,
    /// How many tokens are read at most.
    pub tokens: usize,
}

/// Parameters of `benchmark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Benchmark {
    /// What is compared, in the order it is reported.
    pub configs: Vec<Config>,
    /// What must be true for the node to succeed.
    pub gates: Vec<Gate>,
    /// What the pipeline file says of the device. It is not a parameter: a recipe names what computes.
    #[serde(skip)]
    pub device: DeviceChoice,
    /// The device that the models run on.
    #[serde(skip)]
    pub runs_on: Device,
    /// The configuration that the others' next-token distributions are compared with.
    pub reference: Option<String>,
    /// The verdicts to decide. They do not fail the node.
    pub verdicts: Vec<Verdict>,
}

impl Benchmark {
    /// Whether a gate or a verdict depends on how fast the machine is or how much memory it takes.
    pub fn judges_timings(&self) -> bool {
        let gates = self.gates.iter().flat_map(|gate| &gate.criteria);
        let verdicts =
            self.verdicts.iter().flat_map(|verdict| verdict.optimal.iter().chain(&verdict.minimum));
        gates.chain(verdicts).any(|criterion| {
            matches!(criterion.quantity, Quantity::Memory | Quantity::Load | Quantity::Speed)
        })
    }
}

/// One configuration of a benchmark: a model, perhaps with an adapter applied at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Whether an adapter is applied.
    pub adapter: bool,
    /// The name in the report.
    pub name: String,
    /// Whose tokenizer and chat template the model has.
    #[serde(default, skip_serializing_if = "TokenizerOf::is_base")]
    pub tokenizer: TokenizerOf,
    /// Variables of the chat template, such as `enable_thinking`. They come before those of the suite.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub template_args: Map<String, Value>,
}

/// What the roles of several adapters of a `fuse` node begin with. Their number, counted from 0, follows.
pub(crate) const ADAPTERS: &str = "adapters.";

/// The kind of thing that a node makes. It decides what the node can be an input for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Model,
    Adapter,
    Probe,
    Report,
    Files,
}

impl Kind {
    /// What a command may make, each with its word in `pipeline.yaml`.
    pub const OF_A_COMMAND: [(&'static str, Self); 4] = [
        ("model", Self::Model),
        ("adapter", Self::Adapter),
        ("report", Self::Report),
        ("files", Self::Files),
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "a model",
            Self::Adapter => "an adapter",
            Self::Probe => "a probe",
            Self::Report => "a report",
            Self::Files => "files",
        })
    }
}

impl Stage {
    /// Returns the word for this stage in `pipeline.yaml`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapter => "adapter",
            Self::Fuse(_) => "fuse",
            Self::Quantize(_) => "quantize",
            Self::Probe(_) => "probe",
            Self::Benchmark(_) => "benchmark",
            Self::Files => "files",
            Self::Run(_) => "run",
        }
    }

    /// Returns what a node of this stage makes.
    pub fn makes(&self) -> Kind {
        match self {
            Self::Base | Self::Fuse(_) | Self::Quantize(_) => Kind::Model,
            Self::Adapter => Kind::Adapter,
            Self::Probe(_) => Kind::Probe,
            Self::Benchmark(_) => Kind::Report,
            Self::Files => Kind::Files,
            Self::Run(run) => run.makes,
        }
    }

    /// Returns what the input in `role` must be; `None` if it may be anything.
    pub fn takes(&self, role: &str) -> Option<Kind> {
        if matches!(self, Self::Run(_)) {
            return None;
        }
        Some(match role {
            PROBE_ROLE => Kind::Probe,
            "adapter" => Kind::Adapter,
            _ if matches!(self, Self::Fuse(_)) && role.starts_with(ADAPTERS) => Kind::Adapter,
            _ if role.ends_with(".adapter") => Kind::Adapter,
            _ => Kind::Model,
        })
    }

    /// Returns the files that the stage writes and that differ from run to run. A stage that makes weights has
    /// none. The CPU runtime gives the same readings everywhere.
    pub fn volatile_files(&self) -> &'static [&'static str] {
        match self {
            Self::Benchmark(Benchmark { runs_on: Device::Cpu, .. }) => &BENCHMARK_VOLATILE[1..],
            Self::Benchmark(_) => &BENCHMARK_VOLATILE,
            _ => &[],
        }
    }

    /// Checks that only those files of an artifact are marked volatile that the stage declares. Volatile files
    /// are not compared with the lock, so a record must not decide which ones they are.
    ///
    /// # Errors
    /// Fails on the first file that is marked volatile and not declared.
    pub fn check_volatile(&self, artifact: &Artifact) -> std::result::Result<(), UndeclaredVolatile> {
        let declared = self.volatile_files();
        let wrong = artifact.files().iter().find(|file| file.volatile && !declared.contains(&&*file.path));
        wrong.map_or(Ok(()), |file| Err(UndeclaredVolatile { file: file.path.clone(), stage: self.word() }))
    }

    /// Whether the output is the source itself, referenced in place.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::Base | Self::Adapter | Self::Files)
    }

    /// Whether the same inputs give the same bytes. The files that a stage declares volatile do not count.
    pub fn is_deterministic(&self) -> bool {
        match self {
            Self::Run(run) => run.deterministic,
            _ => true,
        }
    }

    /// Returns the paths of the files of the project that the stage names itself.
    pub fn project_files(&self) -> BTreeSet<String> {
        match self {
            Self::Run(run) => run.project_files(),
            _ => BTreeSet::new(),
        }
    }

    /// Returns the path of the program of a command, if it may be a file of the project.
    pub fn project_program(&self) -> Option<String> {
        match self {
            Self::Run(run) => run.project_program(),
            _ => None,
        }
    }

    /// Returns the version of the code of the stage. It is increased when the bytes that the stage writes, or
    /// what it accepts, change. `is_measured` says that a `quantize` node descends from a fine-tuning, and so
    /// writes `survival.json`.
    pub fn version(&self, is_measured: bool) -> u32 {
        match self {
            Self::Base | Self::Probe(_) | Self::Files | Self::Run(_) => 1,
            Self::Fuse(fuse) if fuse.requantize => 4,
            Self::Adapter | Self::Fuse(_) => 2,
            Self::Quantize(_) if is_measured => 4,
            Self::Quantize(_) => 3,
            Self::Benchmark(_) => 6,
        }
    }
}

/// The files of a benchmark that differ from run to run, the readings first.
pub(super) const BENCHMARK_VOLATILE: [&str; 5] =
    ["readings.json", "report.html", "report.md", "timings.json", "verdicts.json"];

/// A file is marked as one that differs from run to run, but its stage makes no such file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it marks `{}` as volatile, but no `{stage}` makes such a file", .file.escape_debug())]
pub struct UndeclaredVolatile {
    file: String,
    stage: &'static str,
}

/// A backend that a build can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// Plain Rust; the same bytes on every machine.
    #[default]
    Cpu,
    /// MLX on its device.
    Mlx,
}

impl BackendKind {
    /// Returns the backend's name in a recipe.
    pub fn id(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Mlx => MLX_ID,
        }
    }
}

/// What runs models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Device {
    /// The CPU runtime; the same results on every machine.
    Cpu,
    /// MLX on its device.
    Mlx,
    /// MLX on a machine of the other kind: a Mac with its GPU, seen from Linux, or Linux, seen from a Mac.
    MlxElsewhere,
}

impl Default for Device {
    fn default() -> Self {
        DeviceChoice::Auto.device()
    }
}

impl Device {
    /// Returns its name in a recipe.
    pub fn id(self) -> &'static str {
        match self {
            Self::Cpu => CPU_ID,
            Self::Mlx => MLX_ID,
            Self::MlxElsewhere => MLX_ELSEWHERE_ID,
        }
    }

    /// Returns the device with this name in a recipe.
    pub fn of_id(id: &str) -> Option<Self> {
        [Self::Cpu, Self::Mlx, Self::MlxElsewhere].into_iter().find(|device| device.id() == id)
    }
}

/// Which device is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceChoice {
    /// MLX where it has a GPU, otherwise the CPU runtime.
    #[default]
    Auto,
    /// MLX, wherever it is.
    Mlx,
    /// The CPU runtime.
    Cpu,
}

impl DeviceChoice {
    /// The choices and their words in `pipeline.yaml`.
    pub const WORDS: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("mlx", Self::Mlx), ("cpu", Self::Cpu)];

    /// Returns the device.
    pub fn device(self) -> Device {
        match self {
            Self::Mlx => Device::Mlx,
            Self::Auto if MLX_ID.ends_with("gpu") => Device::Mlx,
            Self::Auto | Self::Cpu => Device::Cpu,
        }
    }

    /// Returns this choice, or `other` if this one leaves it open.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Auto { other } else { self }
    }
}
