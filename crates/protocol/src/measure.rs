//! What is measured of one configuration: answers with their times, and texts with their perplexity.
//! Knows nothing of suites, scores or reports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// A request to answer queries and to time the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// The model.
    pub model: ModelFolders,
    /// The conversations, each as the chat template gets it: `messages`, `tools`.
    pub conversations: Vec<Conversation>,
    /// The maximum number of tokens in an answer.
    pub max_tokens: usize,
    /// How many times each query is answered.
    pub repeats: usize,
    /// How many short answers are generated, but not timed, before the first timed one.
    pub warmup: usize,
}

/// One conversation that the model must answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// A list of messages, each with a `role`.
    pub messages: Vec<Value>,
    /// The tools, as `transformers` takes them.
    pub tools: Option<Value>,
    /// Further variables of the chat template, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub template_args: Map<String, Value>,
}

/// The answers, and how fast they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The answer to each conversation, in order.
    pub answers: Vec<Answered>,
    /// How fast the model was, and how much memory it took.
    pub timings: Timings,
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

/// A figure that is not a number, by its name in a report. JSON has no form for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is not a finite number; the weights or the activations overflow, or the model is damaged")]
pub struct NotANumber(pub &'static str);

fn check_numbers(figures: &[(&'static str, f64)]) -> Result<(), NotANumber> {
    let wrong = figures.iter().find(|(_, value)| !value.is_finite());
    wrong.map_or(Ok(()), |(name, _)| Err(NotANumber(name)))
}

/// A request to evaluate texts: how well does the model predict each token?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The model.
    pub model: ModelFolders,
    /// The reference. The model's distributions are compared with the reference's.
    pub reference: Option<ModelFolders>,
    /// The texts.
    pub texts: Vec<String>,
    /// The window size in tokens. A longer text is cut into windows, and each window is read without the text
    /// before it.
    pub context: usize,
}

/// How well the model predicted the tokens of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEval {
    /// The perplexity of the model.
    pub perplexity: Perplexity,
    /// How far the model's distributions are from the reference's, if there is a reference.
    pub divergence: Option<Divergence>,
}

impl TextEval {
    /// Checks that every figure is a number.
    ///
    /// # Errors
    /// Fails on the first that is not.
    pub fn check(&self) -> Result<(), NotANumber> {
        let Perplexity { value, standard_error, .. } = self.perplexity;
        check_numbers(&[("perplexity", value), ("standard error of the perplexity", standard_error)])?;
        let Some(divergence) = self.divergence else { return Ok(()) };
        check_numbers(&[
            ("KL divergence", divergence.mean_kl),
            ("standard error of the KL divergence", divergence.standard_error),
            ("top-1 agreement", divergence.top1_agreement),
        ])
    }
}

impl Timings {
    /// Checks that every figure is a number.
    ///
    /// # Errors
    /// Fails on the first that is not.
    pub fn check(&self) -> Result<(), NotANumber> {
        check_numbers(&[
            ("load time", self.load_seconds),
            ("prefill speed", self.prefill_tokens_per_second),
            ("decode speed", self.decode_tokens_per_second),
            ("time of an answer", self.generation_seconds_mean),
            ("spread of the times", self.spread),
        ])
    }
}

/// The perplexity of texts: e to the power of the mean negative log-likelihood of the predicted tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// `exp(mean)`, where `mean` is the mean negative log-likelihood in nats.
    pub value: f64,
    /// The standard error of `value`: `value` times the standard error of the mean (the delta method).
    pub standard_error: f64,
    /// How many tokens were predicted.
    pub tokens: usize,
}

/// How far a configuration's next-token distributions are from those of a reference, on the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The mean Kullback-Leibler divergence from the reference, in nats per token: `Σ p ln(p / q)`. Here `p`
    /// is the distribution of the reference and `q` that of the configuration.
    pub mean_kl: f64,
    /// The standard error of `mean_kl`, in nats.
    pub standard_error: f64,
    /// The share of tokens, from 0 to 1, where both find the same next token most likely.
    pub top1_agreement: f64,
    /// How many tokens were compared.
    pub tokens: usize,
}

/// The speed and the memory of one configuration, measured in a process of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Seconds from opening the folder until every weight is in memory.
    pub load_seconds: f64,
    /// The peak memory in bytes: of the process on Linux (`VmHWM`), elsewhere as MLX's `peak_memory` says.
    pub peak_memory_bytes: u64,
    /// Prompt tokens per second: the median of the repeats.
    pub prefill_tokens_per_second: f64,
    /// Answer tokens per second, without the first token of each answer: the median of the repeats.
    pub decode_tokens_per_second: f64,
    /// The mean time of one answer in seconds, prompt included.
    pub generation_seconds_mean: f64,
    /// How much the repeats differ: the standard deviation of the time for all queries, divided by its mean;
    /// 0 if there was one run.
    pub spread: f64,
    /// How many times each query was answered.
    pub repeats: usize,
    /// The type of the activations.
    pub activation_dtype: String,
    /// The device: `cpu`, or MLX's `cpu` or `gpu`.
    pub device: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_no_number_is_named() {
        let perplexity = Perplexity { value: f64::NAN, standard_error: 0.0, tokens: 1 };
        let eval = TextEval { perplexity, divergence: None };
        assert!(eval.check().unwrap_err().to_string().starts_with("the perplexity is not a finite number"));
        let divergence =
            Some(Divergence { mean_kl: f64::INFINITY, standard_error: 0.0, top1_agreement: 1.0, tokens: 1 });
        let eval = TextEval { perplexity: Perplexity { value: 1.0, ..perplexity }, divergence };
        assert_eq!(eval.check(), Err(NotANumber("KL divergence")));
    }
}
