//! `benchmark`: every configuration answers every query and reads every text, in a process of its own; then
//! the gates and verdicts are decided.
//! Knows nothing of runtimes or of tokens: it sends conversations to a worker and scores the texts that come back.

mod folders;

use std::path::Path;
use std::thread::available_parallelism;

use folders::{Facts, Folders};
use indexmap::IndexMap;

use super::{Benchmark, Device, Inputs, WorkerProgram};
use crate::error::{Context, Result, fail, require};
use crate::machine::chip;
use artifact::{Interrupted, Output, Tick};
use protocol::{Answered, Measured, TextEval, Timings};
use report::suite::{Query, Quoting, Suite};
use report::{AllTimings, ConfigResults, Criterion, Machine, Quantity, Report, Results, judge, wilson};

/// Runs the suite, unless it was measured earlier. Writes `results.json`, `readings.json`, `timings.json`,
/// `verdicts.json`, `report.md` and `report.html`.
pub(super) fn run(
    parameters: &Benchmark,
    inputs: &Inputs,
    output: &Output,
    worker: &WorkerProgram,
    tick: Tick<'_>,
) -> Result<()> {
    let (results, timings) = match earlier(parameters, inputs) {
        Some(earlier) => earlier,
        None => run_all(parameters, inputs, worker, tick)?,
    };
    let judgement = judge(&parameters.gates, &parameters.verdicts, &results, &timings);
    output.write("results.json", &pretty(&results))?;
    let readings = pretty(&results.text_evals());
    match parameters.runs_on {
        Device::Cpu => output.write("readings.json", &readings)?,
        Device::Mlx => output.write_volatile("readings.json", &readings)?,
    }
    output.write_volatile("timings.json", &pretty(&timings))?;
    output.write_volatile("verdicts.json", &pretty(&judgement))?;
    let report = Report { results: &results, timings: &timings, judgement: &judgement };
    output.write_volatile("report.md", report.markdown().as_bytes())?;
    output.write_volatile("report.html", report.html().as_bytes())?;
    if let Some(failure) = judgement.failure() {
        output.fail(failure);
    }
    Ok(())
}

/// Returns the results of an earlier measurement, if the inputs have it. If times are judged, they must be those of
/// this machine.
fn earlier(parameters: &Benchmark, inputs: &Inputs) -> Option<(Results, AllTimings)> {
    let file = |name: &str| inputs.measured.get(name).map(Vec::as_slice);
    let results: Results = serde_json::from_slice(file("results.json")?).ok()?;
    let evals = serde_json::from_slice(file("readings.json")?).ok()?;
    let timings: AllTimings = serde_json::from_slice(file("timings.json")?).ok()?;
    let is_ours = timings.machine == machine(parameters.runs_on);
    let is_shared = parameters.runs_on == Device::Cpu;
    (is_ours || !is_shared || !parameters.judges_timings())
        .then(|| (results.with_text_evals(&evals), timings))
}

/// Measures every configuration.
fn run_all(
    parameters: &Benchmark,
    inputs: &Inputs,
    worker: &WorkerProgram,
    tick: Tick<'_>,
) -> Result<(Results, AllTimings)> {
    let suite = Suite::read(inputs.source()?, inputs.quoting)?;
    let reference = parameters.reference.as_deref();
    let reference = reference.map(|name| Folders::of(parameters, name, inputs)).transpose()?;
    let mut results = Results {
        suite: suite.name.clone(),
        reference: parameters.reference.clone(),
        configs: IndexMap::new(),
    };
    let mut timings = AllTimings { machine: machine(parameters.runs_on), configs: IndexMap::new() };
    let each = suite.queries.len() * suite.repeats + suite.texts.len();
    for (index, config) in parameters.configs.iter().enumerate() {
        let folders = Folders::of(parameters, &config.name, inputs)?;
        let count = |done: u64| tick((index * each) as u64 + done, (parameters.configs.len() * each) as u64);
        let worker = (worker, parameters.runs_on);
        let (own, timed) = run_config(&suite, &folders, reference.as_ref(), worker, &count)
            .within(|| format!("cannot measure the config `{}`", config.name))?;
        results.configs.insert(config.name.clone(), own);
        timings.configs.extend(timed.map(|timed| (config.name.clone(), timed)));
    }
    Ok((results, timings))
}

/// Checks what can be known of a benchmark before anything runs: whether the suite at `source` is valid, and
/// whether it can answer what the gates and verdicts ask.
pub(super) fn preflight(parameters: &Benchmark, source: &Path, quoting: Quoting) -> Result<()> {
    let suite = Suite::read(source, quoting)?;
    let (queries, texts) = (!suite.queries.is_empty(), !suite.texts.is_empty());
    require!(
        parameters.reference.is_none() || texts,
        Source,
        "`reference` needs `texts` in the suite, and it has none"
    );
    let gates = parameters.gates.iter().flat_map(|gate| &gate.criteria);
    let verdicts =
        parameters.verdicts.iter().flat_map(|verdict| verdict.optimal.iter().chain(&verdict.minimum));
    for Criterion { quantity, .. } in gates.chain(verdicts) {
        let missing = match quantity {
            Quantity::Accuracy | Quantity::Memory | Quantity::Load | Quantity::Speed if !queries => {
                "`queries`"
            }
            Quantity::Exact if !suite.queries.iter().any(Query::has_exact) => "an `answer`",
            Quantity::Perplexity | Quantity::Kl if !texts => "`texts`",
            Quantity::Kl if parameters.reference.is_none() => {
                fail!(Source, "`kl` is asked for, but the node has no `reference` to compare with")
            }
            _ => continue,
        };
        fail!(
            Source,
            "`{}` is asked for, but the suite {} lacks {missing}",
            quantity.word(),
            source.display()
        );
    }
    Ok(())
}

/// Returns indented JSON. Fields and configurations keep their order and are not sorted, because people read
/// it.
fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("BUG: a result has a JSON form");
    bytes.push(b'\n');
    bytes
}

fn machine(device: Device) -> Machine {
    Machine {
        system: std::env::consts::OS.to_owned(),
        processor: std::env::consts::ARCH.to_owned(),
        chip: chip().map(str::to_owned),
        threads: available_parallelism().map_or(1, usize::from),
        backend: device.id().to_owned(),
        pipeline: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Measures one configuration. `count` gets the number of answers and texts done.
fn run_config(
    suite: &Suite,
    folders: &Folders<'_>,
    reference: Option<&Folders<'_>>,
    (worker, device): (&WorkerProgram, Device),
    count: &dyn Fn(u64) -> Result<(), Interrupted>,
) -> Result<(ConfigResults, Option<Timings>)> {
    let facts = folders.facts()?;
    let measured = match suite.queries.is_empty() {
        true => None,
        false => Some(worker.measure(device, folders.measure(suite), count)?),
    };
    let answered = (suite.queries.len() * suite.repeats) as u64;
    let eval = match suite.texts.is_empty() {
        true => None,
        false => {
            let count = |done: u64| count(answered + done);
            Some(worker.evaluate(device, folders.evaluate(suite, reference), &count)?)
        }
    };
    let results = score(suite, measured.as_ref(), eval, facts)?;
    Ok((results, measured.map(|measured| measured.timings)))
}

fn score(
    suite: &Suite,
    measured: Option<&Measured>,
    eval: Option<TextEval>,
    facts: Facts,
) -> Result<ConfigResults> {
    let answered = measured.map_or(&[][..], |measured| &measured.answers);
    let (asked, given) = (suite.queries.len(), answered.len());
    require!(given == asked, Source, "the worker answered {given} of {asked} queries");
    let pairs = || suite.queries.iter().zip(answered);
    let score = |(query, answered): (&Query, &Answered)| match answered {
        Answered::Text(spoken) => query.score(spoken),
        Answered::NotAsked(reason) => query.not_scored("", reason.clone()),
    };
    let answers: Vec<_> = pairs().map(score).collect();
    let correct = answers.iter().filter(|answer| answer.pass).count();
    let not_scored = answers.iter().filter(|answer| answer.not_scored.is_some()).count();
    let total = asked - not_scored;
    let scored = || pairs().zip(&answers).filter(|(_, answer)| answer.not_scored.is_none());
    let exact = scored().filter(|((query, _), answer)| query.is_exact(&answer.text));
    Ok(ConfigResults {
        correct,
        total,
        not_scored,
        accuracy: if total == 0 { 0.0 } else { correct as f64 / total as f64 },
        accuracy_interval: wilson(correct, total),
        exact: exact.count(),
        exact_total: scored().filter(|((query, _), _)| query.has_exact()).count(),
        disk_bytes: facts.disk_bytes,
        bits_per_weight: facts.bits_per_weight,
        quantization: facts.quantization,
        code: facts.code,
        perplexity: eval.map(|eval| eval.perplexity),
        divergence: eval.and_then(|eval| eval.divergence),
        survival: facts.survival,
        answers,
    })
}
