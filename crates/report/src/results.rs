//! `results.json`: what is the same on every run of a benchmark.
//! Knows nothing of times, nor of how it is shown.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use protocol::{Divergence, Perplexity, TextEval};
use weights::survival::Survival;

/// What all configurations answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The suite's name.
    pub suite: String,
    /// The configuration that the others' distributions are compared with.
    pub reference: Option<String>,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, ConfigResults>,
}

/// What one configuration is, and what it answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigResults {
    /// How many answers were right.
    pub correct: usize,
    /// Of how many; 0 if the suite has texts only.
    pub total: usize,
    /// `correct / total`; 0 if there were no queries.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy, by [`wilson`](super::wilson).
    pub accuracy_interval: [f64; 2],
    /// How many answers were the very text expected.
    pub exact: usize,
    /// How many queries say what the very text is.
    pub exact_total: usize,
    /// Bytes of the model's folder, and of the adapter's.
    pub disk_bytes: u64,
    /// Bits that the tensors take, per weight of the model.
    pub bits_per_weight: f64,
    /// How most of its weights are quantized; none if they are floats.
    pub quantization: Option<Quantization>,
    /// How well it predicts the suite's texts; none if there are none. In `readings.json`.
    #[serde(skip)]
    pub perplexity: Option<Perplexity>,
    /// How far it is from the reference on the suite's texts. In `readings.json`.
    #[serde(skip)]
    pub divergence: Option<Divergence>,
    /// What quantizing left of a fine-tuning; none if it is no quantized descendant of a fused model.
    pub survival: Option<Survival>,
    /// Every answer, in the order of the suite.
    pub answers: Vec<Answer>,
}

/// `readings.json`: what is the same on every run of one machine, but for the last places on another, and so is no part
/// of what two machines compare. By configuration; empty if the suite has no texts.
pub type TextEvals = IndexMap<String, TextEval>;

impl Results {
    /// Returns what was read.
    pub fn text_evals(&self) -> TextEvals {
        let reading =
            |own: &ConfigResults| Some(TextEval { perplexity: own.perplexity?, divergence: own.divergence });
        let configs = self.configs.iter();
        configs.filter_map(|(name, own)| Some((name.clone(), reading(own)?))).collect()
    }

    /// Adds what was read.
    #[must_use]
    pub fn with_text_evals(mut self, readings: &TextEvals) -> Self {
        for (name, own) in &mut self.configs {
            own.perplexity = readings.get(name).map(|reading| reading.perplexity);
            own.divergence = readings.get(name).and_then(|reading| reading.divergence);
        }
        self
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked: what the user said last.
    pub prompt: String,
    /// What was answered.
    pub text: String,
    /// Whether it holds a tool call.
    pub tool_call: bool,
    /// Whether it is right.
    pub pass: bool,
    /// What each scorer of the query said, such as `expect` or `contains`.
    pub scores: IndexMap<String, bool>,
}

/// How a model's weights are quantized, as its `config.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantization {
    /// Bits per weight.
    pub bits: usize,
    /// How many neighbours share a scale.
    pub group_size: usize,
    /// MLX's mode, such as `affine`.
    pub mode: String,
}
