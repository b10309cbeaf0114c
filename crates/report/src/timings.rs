//! `timings.json`: what differs from run to run of a benchmark.
//! Knows nothing of answers.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::statistics::{mean, median};
use protocol::{Loaded, NotANumber, Run};

/// The speed and the memory of one configuration, measured in processes of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Seconds from opening the folder until every weight is in memory: the median, if it was loaded several times.
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
    /// `None` if there was one run.
    #[serde(default)]
    pub spread: Option<f64>,
    /// How many times each query was answered.
    pub repeats: usize,
    /// The type of the activations.
    pub activation_dtype: String,
    /// The device: `cpu`, or MLX's `cpu` or `gpu`.
    pub device: String,
    /// How many processes wanted to run when the model was loaded, on average over a minute: the largest, if it was
    /// loaded several times. `None` if the system does not tell.
    #[serde(default)]
    pub load_average: Option<f64>,
}

/// One time that a model was loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// What the worker said.
    pub loaded: Loaded,
    /// How many processes wanted to run then, on average over a minute.
    pub load_average: Option<f64>,
}

impl Timings {
    /// Returns the times of a configuration: of loading it, and of each repeat of each answer. There are `repeats` runs
    /// of each answer. Returns `None` if it was not loaded, or if nothing was answered.
    ///
    /// # Errors
    /// Fails on the first figure that is not a number.
    pub fn of(loads: &[Load], answers: &[&[Run]], repeats: usize) -> Result<Option<Self>, NotANumber> {
        let (Some(Load { loaded, .. }), false) = (loads.last(), answers.is_empty()) else { return Ok(None) };
        let runs: Vec<Vec<&Run>> =
            (0..repeats).map(|repeat| answers.iter().filter_map(|runs| runs.get(repeat)).collect()).collect();
        let sum = |run: &[&Run], of: fn(&Run) -> f64| run.iter().map(|one| of(one)).sum::<f64>();
        // The first token of an answer counts towards the prefill.
        let decoded = |run: &Run| run.new_tokens.saturating_sub(1) as f64;
        let prefill = |run: &Vec<&Run>| {
            per_second(sum(run, |one| one.prompt_tokens as f64), sum(run, |one| one.prefill_seconds))
        };
        let decode = |run: &Vec<&Run>| per_second(sum(run, decoded), sum(run, |one| one.decode_seconds));
        let whole = runs.iter().map(|run| sum(run, |one| one.prefill_seconds + one.decode_seconds));
        let whole: Vec<f64> = whole.collect();
        let time = mean(&whole);
        let averages = loads.iter().filter_map(|load| load.load_average);
        let peaks = runs.iter().flatten().map(|run| run.peak_memory_bytes);
        let peaks = peaks.chain(loads.iter().map(|load| load.loaded.peak_memory_bytes));
        let timings = Self {
            load_seconds: median(loads.iter().map(|load| load.loaded.seconds).collect()),
            peak_memory_bytes: peaks.max().unwrap_or(0),
            prefill_tokens_per_second: median(runs.iter().map(prefill).collect()),
            decode_tokens_per_second: median(runs.iter().map(decode).collect()),
            generation_seconds_mean: time.value / answers.len() as f64,
            spread: (repeats > 1 && time.value > 0.0)
                .then(|| time.error * (repeats as f64).sqrt() / time.value),
            repeats,
            activation_dtype: loaded.activation_dtype.clone(),
            device: loaded.device.clone(),
            load_average: averages.reduce(f64::max),
        };
        timings.check().map(|()| Some(timings))
    }

    fn check(&self) -> Result<(), NotANumber> {
        NotANumber::check(&[
            ("load time", self.load_seconds),
            ("prefill speed", self.prefill_tokens_per_second),
            ("decode speed", self.decode_tokens_per_second),
            ("time of an answer", self.generation_seconds_mean),
            ("spread of the times", self.spread.unwrap_or_default()),
        ])
    }
}

fn per_second(count: f64, seconds: f64) -> f64 {
    // A clock that did not advance measured nothing.
    if count == 0.0 || seconds <= 0.0 { 0.0 } else { count / seconds }
}

/// The speed and the memory of all configurations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllTimings {
    /// The machine on which it was measured.
    pub machine: Machine,
    /// When it was measured, and of what. Older results do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFacts>,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, Timings>,
}

/// When a benchmark was measured, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The day and the time in UTC: `2026-01-31 12:34 UTC`.
    pub date: String,
    /// The commit that was checked out around the project.
    pub git_commit: Option<String>,
    /// The bases and adapters that the configurations descend from.
    pub sources: Vec<SourceFacts>,
    /// The class of the machine whose build asked for it, if a worker measured it for another machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
}

/// A base or an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The node.
    pub node: String,
    /// `base` or `adapter`.
    pub stage: String,
    /// The folder as the pipeline file names it, or the repository on the hub.
    pub source: String,
    /// The commit on the hub, or the beginning of the digest of the folder's files.
    pub commit: Option<String>,
}

/// The machine on which a benchmark was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux` or `macos`.
    pub system: String,
    /// `x86_64` or `aarch64`.
    pub processor: String,
    /// The processor's name, if the system tells it.
    #[serde(default)]
    pub chip: Option<String>,
    /// How many threads can run at once.
    pub threads: usize,
    /// What ran the models: the version of the CPU runtime, or MLX's version and device.
    pub backend: String,
    /// The version of this program.
    pub pipeline: String,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { system, processor, chip, threads, backend, pipeline } = self;
        write!(f, "{system} {processor}, ")?;
        if let Some(chip) = chip {
            write!(f, "{chip}, ")?;
        }
        write!(f, "{threads} threads, {backend}, pipeline {pipeline}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(seconds: f64, load_average: Option<f64>) -> Load {
        let loaded = Loaded {
            seconds,
            activation_dtype: "float32".to_owned(),
            device: "cpu".to_owned(),
            peak_memory_bytes: 5,
        };
        Load { loaded, load_average }
    }

    #[test]
    fn repeats_are_summed_up() {
        let run = |decode_seconds: f64| Run {
            prompt_tokens: 10,
            prefill_seconds: 1.0,
            new_tokens: 5,
            decode_seconds,
            peak_memory_bytes: 7,
        };
        let (one, two) = ([run(1.0), run(3.0)], [run(1.0), run(1.0)]);
        let loads = [load(1.0, None), load(3.0, Some(0.5))];
        let timings = Timings::of(&loads, &[&one, &two], 2).unwrap().unwrap();
        assert_eq!((timings.load_seconds, timings.load_average), (2.0, Some(0.5)));
        assert_eq!((timings.prefill_tokens_per_second, timings.decode_tokens_per_second), (10.0, 3.0));
        assert_eq!(timings.generation_seconds_mean, 2.5);
        // The two repeats took 4 and 6 seconds.
        assert!((timings.spread.unwrap() - 2_f64.sqrt() / 5.0).abs() < 1e-12);
        assert_eq!(Timings::of(&loads, &[&one], 1).unwrap().unwrap().spread, None);
        assert_eq!(Timings::of(&[], &[&one], 1), Ok(None));
    }

    #[test]
    fn nothing_decoded_is_no_speed() {
        assert_eq!([per_second(0.0, 0.0), per_second(3.0, 0.0), per_second(3.0, 2.0)], [0.0, 0.0, 1.5]);
    }
}
