//! `pipeline diff`: compares two configurations of a benchmark, or what is there now with the lock.
//! Knows nothing of how results are compared.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::outcome::Outcome;
use crate::results::{benchmarks, outcomes};
use crate::terminal::{print, print_json};
use artifact::{Artifact, AtPath};
use engine::lockfile::{Locked, Lockfile};
use engine::plan::{Decision, Verdict};
use engine::project::{Project, ProjectPath};
use engine::stage::{BackendKind, Stage};
use report::{AllTimings, Diff, Results, Side};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Two configs; none compares what is there now with pipeline.lock
    #[arg(value_names = ["A", "B"], num_args = 2)]
    configs: Vec<String>,
    /// Another lock, such as that of another commit
    #[arg(long, value_name = "FILE", conflicts_with = "configs")]
    lock: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DiffArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    match args.configs.as_slice() {
        [a, b] => configs(&project, a, b, args.json),
        _ => against_lock(&mut project, args),
    }
}

/// Compares two configurations in every benchmark that has both.
fn configs(project: &Project, a: &str, b: &str, json: bool) -> anyhow::Result<Outcome> {
    let mut found = false;
    for node in benchmarks(project, &[])? {
        let built = outcomes(project, &node)?;
        let side = |name| side(&built.results, &built.timings, name);
        let (Some(a), Some(b)) = (side(a), side(b)) else { continue };
        found = true;
        let diff = Diff::of(a, b);
        if json {
            print_json(&json!({"node": node, "diff": diff}))?;
        } else {
            print(&diff.text())?;
        }
    }
    if !found {
        return Err(engine::Error::Usage(format!(
            "no benchmark that was built has the configs `{a}` and `{b}`"
        ))
        .into());
    }
    Ok(Outcome::Success)
}

fn side<'a>(results: &'a Results, timings: &'a AllTimings, name: &str) -> Option<Side<'a>> {
    let (name, own) = results.configs.get_key_value(name)?;
    Some(Side { name, results: own, timings: timings.configs.get(name) })
}

/// Compares each node with its entry in the lock.
fn against_lock(project: &mut Project, args: &DiffArgs) -> anyhow::Result<Outcome> {
    let lock = match &args.lock {
        Some(path) => {
            Lockfile::parse(&path.to_string_lossy(), &fs::read_to_string(path).at("read the lock", path)?)
        }
        None => project.lockfile()?,
    };
    let ids = project.graph().order().to_vec();
    // The files need not be here: the records say what they are.
    let decisions = project.plan_records(&ids, BackendKind::default())?;
    for decision in &decisions {
        let name = &project.graph().node(decision.id).name;
        let (state, diffs) = compare(project, decision, lock.get(name))?;
        if args.json {
            print_json(&json!({"node": name, "state": state, "configs": diffs}))?;
            continue;
        }
        let width =
            project.graph().order().iter().map(|id| project.graph().node(*id).name.chars().count()).max();
        print(&format!("{name:<0$}  {state}\n", width.unwrap_or(0)))?;
        for diff in diffs {
            print(&indented(&diff.text()))?;
        }
    }
    Ok(Outcome::Success)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect()
}

/// Compares a node with its entry in the lock. Returns the state in words and, for a benchmark, the
/// differences.
fn compare(
    project: &Project,
    decision: &Decision,
    locked: Option<&Locked>,
) -> anyhow::Result<(String, Vec<Diff>)> {
    let state = |text: &str| Ok((text.to_owned(), Vec::new()));
    let built = matches!(decision.verdict, Verdict::Fresh | Verdict::Cached | Verdict::Recorded);
    let Some(current) = decision.artifact.as_ref().filter(|_| built) else {
        return state("not built as it is now; `pipeline build` makes it");
    };
    let Some(locked) = locked else { return state("not in the lock") };
    let digest = current.reproducible_digest();
    if digest == locked.artifact {
        return state("as in the lock");
    }
    let words = format!("{} now, {} in the lock", digest.short(), locked.artifact.short());
    if !matches!(project.graph().node(decision.id).stage, Stage::Benchmark(_)) {
        return Ok((words, Vec::new()));
    }
    let old = project.store().action(&locked.key).map(|action| action.artifact);
    let Some(old) = old.filter(|old| old.reproducible_digest() == locked.artifact) else {
        return Ok((words + ", whose result is not in this cache", Vec::new()));
    };
    // A result that another version of the stage wrote may lack a file.
    diffs(project, &old, current)
        .map(|diffs| (words.clone(), diffs))
        .or_else(|error| Ok((format!("{words}, whose result cannot be compared: {error:#}"), Vec::new())))
}

/// Compares the configurations that both results have.
fn diffs(project: &Project, old: &Artifact, new: &Artifact) -> anyhow::Result<Vec<Diff>> {
    let file = |artifact: &Artifact, name: &str| -> anyhow::Result<Value> {
        let entry = artifact.file(name).with_context(|| format!("the artifact has no {name}"))?;
        let bytes = project.store().read_content(&entry.digest)?;
        serde_json::from_slice(&bytes).with_context(|| format!("cannot read {name}"))
    };
    let read = |artifact| -> anyhow::Result<(Results, AllTimings)> {
        let results: Results = serde_json::from_value(file(artifact, "results.json")?)?;
        let evals = serde_json::from_value(file(artifact, "readings.json")?)?;
        Ok((results.with_text_evals(&evals), serde_json::from_value(file(artifact, "timings.json")?)?))
    };
    let (old, new) = (read(old)?, read(new)?);
    let both = new.0.configs.keys().filter_map(|name| {
        let (a, b) = (side(&old.0, &old.1, name)?, side(&new.0, &new.1, name)?);
        let (locked, now) = (format!("{name} in the lock"), format!("{name} now"));
        Some(Diff::of(Side { name: &locked, ..a }, Side { name: &now, ..b }))
    });
    Ok(both.filter(|diff| !diff.is_empty()).collect())
}
