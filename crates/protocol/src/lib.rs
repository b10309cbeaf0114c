//! The requests to the worker process and its replies: one line of JSON each, over standard input and output.
//! Knows nothing of processes, nor of what the worker computes with.
//!
//! ```
//! use protocol::{Reply, Request};
//! use weights::kernels::{Mode, QuantSpec};
//! use weights::rewrite::Job;
//!
//! let spec = QuantSpec { mode: Mode::Affine, bits: 4, group_size: 64 };
//! let request = Request::Rewrite { job: Job::quantize("model", spec.into()), output: "model-4bit".into() };
//! assert!(serde_json::to_string(&request)?.starts_with(r#"{"rewrite":{"job":{"model":"model","#));
//! let reply: Reply = serde_json::from_str(r#"{"progress":[10,200]}"#)?;
//! assert!(matches!(reply, Reply::Progress(10, 200)));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod date;
mod session;
mod thought;

pub use date::Date;
pub use session::{
    Answered, Compared, Conversation, Loaded, LogProbabilities, ModelFolders, NotANumber, Question, Reading,
    Run, Sampling, Session, Spoken, Step, Task, Text,
};
pub use thought::{THOUGHT_TAGS, end_of_thought, opens_thought};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use artifact::Artifact;
use weights::rewrite::Job;

/// The MLX release that mlx-rs 0.33 is bound to, and the device that it computes on here. It is part of the
/// keys of what the worker makes. It is a constant, so that no large library is loaded to decide what is
/// stale. The worker checks the device.
pub const MLX_ID: &str = if cfg!(target_os = "macos") { "mlx 0.32.2 gpu" } else { "mlx 0.32.2 cpu" };

/// The same release of MLX on the other kind of system, for what is measured on another machine.
pub const MLX_ELSEWHERE_ID: &str =
    if cfg!(target_os = "macos") { "mlx 0.32.2 cpu" } else { "mlx 0.32.2 gpu" };

/// The version of the CPU runtime's arithmetic. It is part of the keys of what is measured there, and it is increased
/// when a result changes in a single bit.
pub const CPU_ID: &str = "cpu runtime 1";

/// One line to the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Load a model, and then do each [`Task`] that follows, one line of JSON each.
    Session(Session),
    /// Make the prompts of conversations, and load no model.
    Render {
        /// The folders with the tokenizer and the chat template.
        model: ModelFolders,
        /// The conversations.
        conversations: Vec<Conversation>,
    },
    /// Say of models whether they run here, from their `config.json` alone.
    Check {
        /// The folders of the models.
        models: Vec<PathBuf>,
    },
    /// Observe the inputs of a model's layers, and write `probe.safetensors`.
    Probe {
        /// What to observe.
        request: Probe,
        /// The folder that it is written into. The folder is empty.
        output: PathBuf,
    },
    /// Make a model from a model.
    Rewrite {
        /// What to make.
        job: Job,
        /// The folder that it is written into. The folder is empty.
        output: PathBuf,
    },
}

/// What is observed of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The folder of the model.
    pub model: PathBuf,
    /// What the model reads. `None` if it reads random tokens.
    pub text: Option<String>,
    /// How many tokens it reads at most.
    pub tokens: usize,
    /// How many directions are kept for each layer.
    pub directions: usize,
}

/// One line from the worker. Every reply but `Progress` and those of a session is the last one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How much work is done, and how much there is in all.
    Progress(u64, u64),
    /// In a session: the model is loaded.
    Loaded(Loaded),
    /// In a session: how far the task is.
    Step(Step),
    /// In a session: a question was answered. There is no time if it was not asked.
    Answered(Answered, Option<Run>),
    /// In a session: a text was read.
    Read(Reading),
    /// The prompt of each conversation, or why there is none.
    Rendered(Vec<Result<String, String>>),
    /// Why one of the models that were asked about does not run here; `None` if all run.
    Checked(Option<String>),
    /// Files were made, and are hashed and synced.
    Made {
        /// The files.
        artifact: Artifact,
        /// What the user should know about it.
        warnings: Vec<String>,
    },
    /// The request failed, for this reason.
    Failed(String),
}
