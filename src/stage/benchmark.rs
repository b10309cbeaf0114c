//! `benchmark`: every configuration answers every query of the suite, each in a process of its own.
//! Knows nothing of MLX or of tokens: it sends prompts to a worker and scores the texts that come back.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, ensure};
use indexmap::IndexMap;

use super::suite::{Query, Suite, holds_tool_call};
use super::worker::measure;
use super::{Benchmark, Checkpoint, Config, Inputs, Tick, base_of};
use crate::adapter::Adapter;
use crate::backend::MLX_ID;
use crate::failure::AtPath;
use crate::output::Output;
use crate::report::{AllTimings, Answer, ConfigResults, Machine, Measure, Measured, Results};

/// Runs the suite and writes `results.json`, `timings.json`, `report.md` and `report.html`.
pub(super) fn run(
    parameters: &Benchmark,
    inputs: &Inputs,
    output: &Output,
    tick: Tick<'_>,
) -> anyhow::Result<()> {
    let suite = Suite::read(inputs.source()?)?;
    let mut results = Results { suite: suite.name.clone(), configs: IndexMap::new() };
    let mut timings = AllTimings { machine: machine(), configs: IndexMap::new() };
    let total = (suite.queries.len() * parameters.configs.len()) as u64;
    for config in &parameters.configs {
        let before = (results.configs.len() * suite.queries.len()) as u64;
        let folders = Folders::of(config, inputs)?;
        folders.check().with_context(|| format!("cannot measure the config `{}`", config.name))?;
        let measured = measure(&folders.request(&suite), &|done| tick(before + done, total))
            .with_context(|| format!("cannot measure the config `{}`", config.name))?;
        results.configs.insert(config.name.clone(), score(&suite, &measured, &folders)?);
        timings.configs.insert(config.name.clone(), measured.timings);
    }
    output.write("results.json", &pretty(&results)?)?;
    output.write_volatile("timings.json", &pretty(&timings)?)?;
    output.write_volatile("report.md", results.markdown(&timings).as_bytes())?;
    output.write_volatile("report.html", results.html(&timings).as_bytes())
}

/// Returns the JSON in the order of the fields and of the configurations, not sorted: people read it.
fn pretty(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn machine() -> Machine {
    Machine {
        system: std::env::consts::OS.to_owned(),
        processor: std::env::consts::ARCH.to_owned(),
        threads: available_parallelism().map_or(1, usize::from),
        backend: MLX_ID.to_owned(),
    }
}

/// Where one configuration lies.
struct Folders<'a> {
    model: &'a Path,
    adapter: Option<&'a Path>,
}

impl<'a> Folders<'a> {
    fn of(config: &Config, inputs: &'a Inputs) -> anyhow::Result<Self> {
        let folder = |role: &str| inputs.folder(&format!("{}.{role}", config.name));
        let adapter = config.adapter.then(|| folder("adapter")).transpose()?;
        Ok(Self { model: folder("model")?, adapter })
    }

    /// Refuses an adapter that does not fit before a model is loaded for it.
    fn check(&self) -> anyhow::Result<()> {
        match self.adapter {
            Some(adapter) => Adapter::open(adapter)?.fits(&base_of(&Checkpoint::open(self.model)?)),
            None => Ok(()),
        }
    }

    fn request(&self, suite: &Suite) -> Measure {
        Measure {
            model: self.model.to_owned(),
            adapter: self.adapter.map(Path::to_owned),
            system: suite.system.clone(),
            tools: suite.tools.clone(),
            prompts: suite.queries.iter().map(|query| query.prompt.clone()).collect(),
            max_tokens: suite.max_tokens,
        }
    }

    fn disk_bytes(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for folder in [Some(self.model), self.adapter].into_iter().flatten() {
            for entry in fs::read_dir(folder).at("read", folder)? {
                let path = entry.at("read", folder)?.path();
                sum += fs::metadata(&path).at("read", &path)?.len();
            }
        }
        Ok(sum)
    }

    fn bits_per_weight(&self) -> anyhow::Result<f64> {
        let checkpoint = Checkpoint::open(self.model)?;
        let mut stored = checkpoint.stored();
        if let Some(adapter) = self.adapter {
            stored += Adapter::open(adapter)?.stored();
        }
        Ok(stored as f64 * 8.0 / checkpoint.parameters() as f64)
    }
}

fn score(suite: &Suite, measured: &Measured, folders: &Folders<'_>) -> anyhow::Result<ConfigResults> {
    let (total, answered) = (suite.queries.len(), measured.answers.len());
    ensure!(answered == total, "the worker answered {answered} of {total} queries");
    let pairs = || suite.queries.iter().zip(&measured.answers);
    let correct = pairs().filter(|(query, text)| query.passes(text)).count();
    Ok(ConfigResults {
        correct,
        total,
        accuracy: correct as f64 / total as f64,
        exact: pairs().filter(|(query, text)| query.is_exact(text) == Some(true)).count(),
        disk_bytes: folders.disk_bytes()?,
        bits_per_weight: folders.bits_per_weight()?,
        answers: pairs().map(|(query, text)| answer(query, text)).collect(),
    })
}

fn answer(query: &Query, text: &str) -> Answer {
    Answer {
        prompt: query.prompt.clone(),
        text: text.to_owned(),
        tool_call: holds_tool_call(text),
        pass: query.passes(text),
    }
}
