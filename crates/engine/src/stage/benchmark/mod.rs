//! `benchmark`: every configuration answers every query and reads every text, in a process of its own; then
//! the gates and verdicts are decided.
//! Knows nothing of runtimes or of tokens: it sends conversations to a worker and scores the texts that come back.

mod folders;
mod host;
mod interview;
mod memory;
mod progress;
mod prompts;
mod score;

pub use host::Host;
pub use interview::Counted;
pub use memory::{Entry, Measured, Turn};
pub use progress::{Doing, Measuring};
pub use prompts::Prompt;
pub(crate) use prompts::prompts;

use std::collections::HashMap;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::SystemTime;

use folders::Folders;
use indexmap::IndexMap;
use interview::{Course, Interview, Setting};

use super::{Benchmark, Config, Device, Environment, Inputs};
use crate::error::{Context, OrBug, Result, fail, require};
use crate::machine::chip;
use artifact::{Output, Tick};
use protocol::Date;
use report::suite::{Query, Quoting, Suite};
use report::{
    AllTimings, Changes, ConfigResults, Criterion, Machine, Quantity, Report, Results, RunFacts, Timings,
    judge,
};

/// Runs the suite, unless it was measured earlier. Writes `results.json`, `readings.json`, `timings.json`,
/// `verdicts.json`, `report.md` and `report.html`.
pub(super) fn run(
    parameters: &Benchmark,
    inputs: &Inputs,
    output: &Output,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<Counted> {
    let (results, timings, counted) = match earlier(parameters, inputs) {
        Some((results, timings)) => {
            let texts = Suite::read(inputs.source()?, inputs.quoting)?.texts.len();
            let counted = remembered(&results, texts);
            (results, timings, counted)
        }
        None => run_all(parameters, inputs, environment, tick)?,
    };
    let mut judgement = judge(&parameters.gates, &parameters.verdicts, &results, &timings);
    judgement.changes = changes(inputs, &results, &timings);
    output.write("results.json", &pretty(&results))?;
    let readings = pretty(&results.text_evals());
    match parameters.runs_on {
        Device::Cpu => output.write("readings.json", &readings)?,
        Device::Mlx | Device::MlxElsewhere => output.write_volatile("readings.json", &readings)?,
    }
    output.write_volatile("timings.json", &pretty(&timings))?;
    output.write_volatile("verdicts.json", &pretty(&judgement))?;
    let report = Report { results: &results, timings: &timings, judgement: &judgement };
    output.write_volatile("report.md", report.markdown().as_bytes())?;
    output.write_volatile("report.html", report.html().as_bytes())?;
    judgement.undecided().into_iter().for_each(|undecided| output.warn(undecided));
    if let Some(failure) = judgement.failure() {
        output.fail(failure);
    }
    Ok(counted)
}

/// Compares with the last run of this benchmark, if there was one.
fn changes(inputs: &Inputs, results: &Results, timings: &AllTimings) -> Option<Changes> {
    let file = |name: &str| inputs.previous.get(name).map(Vec::as_slice);
    let old: Results = serde_json::from_slice(file("results.json")?).ok()?;
    let evals = serde_json::from_slice(file("readings.json")?).ok()?;
    let old_timings: AllTimings = serde_json::from_slice(file("timings.json")?).ok()?;
    Changes::between((&old.with_text_evals(&evals), &old_timings), (results, timings))
}

/// Returns the day and the time now.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let minutes = seconds / 60 % (24 * 60);
    format!("{} {:02}:{:02} UTC", Date::after_epoch(seconds / (24 * 3600)), minutes / 60, minutes % 60)
}

/// Counts what an earlier measurement has.
fn remembered(results: &Results, texts: usize) -> Counted {
    let configs = || results.configs.values();
    Counted {
        remembered_queries: configs().map(|config| config.answers.len()).sum(),
        remembered_texts: texts * results.configs.len(),
        ..Counted::default()
    }
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

/// Measures every configuration, the reference first: the others are compared with what it leaves.
fn run_all(
    parameters: &Benchmark,
    inputs: &Inputs,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<(Results, AllTimings, Counted)> {
    let suite = Suite::read(inputs.source()?, inputs.quoting)?;
    let reference = parameters.reference.as_deref();
    let setting = Setting {
        suite: &suite,
        worker: environment.worker,
        device: parameters.runs_on,
        host: environment.host,
        tick,
        reference,
        configs: parameters.configs.len(),
    };
    let mut interviews = Vec::new();
    for (index, config) in parameters.configs.iter().enumerate() {
        let folders = Folders::of(parameters, &config.name, inputs)?;
        interviews.push(Interview::new(&setting, &config.name, index + 1, folders));
    }
    let mut course = Course::new(&setting, &interviews)?;
    let mut unread = vec![false; suite.texts.len()];
    for (text, unread) in unread.iter_mut().enumerate() {
        for interview in &interviews {
            *unread |= interview.lacks(text)?;
        }
    }
    let mut order: Vec<_> = interviews.iter_mut().collect();
    order.sort_by_key(|interview| reference != Some(interview.name()));
    let mut measured = HashMap::new();
    for interview in order {
        let done = run_config(interview, &mut course, &|text| unread[text]);
        let done = done.within(|| format!("cannot measure the config `{}`", interview.name()))?;
        measured.insert(interview.name().to_owned(), done);
    }
    let mut results = Results {
        suite: suite.name.clone(),
        reference: parameters.reference.clone(),
        configs: IndexMap::new(),
    };
    let (sources, git_commit) = inputs.about.clone();
    let asked_by = inputs.asked_by.clone();
    let run = Some(RunFacts { date: now(), git_commit, sources, asked_by });
    let mut timings = AllTimings { machine: machine(parameters.runs_on), run, configs: IndexMap::new() };
    for Config { name, .. } in &parameters.configs {
        let (own, timed) = measured.remove(name).or_bug("every config was measured")?;
        results.configs.insert(name.clone(), own);
        timings.configs.extend(timed.map(|timed| (name.clone(), timed)));
    }
    Ok((results, timings, course.counted))
}

/// Measures one configuration. `needs` says of which texts the log probabilities are needed, if it is the reference.
fn run_config(
    interview: &mut Interview<'_>,
    course: &mut Course,
    needs: &dyn Fn(usize) -> bool,
) -> Result<(ConfigResults, Option<Timings>)> {
    let facts = interview.folders.facts()?;
    interview.run(course, needs)?;
    let results = score::score(interview.suite(), &interview.said()?, interview.text_eval()?, facts)?;
    Ok((results, interview.timings()?))
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
    for Criterion { quantity, category, .. } in gates.chain(verdicts) {
        let missing = match quantity {
            Quantity::Accuracy
            | Quantity::Credit
            | Quantity::PassAtK
            | Quantity::Memory
            | Quantity::Load
            | Quantity::Speed
                if !queries =>
            {
                "`queries`".to_owned()
            }
            Quantity::Exact if !suite.queries.iter().any(Query::has_exact) => "an `answer`".to_owned(),
            Quantity::PassAtK if !suite.queries.iter().any(Query::has_samples) => "`samples`".to_owned(),
            Quantity::Perplexity if !texts => "`texts`".to_owned(),
            _ if quantity.is_divergence() && !texts => "`texts`".to_owned(),
            _ if quantity.is_divergence() && parameters.reference.is_none() => fail!(
                Source,
                "`{}` is asked for, but the node has no `reference` to compare with",
                quantity.word()
            ),
            _ => match category {
                Some(category) if !suite.queries.iter().any(|query| query.is_in(category)) => {
                    format!("a query with `category: {category}`")
                }
                _ => continue,
            },
        };
        let category = category.as_ref().map_or_else(String::new, |category| format!("[{category}]"));
        let (word, suite) = (quantity.word(), source.display());
        fail!(Source, "`{word}{category}` is asked for, but the suite {suite} lacks {missing}");
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
