//! What the worker process is asked, and what it answers: one JSON line each way, over standard input and output.
//! Knows nothing of processes, nor of what the worker computes with.

mod measure;

pub use measure::{Conversation, Divergence, Evaluate, Measure, Measured, Perplexity, TextEval, Timings};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use artifact::Artifact;
use weights::rewrite::Job;

/// The MLX release that mlx-rs 0.33 is bound to, and the device it computes on here. It stands in the keys of what the
/// worker makes. It is a constant, so that deciding what is stale need not load a large library; the worker checks it.
pub const MLX_ID: &str = if cfg!(target_os = "macos") { "mlx 0.32.2 gpu" } else { "mlx 0.32.2 cpu" };

/// One line to the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Measure a configuration of a benchmark.
    Measure(Measure),
    /// Evaluate a configuration of a benchmark on texts.
    Evaluate(Evaluate),
    /// Make a model from a model.
    Rewrite {
        /// What is to be made.
        job: Job,
        /// The folder it goes into, which is empty.
        output: PathBuf,
    },
}

/// One line from the worker. All but `Progress` are the last one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// So much is done, of so much.
    Progress(u64, u64),
    /// A configuration was measured.
    Measured(Box<Measured>),
    /// Texts were evaluated.
    Evaluated(TextEval),
    /// A model was made; its files are hashed and synced.
    Rewritten {
        /// The files.
        artifact: Artifact,
        /// What the user should know of it.
        warnings: Vec<String>,
    },
    /// It failed, and why.
    Failed(String),
}
