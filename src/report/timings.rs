//! `timings.json`: what differs from run to run of a benchmark.
//! Knows nothing of answers.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// How fast and how large all configurations were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllTimings {
    /// Where it was measured.
    pub machine: Machine,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, Timings>,
}

/// Where a benchmark was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux` or `macos`.
    pub system: String,
    /// `x86_64` or `aarch64`.
    pub processor: String,
    /// How many threads run at once.
    pub threads: usize,
    /// MLX's version and device.
    pub backend: String,
    /// The version of this program.
    pub pipeline: String,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { system, processor, threads, backend, pipeline } = self;
        write!(f, "{system} {processor}, {threads} threads, {backend}, pipeline {pipeline}")
    }
}

/// How fast and how large one configuration was, in a process of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From opening the folder until every weight is in memory.
    pub load_seconds: f64,
    /// The most memory that the process had, in bytes.
    pub peak_memory_bytes: u64,
    /// Tokens of the prompts per second: the median of the repeats.
    pub prefill_tokens_per_second: f64,
    /// Tokens of the answers per second, after the first: the median of the repeats.
    pub decode_tokens_per_second: f64,
    /// Mean time of one answer, prompt included.
    pub generation_seconds_mean: f64,
    /// How much the repeats differ: the standard deviation of the time for all queries, over its mean; 0 if there was
    /// one run.
    pub spread: f64,
    /// How often every query was answered.
    pub repeats: usize,
    /// The type that activations had.
    pub activation_dtype: String,
    /// MLX's device.
    pub device: String,
}
