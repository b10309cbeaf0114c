//! A session with a model that runs: it is asked one thing after the other, and each answer comes with its times.
//! Knows nothing of suites, scores or reports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Date;

/// The folders of a model that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFolders {
    /// The model's folder.
    pub model: PathBuf,
    /// The adapter's folder, for LoRA applied at run time.
    pub adapter: Option<PathBuf>,
    /// A folder whose tokenizer and chat template come before those of the model, file by file.
    pub tokenizer: Option<PathBuf>,
}

/// A request to load a model and to answer what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The model.
    pub model: ModelFolders,
    /// Conversations whose prompts are made before the model is loaded, so that a wrong template is known at once.
    pub check: Vec<Conversation>,
    /// How many short answers are generated, but not timed, before the first timed one.
    pub warmup: usize,
}

/// One thing that the model of a session does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// It answers a question.
    Answer(Question),
    /// It predicts the tokens of a text.
    Read(Text),
}

/// A question. Equal questions to one model have equal answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is asked.
    pub conversation: Conversation,
    /// The maximum number of tokens in the answer.
    pub max_tokens: usize,
    /// How tokens are drawn; greedily if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

/// How tokens are drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The temperature: logits are divided by it. It is greater than 0.
    pub temperature: f64,
    /// The seed of the random numbers.
    pub seed: u64,
}

/// One conversation that the model must answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// A list of messages, each with a `role`.
    pub messages: Vec<Value>,
    /// The tools, as `transformers` takes them.
    pub tools: Option<Value>,
    /// The day on which it takes place, for templates that name it.
    #[serde(default)]
    pub date: Date,
    /// Further variables of the chat template, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub template_args: Map<String, Value>,
}

/// What came of one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// What the model said.
    Text(Spoken),
    /// It was not asked, for this reason: its prompt could not be made within the budget.
    NotAsked(String),
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spoken {
    /// The text, up to the end-of-sequence token, with all that the model thought.
    pub text: String,
    /// Whether the prompt opened a block of thought, so that the text begins within it.
    pub opens_thought: bool,
    /// Whether the model was stopped at the maximum number of tokens.
    pub is_cut: bool,
    /// How many of the tokens belong to the thought at the beginning.
    pub thought_tokens: usize,
    /// The form in which the chat template shows tool calls, by the name of mlx-lm's parser; `None` if it shows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_format: Option<String>,
}

/// How long one answer took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The number of tokens in the prompt.
    pub prompt_tokens: usize,
    /// Seconds until the first new token was known.
    pub prefill_seconds: f64,
    /// The number of new tokens.
    pub new_tokens: usize,
    /// Seconds after the first new token, for the others.
    pub decode_seconds: f64,
    /// The peak memory in bytes while it was given: of the process on Linux (`VmHWM`); elsewhere up to now, as MLX's
    /// `peak_memory` says.
    pub peak_memory_bytes: u64,
}

/// A model was loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    /// Seconds from opening the folder until every weight is in memory.
    pub seconds: f64,
    /// The type of the activations.
    pub activation_dtype: String,
    /// The device: `cpu`, or MLX's `cpu` or `gpu`.
    pub device: String,
    /// The peak memory until then, in bytes.
    pub peak_memory_bytes: u64,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// So many tokens of so many in a prompt or in a text were read.
    Reading(usize, usize),
    /// So many new tokens of at most so many are known.
    Writing(usize, usize),
}

/// A text that is read, in windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text.
    pub text: String,
    /// The window size in tokens. A longer text is cut into windows, and each window is read without the text
    /// before it.
    pub context: usize,
    /// How many tokens are read at most; all if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// The log probabilities of a reference.
    pub reference: Option<LogProbabilities>,
}

/// The file with the log probabilities that a reference gives to every token of the vocabulary, at each place of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogProbabilities {
    /// The model of the session is the reference. It writes the file, and is compared with itself.
    Write(PathBuf),
    /// The model is compared with what is in the file.
    Read(PathBuf),
}

/// What was measured at each predicted token of a text, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// `-ln q`, where `q` is the probability that the model gave to the token, in nats.
    pub losses: Vec<f64>,
    /// The comparison with the reference, if there is one.
    pub compared: Option<Compared>,
}

/// How a model's distribution differs from the reference's at each predicted token of a text, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// The Kullback-Leibler divergence from the reference, in nats: `Σ p ln(p / q)`. Here `p` is the distribution of
    /// the reference and `q` that of the model.
    pub divergences: Vec<f64>,
    /// The model's probability of the token minus the reference's.
    pub delta_p: Vec<f64>,
    /// Whether both find the same token most likely.
    pub agrees: Vec<bool>,
}

impl Reading {
    /// Checks that every value is a number. JSON has no form for another.
    ///
    /// # Errors
    /// Fails if one is not.
    pub fn check(&self) -> Result<(), NotANumber> {
        if let Some(compared) = &self.compared {
            let lengths = [compared.divergences.len(), compared.delta_p.len(), compared.agrees.len()];
            if lengths != [self.losses.len(); 3] {
                return Err(NotANumber("number of tokens that were compared"));
            }
        }
        let sum = |values: &[f64]| values.iter().map(|value| value.abs()).sum();
        NotANumber::check(&[("perplexity", sum(&self.losses))])?;
        let Some(compared) = &self.compared else { return Ok(()) };
        NotANumber::check(&[
            ("KL divergence", sum(&compared.divergences)),
            ("change of the probabilities", sum(&compared.delta_p)),
        ])
    }
}

/// A figure that is not a number, by its name in a report. JSON has no form for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is not a finite number; the weights or the activations overflow, or the model is damaged")]
pub struct NotANumber(pub &'static str);

impl NotANumber {
    /// Checks that every figure is a number.
    ///
    /// # Errors
    /// Fails on the first that is not.
    pub fn check(figures: &[(&'static str, f64)]) -> Result<(), Self> {
        let wrong = figures.iter().find(|(_, value)| !value.is_finite());
        wrong.map_or(Ok(()), |(name, _)| Err(Self(name)))
    }
}
