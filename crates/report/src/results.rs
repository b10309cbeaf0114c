//! `results.json`: what is the same on every run of a benchmark.
//! Knows nothing of times, nor of how it is shown.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Divergence, PassAtK, Perplexity, Tally, TextEval};
use weights::kernels::QuantSpec;
use weights::survival::Survival;

/// The results of all configurations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The suite's name.
    pub suite: String,
    /// The configuration that the distributions of the others are compared with.
    pub reference: Option<String>,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, ConfigResults>,
}

/// What one configuration is, and what it answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigResults {
    /// How many answers were right.
    pub correct: usize,
    /// How many queries were scored; 0 if the suite has only texts.
    pub total: usize,
    /// The share of right answers, by weight; of a query with samples, the share of right samples. Without weights and
    /// samples it is `correct / total`; 0 if there were no queries.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy, by [`wilson`](super::wilson).
    pub accuracy_interval: [f64; 2],
    /// How many queries were not scored. They count neither way.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_scored: usize,
    /// The mean share of what was wanted that the answers have, by weight; `None` if every answer has all or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<f64>,
    /// How many tokens the models thought before they answered, in all answers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub thought_tokens: usize,
    /// The figures of each category, in the order of the suite.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub categories: IndexMap<String, Tally>,
    /// How often one of several samples is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_at_k: Option<PassAtK>,
    /// How many answers are exactly the expected text, apart from white space around it.
    pub exact: usize,
    /// How many queries give an exact text.
    pub exact_total: usize,
    /// The size of all files in the model's folder and in the adapter's, in bytes.
    pub disk_bytes: u64,
    /// How many bits the tensors take per weight of the model; the adapter's tensors are included.
    pub bits_per_weight: f64,
    /// How most of its weights are quantized; `None` if they are floats.
    pub quantization: Option<QuantSpec>,
    /// The programs in the model's folder, by name. Nothing runs them, but they go where the model goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<String>,
    /// How well it predicts the suite's texts; `None` if the suite has no texts. Stored in `readings.json`.
    #[serde(skip)]
    pub perplexity: Option<Perplexity>,
    /// How far it is from the reference on the suite's texts. Stored in `readings.json`.
    #[serde(skip)]
    pub divergence: Option<Divergence>,
    /// What quantizing left of a fine-tuning; `None` if this is not a quantized descendant of a fused model.
    pub survival: Option<Survival>,
    /// Every answer, in the order of the suite.
    pub answers: Vec<Answer>,
}

/// `readings.json`: the evaluation of texts by configuration; empty if the suite has no texts.
///
/// It is the same on every run on one machine. On another machine the last digits can differ, so two machines
/// do not compare it.
pub type TextEvals = IndexMap<String, TextEval>;

impl ConfigResults {
    /// Says that the model brings code of its own, if it does.
    pub(crate) fn code_note(&self, config: &str) -> Option<String> {
        let code = self.code.join(", ");
        (!code.is_empty())
            .then(|| format!("`{config}` brings code of its own, which was not run here: {code}"))
    }
}

impl Results {
    /// Returns the evaluations of texts, by configuration.
    pub fn text_evals(&self) -> TextEvals {
        let reading =
            |own: &ConfigResults| Some(TextEval { perplexity: own.perplexity?, divergence: own.divergence });
        let configs = self.configs.iter();
        configs.filter_map(|(name, own)| Some((name.clone(), reading(own)?))).collect()
    }

    /// Adds the evaluations of texts, which `results.json` does not hold.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked: the last message of the user.
    pub prompt: String,
    /// What was answered, with what the model thought before. Of several samples it is the first.
    pub text: String,
    /// What was said in the rounds before the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<String>,
    /// How many tokens it thought before it answered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub thought_tokens: usize,
    /// Why there is no answer, if the model only thought: `cut off by max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_answer: Option<String>,
    /// Whether it contains a tool call.
    pub tool_call: bool,
    /// Whether it is right.
    pub pass: bool,
    /// Whether the answer passed each scorer of the query, such as `expect` or `contains`.
    pub scores: IndexMap<String, bool>,
    /// What each scorer wants, for people.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub wanted: IndexMap<String, String>,
    /// How much of what is wanted the answer has, from 0 to 1: the mean of its scorers, and of its samples. `None` if it
    /// is 1 for a right answer or 0 for a wrong one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<f64>,
    /// The category of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The weight of the query; `None` if it is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The answers that were drawn at random; none if it was answered greedily.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Why it was not scored, if it was not: a budget ran out. Then it counts neither as right nor as wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_scored: Option<String>,
}

/// One of several answers to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What was answered, in the last round.
    pub text: String,
    /// Whether it is right.
    pub pass: bool,
}

/// For serde: a count of zero is left out.
fn is_zero(count: &usize) -> bool {
    *count == 0
}
