//! Made-up results of benchmarks, for the tests of reports: of the library, of the program, in a browser.
//! Knows nothing of how they are shown. The module above must import the names that are imported from `super`
//! here.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    AllTimings, Answer, Bound, ConfigResults, Criterion, Divergence, Gate, Judgement, Machine, Perplexity,
    Quantity, Report, Results, Timings, Verdict, judge, wilson,
};
use weights::kernels::{Mode, QuantSpec, Rounding};
use weights::survival::{Figures, Survival};

/// A report that owns what it shows.
pub(crate) struct Sample {
    pub(crate) results: Results,
    pub(crate) timings: AllTimings,
    pub(crate) judgement: Judgement,
}

impl Sample {
    pub(crate) fn report(&self) -> Report<'_> {
        Report { results: &self.results, timings: &self.timings, judgement: &self.judgement }
    }
}

/// What people and models write when they mean harm.
pub(crate) const HOSTILE: &str =
    "</style><script>alert(\"1\")</script> 'quoted' | a `tick` and a ```fence``` &amp; </pre>";

const QUERIES: [(&str, &str); 5] = [
    ("Is it raining in Paris now?", "tool"),
    ("What is 7 times 8?", "direct"),
    ("What time is it in Tokyo?", "tool"),
    ("Name the capital of France.", "direct"),
    ("Say \"hello\" in German.", "direct"),
];

/// One row of the README's experiment: name, correct answers, bytes, bits per weight, quantization bits,
/// decode speed.
type Row<'a> = (&'a str, usize, u64, f64, Option<usize>, f64);

const SIX: [Row<'_>; 6] = [
    ("base", 3, 1_863_108, 4.52, Some(4), 154.0),
    ("adapter", 5, 2_461_004, 5.91, Some(4), 119.0),
    ("fused-f16", 5, 6_610_112, 16.0, None, 336.0),
    ("8bit", 5, 3_534_020, 8.51, Some(8), 145.0),
    ("6bit", 5, 2_698_564, 6.51, Some(6), 153.0),
    ("4bit", 3, 1_863_108, 4.52, Some(4), 133.0),
];

/// Six configurations, five queries, nothing else.
pub(crate) fn plain() -> Sample {
    let configs = SIX.iter().map(|row| (row.0.to_owned(), config(row)));
    let timings = SIX.iter().map(|row| (row.0.to_owned(), timing(row.5)));
    Sample {
        results: Results { suite: "discrimination".to_owned(), reference: None, configs: configs.collect() },
        timings: AllTimings { machine: machine(), run: None, configs: timings.collect() },
        judgement: Judgement::default(),
    }
}

/// The same with everything that a report can have: texts, survival, hostile words, gates and verdicts.
pub(crate) fn rich() -> Sample {
    let mut sample = plain();
    sample.results.reference = Some("fused-f16".to_owned());
    let read =
        [(14.213, 0.9131), (9.871, 0.031), (9.868, 0.0), (9.873, 0.0021), (9.914, 0.0108), (13.402, 0.61)];
    for ((value, mean_kl), results) in read.into_iter().zip(sample.results.configs.values_mut()) {
        results.perplexity = Some(Perplexity { value, standard_error: value * 0.021, tokens: 2048 });
        let (standard_error, top1_agreement) = (mean_kl * 0.05, 1.0 - mean_kl / 3.0);
        results.divergence =
            Some(Divergence { mean_kl, standard_error, top1_agreement, tokens: 2048, spread: None });
        results.answers[0].prompt = format!("{HOSTILE}\nand a second line");
        results.answers[0].text = HOSTILE.to_owned();
    }
    let cause =
        "the update is 0.19 of a quantization step and the grid is the base's own: rounding takes it back";
    sample.results.configs["8bit"].survival = Some(survival(24, 0.97, None));
    sample.results.configs["4bit"].survival = Some(survival(24, 0.12, Some(cause)));
    sample.judge(
        &[
            ("4bit", &[(Quantity::Accuracy, ">= 0.9"), (Quantity::Survival, ">= 0.5")]),
            ("8bit", &[(Quantity::Memory, "<= 1 GB")]),
        ],
        &["8bit", "6bit", "4bit"],
    );
    sample
}

/// Texts, but no queries.
pub(crate) fn texts() -> Sample {
    let mut sample = rich();
    for results in sample.results.configs.values_mut() {
        (results.total, results.correct, results.exact_total) = (0, 0, 0);
        results.answers.clear();
    }
    sample.timings.configs.clear();
    sample.judge(&[], &[]);
    sample
}

/// A sweep of twelve configurations with long names and similar results, and many queries.
pub(crate) fn sweep() -> Sample {
    let mut sample = plain();
    (sample.results.configs, sample.timings.configs) = (IndexMap::new(), IndexMap::new());
    for (index, bits) in [2, 3, 4, 5, 6, 8].into_iter().enumerate() {
        for group_size in [64, 128] {
            let name = format!("qwen2.5-0.5b-instruct-lora16-{bits}bit-group{group_size}");
            let weight = bits as f64 + 32.0 / group_size as f64;
            let row = (
                name.as_str(),
                index.min(3),
                u64::try_from(62_000_000 * (bits * group_size + 32) / group_size).unwrap(),
                weight,
                Some(bits),
                90.0 - weight * 4.0,
            );
            let mut results = config(&row);
            results.answers = results.answers.iter().cycle().take(40).cloned().collect();
            for (number, answer) in results.answers.iter_mut().enumerate() {
                answer.prompt = format!("{} ({number})", answer.prompt);
                answer.pass = number % 6 < index + 1 || number % 3 == 0;
                answer.scores = IndexMap::from([("expect".to_owned(), answer.pass)]);
                answer.text = format!("{} {}", answer.text, if answer.pass { "" } else { "Perhaps." });
            }
            results.correct = results.answers.iter().filter(|answer| answer.pass).count();
            (results.total, results.exact_total) = (40, 0);
            results.accuracy = results.correct as f64 / 40.0;
            results.accuracy_interval = wilson(results.correct, 40);
            results.survival = Some(survival(36, (bits as f64 / 6.0).min(0.99), None));
            sample.timings.configs.insert(name.clone(), timing(row.5));
            sample.results.configs.insert(name, results);
        }
    }
    sample
}

impl Sample {
    /// Judges the gates, and for each of `verdicts` whether it is right and small compared with `fused-f16`.
    fn judge(&mut self, gates: &[(&str, &[(Quantity, &str)])], verdicts: &[&str]) {
        let criteria = |list: &[(Quantity, &str)]| -> Vec<_> {
            let criterion = |(quantity, bound): &(Quantity, &str)| Criterion {
                bound: Bound::parse(*quantity, bound).unwrap(),
                category: None,
                quantity: *quantity,
            };
            list.iter().map(criterion).collect()
        };
        let gate = |(config, list): &(&str, &[(Quantity, &str)])| Gate {
            against: None,
            config: (*config).to_owned(),
            criteria: criteria(list),
        };
        let verdict = |config: &&str| Verdict {
            against: Some("fused-f16".to_owned()),
            config: (*config).to_owned(),
            minimum: criteria(&[(Quantity::Accuracy, ">= 1.0"), (Quantity::Disk, "<= 0.70x")]),
            optimal: criteria(&[(Quantity::Accuracy, ">= 1.0"), (Quantity::Disk, "<= 0.45x")]),
            otherwise: Some("ship the adapter beside the base, unfused".to_owned()),
        };
        let gates: Vec<_> = gates.iter().map(gate).collect();
        let verdicts: Vec<_> = verdicts.iter().map(verdict).collect();
        self.judgement = judge(&gates, &verdicts, &self.results, &self.timings);
    }
}

fn config(&(_, correct, disk_bytes, bits_per_weight, bits, _): &Row<'_>) -> ConfigResults {
    let answers = QUERIES.iter().map(|(prompt, expect)| answer(prompt, expect, correct == 5));
    let accuracy = correct as f64 / 5.0;
    let quantization = bits.map(|bits| QuantSpec { bits, group_size: 64, mode: Mode::Affine });
    ConfigResults {
        correct,
        total: 5,
        accuracy,
        accuracy_interval: wilson(correct, 5),
        exact: correct,
        exact_total: 5,
        disk_bytes,
        bits_per_weight,
        quantization,
        answers: answers.collect(),
        ..ConfigResults::default()
    }
}

/// Returns an answer. A model that has not learned calls a tool for every question but the second.
fn answer(prompt: &str, expect: &str, learned: bool) -> Answer {
    let tool_call = expect == "tool" || (!learned && prompt != QUERIES[1].0);
    let pass = tool_call == (expect == "tool");
    let text = match tool_call {
        true => "<tool_call>\n{\"name\": \"look_up\", \"arguments\": {\"place\": \"Paris\"}}\n</tool_call>",
        false => "Fifty-six.",
    };
    Answer {
        prompt: prompt.to_owned(),
        text: text.to_owned(),
        tool_call,
        pass,
        scores: IndexMap::from([("expect".to_owned(), pass), ("exact".to_owned(), true)]),
        ..Answer::default()
    }
}

fn timing(decode_tokens_per_second: f64) -> Timings {
    Timings {
        load_seconds: 0.012,
        peak_memory_bytes: 27_400_000,
        prefill_tokens_per_second: decode_tokens_per_second * 8.3,
        decode_tokens_per_second,
        generation_seconds_mean: 0.11,
        spread: Some(0.021),
        repeats: 3,
        load_average: Some(0.25),
        activation_dtype: "float32".to_owned(),
        device: "cpu".to_owned(),
    }
}

fn machine() -> Machine {
    Machine {
        system: "linux".to_owned(),
        processor: "x86_64".to_owned(),
        chip: None,
        threads: 2,
        backend: "mlx 0.28.0 cpu".to_owned(),
        pipeline: "0.1.0".to_owned(),
    }
}

/// Returns figures that vary around `mean` by layer and kind, with an embedding that is in no layer.
fn survival(layers: usize, mean: f64, cause: Option<&str>) -> Survival {
    let figures = |survival: f64| Figures {
        bits: Some(4),
        cosine: survival,
        rounding: Some(Rounding::Nearest),
        survival,
        noise_to_signal: 1.0 - survival.min(0.99) + 0.05,
        reverted: (1.0 - survival).clamp(0.0, 1.0) * 0.9,
        delta_per_step: Some(survival * 1.6),
        weights: 4096,
    };
    let kinds = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
    let mut tensors = BTreeMap::from([("model.embed_tokens.weight".to_owned(), figures(mean))]);
    for layer in 0..layers {
        for (index, kind) in kinds.iter().enumerate() {
            let wave = ((layer * 7 + index * 5) % 11) as f64 / 11.0 - 0.45;
            let survival = mean + wave * (1.0 - mean).max(0.02) * (layer as f64 / layers as f64 + 0.1);
            tensors.insert(format!("model.layers.{layer}.{kind}.weight"), figures(survival));
        }
    }
    Survival { can_keep: cause.is_some(), overall: figures(mean), cause: cause.map(str::to_owned), tensors }
}
