//! `pipeline why`, and the words for what changed.
//! Knows nothing of how the changes are found.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::outcome::Outcome;
use crate::shared_args::{ComputeArgs, RemoteArgs};
use crate::terminal::{print, print_json, warn};
use artifact::Digest;
use engine::origin::Origin;
use engine::plan::{Decision, Verdict};
use engine::project::{PlanOptions, Project, ProjectPath};
use engine::recipe::Change;

/// A list or an object is not shown if its JSON is longer than this, in bytes.
const LONGEST: usize = 80;

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The node
    target: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: &WhyArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    let plan = project.why(
        &args.target,
        &PlanOptions {
            backend: args.compute.backend(),
            device: args.compute.device(),
            remote: args.remote.choice(),
            placing: args.compute.placing(),
            ..PlanOptions::default()
        },
    )?;
    warn(&plan.notices);
    let causes = plan.causes();
    if args.json {
        causes.first().map(|last| print_json(&to_json(&project, last))).transpose()?;
    } else {
        let described: Vec<_> = causes.iter().map(|decision| describe(&project, decision)).collect();
        print(&described.concat())?;
    }
    Ok(Outcome::Success)
}

/// Describes the verdict and, in a line each, the changes.
fn describe(project: &Project, decision: &Decision) -> String {
    let mut text = format!("{}: {}\n", project.graph().node(decision.id).name, sentence(project, decision));
    for change in &decision.changes {
        let _ = writeln!(text, "  {}", words(change));
    }
    text
}

/// Describes the verdict.
pub(crate) fn sentence(project: &Project, decision: &Decision) -> String {
    match decision.verdict {
        Verdict::Fresh => match &decision.failure {
            Some(failure) => format!("up to date, but {failure}"),
            None => "up to date".to_owned(),
        },
        Verdict::Cached => match &decision.edited {
            Some(path) => format!("`{path}` was changed by hand; it is put right from the cache"),
            None => "made before; it is linked from the cache".to_owned(),
        },
        Verdict::Recorded => "made before; its files are not here, and nothing needs them".to_owned(),
        Verdict::Remote => "made by the team; it is fetched from the remote".to_owned(),
        Verdict::Stale => match project.worker_of(decision.id) {
            Some(worker) => format!("must run on the worker {worker}"),
            None => "must run".to_owned(),
        },
        Verdict::Waits => {
            let names = decision.waits_for.iter().map(|id| project.graph().node(*id).name.as_str());
            format!("waits for {}", names.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Returns the decision as JSON. `build -n`, `status` and `why` print the same JSON.
pub(crate) fn to_json(project: &Project, decision: &Decision) -> Value {
    let name = |id: &engine::graph::NodeId| project.graph().node(*id).name.clone();
    json!({
        "node": name(&decision.id),
        "stage": project.graph().node(decision.id).stage.word(),
        "verdict": decision.verdict,
        "changes": decision.changes,
        "waits_for": decision.waits_for.iter().map(name).collect::<Vec<_>>(),
        "edited": decision.edited,
        "failure": decision.failure,
        "key": decision.key,
        "worker": project.worker_of(decision.id),
        "artifact": decision.artifact.as_ref().map(artifact::Artifact::digest),
    })
}

/// Describes one change in words, with the old and the new value.
pub(crate) fn words(change: &Change) -> String {
    match change {
        Change::NeverBuilt => "it was never built here".to_owned(),
        Change::Forced => "--force".to_owned(),
        Change::Stage { old, new } => format!("stage: {old} -> {new}"),
        Change::Parameter { name, old, new } if part(old, new).is_some() => {
            let (place, old, new) = part(old, new).unwrap_or_default();
            format!("parameter {name}{place}: {old} -> {new}")
        }
        // Lists of lists, such as the questions of a benchmark, are for `--json`.
        Change::Parameter { name, old, new } if is_long(old) || is_long(new) => {
            format!("parameter {name} changed")
        }
        Change::Parameter { name, old, new } => format!("parameter {name}: {} -> {}", shown(old), shown(new)),
        Change::Version { old, new } => format!("the stage's code: version {old} -> {new}"),
        Change::Backend { old, new } => format!("backend: {old} -> {new}"),
        Change::Origin { old, new } => {
            format!("origin: {} -> {}", origin_or_folder(old.as_ref()), origin_or_folder(new.as_ref()))
        }
        Change::Unresolved { repo, revision } => {
            format!("revision {revision} of {repo} is not resolved yet: a build asks the hub")
        }
        Change::NeverDownloaded { origin } => format!("{} was never downloaded", short(origin)),
        Change::NotDownloaded { path } => {
            format!(
                "file {path} is gone from the hub's cache or was altered there; it is downloaded when needed"
            )
        }
        Change::SourceMissing { path } => format!("the source {path} is not there"),
        Change::Input { role, node, old, new } => {
            let of = node.as_ref().map_or_else(String::new, |node| format!(" ({node})"));
            format!("input {role}{of}: {}", old_and_new(*old, *new))
        }
        Change::File { path, old, new } => format!("file {path}: {}", old_and_new(*old, *new)),
        Change::Damaged { problem } => format!("damaged: {problem}"),
        Change::FilesLost => "its files are not here, nor in a remote that was asked".to_owned(),
        Change::CommandFailed { log } => {
            format!("its last run did not succeed; its output is in {}", log.display())
        }
        Change::Temporary => "it is temporary, and something needs its files again".to_owned(),
        Change::RecordLost => "the record of its last build is gone".to_owned(),
    }
}

fn origin_or_folder(origin: Option<&Origin>) -> String {
    origin.map_or_else(|| "a folder".to_owned(), short)
}

fn short(origin: &Origin) -> String {
    format!("{}@{}", origin.repo, origin.commit.short())
}

fn is_long(value: &Value) -> bool {
    (value.is_array() || value.is_object()) && value.to_string().len() > LONGEST
}

/// Returns where two lists or two objects differ, if what differs is short: its place, the old and the new values.
fn part(old: &Value, new: &Value) -> Option<(String, String, String)> {
    let (place, old, new) = match (old, new) {
        (Value::Array(old), Value::Array(new)) => middle(old, new),
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            let mut different = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
            let name = different.next().filter(|_| different.next().is_none())?;
            let value = |map: &serde_json::Map<String, Value>| shown(map.get(name).unwrap_or(&Value::Null));
            (format!(".{name}"), value(old), value(new))
        }
        _ => return None,
    };
    (old.len() <= LONGEST && new.len() <= LONGEST).then_some((place, old, new))
}

/// Returns what lies between the beginning and the end that two lists have in common, and its place.
fn middle(old: &[Value], new: &[Value]) -> (String, String, String) {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let rest = |list: &[Value]| list.iter().skip(start).cloned().collect::<Vec<_>>();
    let (mut old, mut new) = (rest(old), rest(new));
    while old.last().is_some_and(|last| new.last() == Some(last)) {
        old.pop();
        new.pop();
    }
    let words = |list: &[Value]| match list {
        [] => "nothing".to_owned(),
        list => list.iter().map(shown).collect::<Vec<_>>().join(", "),
    };
    (format!("[{start}]"), words(&old), words(&new))
}

/// Formats a parameter as the user writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn old_and_new(old: Option<Digest>, new: Option<Digest>) -> String {
    match (old, new) {
        (Some(old), Some(new)) => format!("{} -> {}", old.short(), new.short()),
        (None, Some(new)) => format!("new, {}", new.short()),
        (Some(old), None) => format!("gone, was {}", old.short()),
        (None, None) => "unknown".to_owned(),
    }
}
