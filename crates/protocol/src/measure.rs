//! Measuring one configuration of a benchmark: answers with their times, and texts with their perplexity.
//! Knows nothing of suites, scores or reports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Evaluate texts: say how well each token was predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
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

/// How well the tokens of texts were predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEval {
    /// Of the model.
    pub perplexity: Perplexity,
    /// Its distributions against the reference's, if there is one.
    pub divergence: Option<Divergence>,
}

/// The perplexity of texts: e to the mean negative log-likelihood of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// `exp(mean)`.
    pub value: f64,
    /// The standard error of `value`: `value` times that of the mean (the delta method).
    pub standard_error: f64,
    /// How many tokens were predicted.
    pub tokens: usize,
}

/// How far a configuration's next-token distributions are from those of a reference, on the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The mean Kullback-Leibler divergence from the reference, in nats: `Σ p ln(p / q)`, `p` the reference's.
    pub mean_kl: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The share of tokens where both think the same token most likely.
    pub top1_agreement: f64,
    /// On how many tokens.
    pub tokens: usize,
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
