//! `pipeline status` and `pipeline build -n`: show the verdict on each node.
//! Knows nothing of how verdicts are found.

use std::fmt::Write;

use clap::Args;

use crate::commands::why::{sentence, to_json, words};
use crate::outcome::Outcome;
use crate::shared_args::{ComputeArgs, RemoteArgs};
use crate::terminal::{print, print_json, warn};
use engine::plan::{Decision, Verdict};
use engine::project::{PlanOptions, Project, ProjectPath, WorkerJob};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// What to look at; all nodes if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Exit with 3 if anything is stale
    #[arg(long)]
    exit_code: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: &StatusArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    let options = PlanOptions {
        targets: args.targets.clone(),
        backend: args.compute.backend(),
        device: args.compute.device(),
        remote: args.remote.choice(),
        placing: args.compute.placing(),
        ..PlanOptions::default()
    };
    let plan = project.plan(&options)?;
    warn(&plan.notices);
    show(&project, &plan.decisions, args.json, args.exit_code)
}

/// Prints the decisions, and how many nodes have something to do. With `exit_code`, the outcome says whether
/// anything is stale.
pub(crate) fn show(
    project: &Project,
    decisions: &[Decision],
    json: bool,
    exit_code: bool,
) -> anyhow::Result<Outcome> {
    if json {
        decisions.iter().try_for_each(|decision| print_json(&to_json(project, decision)))?;
    } else {
        print(&table(project, decisions))?;
    }
    for decision in decisions {
        if let Some(problem) = project.not_vouched(decision)? {
            let node = &project.graph().node(decision.id).name;
            warn(&[format!(
                "`{node}` was made elsewhere, and {problem}; `pipeline verify {node}` makes it again"
            )]);
        }
    }
    let is_fresh = |decision: &Decision| matches!(decision.verdict, Verdict::Fresh | Verdict::Recorded);
    let fresh = decisions.iter().all(is_fresh);
    Ok(if exit_code && !fresh { Outcome::Stale } else { Outcome::Success })
}

fn table(project: &Project, decisions: &[Decision]) -> String {
    let name = |decision: &Decision| project.graph().node(decision.id).name.as_str();
    let width = decisions.iter().map(|decision| name(decision).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let jobs = project.worker_jobs();
    for decision in decisions {
        let why: Vec<_> = decision.changes.iter().map(words).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        let job = jobs.iter().find(|job| decision.is_stale() && decision.key == Some(job.key));
        let job =
            job.map_or_else(String::new, |job| format!("; on the worker {}: {}", job.worker, job.place));
        let _ = writeln!(text, "{:width$}  {}{why}{job}", name(decision), sentence(project, decision));
    }
    let is_known = |job: &&WorkerJob| decisions.iter().any(|decision| decision.key == Some(job.key));
    // A part of the graph does not have all keys.
    let is_whole = decisions.len() == project.graph().len();
    for job in jobs.iter().filter(|job| is_whole && !is_known(job)) {
        let WorkerJob { node, worker, place, .. } = job;
        let _ = writeln!(text, "the worker {worker} has a job of another recipe of {node}: {place}");
    }
    let count = |verdict| decisions.iter().filter(|decision| decision.verdict == verdict).count();
    let failed = decisions.iter().filter(|decision| decision.failure.is_some()).count();
    let counts = [
        (count(Verdict::Stale), "to run"),
        (count(Verdict::Waits), "waiting for an input"),
        (count(Verdict::Cached), "to link from the cache"),
        (count(Verdict::Remote), "to fetch from the remote"),
        (failed, "failed"),
    ];
    let parts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if parts.is_empty() {
        text += &nothing_to_do(decisions.len());
    } else {
        let _ = writeln!(text, "{}", parts.join(", "));
    }
    text
}

/// Returns the line that a build with nothing to do ends with.
pub(crate) fn nothing_to_do(count: usize) -> String {
    format!("nothing to do: {} up to date\n", nodes(count))
}

/// Formats a number of nodes.
pub(crate) fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}
