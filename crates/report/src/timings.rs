//! `timings.json`: what differs from run to run of a benchmark.
//! Knows nothing of answers.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use protocol::Timings;

/// The speed and the memory of all configurations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllTimings {
    /// The machine on which it was measured.
    pub machine: Machine,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, Timings>,
}

/// The machine on which a benchmark was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux` or `macos`.
    pub system: String,
    /// `x86_64` or `aarch64`.
    pub processor: String,
    /// The processor's name, if the system tells it.
    #[serde(default)]
    pub chip: Option<String>,
    /// How many threads can run at once.
    pub threads: usize,
    /// What ran the models: the version of the CPU runtime, or MLX's version and device.
    pub backend: String,
    /// The version of this program.
    pub pipeline: String,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { system, processor, chip, threads, backend, pipeline } = self;
        write!(f, "{system} {processor}, ")?;
        if let Some(chip) = chip {
            write!(f, "{chip}, ")?;
        }
        write!(f, "{threads} threads, {backend}, pipeline {pipeline}")
    }
}
