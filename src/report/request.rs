//! What a worker process is asked, and what it answers.
//! Knows nothing of processes or pipes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Divergence, Perplexity, Timings};

/// Answer queries, and time it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// The model's folder.
    pub model: PathBuf,
    /// The adapter's folder, for LoRA applied at run time.
    pub adapter: Option<PathBuf>,
    /// The conversations, each as the chat template gets it: `messages`, `tools`.
    pub conversations: Vec<Conversation>,
    /// The most tokens an answer may have.
    pub max_tokens: usize,
    /// How often every query is answered.
    pub repeats: usize,
    /// How many answers are given before the first that is timed.
    pub warmup: usize,
}

/// One conversation, to be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// A list of messages, each with a `role`.
    pub messages: Vec<Value>,
    /// The tools, as `transformers` takes them.
    pub tools: Option<Value>,
}

/// What was answered, and how fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The text of each answer, in the order of the conversations.
    pub answers: Vec<String>,
    /// How fast and how large.
    pub timings: Timings,
}

/// Read texts, and say how well they were foreseen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The model's folder.
    pub model: PathBuf,
    /// The adapter's folder.
    pub adapter: Option<PathBuf>,
    /// The model, and perhaps the adapter, that the distributions are compared with.
    pub reference: Option<(PathBuf, Option<PathBuf>)>,
    /// The texts.
    pub texts: Vec<String>,
    /// How many tokens are read in one go: longer texts are cut.
    pub context: usize,
}

/// How well texts were foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Of the model.
    pub perplexity: Perplexity,
    /// Its distributions against the reference's, if there is one.
    pub divergence: Option<Divergence>,
}
