//! `pipeline build`: load, plan, run, lock, and one line that says what was done.
//! Knows nothing of how a stage works.

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;
use serde_json::json;

use crate::cli::{BackendArg, Outcome, print, print_json, watch_for_interrupt};
use crate::commands::attest::attest;
use crate::commands::status;
use crate::progress::progress;
use crate::project::{Place, Project};
use crate::publish::publishing;
use crate::remote::{RemoteArgs, warn};
use crate::resolve::{Ask, is_remote, resolve};
use artifact::Digest;
use engine::graph::NodeId;
use engine::hub::HubCache;
use engine::lockfile::{Locked, Lockfile};
use engine::plan::{Asked, Decision, Verdict};
use engine::schedule::{self, Options, Summary};
use engine::stage;
use engine::stage::BackendKind;
use engine::store::Counters;
use text::yaml::Problem;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// What to build; all nodes if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// With -n, exit with 3 if anything is stale
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// How many stages run at once; MLX always runs one
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// After a failure, go on with what does not depend on it
    #[arg(short = 'k', long)]
    keep_going: bool,
    /// Run the targets even if they are up to date
    #[arg(long)]
    force: bool,
    /// Fail where an artifact differs from pipeline.lock
    #[arg(long)]
    locked: bool,
    /// Ask the hub again what branches and tags are, and move the lock there
    #[arg(long, conflicts_with_all = ["locked", "dry_run"])]
    update: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// Take from the remote, send nothing
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// What weights are computed with
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
}

impl BuildArgs {
    fn ask(&self) -> Ask {
        match (self.update, self.locked) {
            (true, _) => Ask::All,
            (_, true) => Ask::None,
            _ => Ask::New,
        }
    }
}

pub(crate) fn run(args: &BuildArgs, place: &Place) -> anyhow::Result<Outcome> {
    let question = question(args, place);
    if let Some(question) = &question
        && let Some(count) = place.recall(question)?
    {
        print(&status::nothing_to_do(count))?;
        return Ok(Outcome::Success);
    }
    let mut project = Project::open(place)?;
    let targets = project.targets(&args.targets)?;
    let ids = project.graph.closure(&targets);
    if !args.dry_run {
        resolve(&mut project, &ids, args.ask())?;
    }
    let mut asked = Project::asked(&args.targets, &targets);
    asked.forced = if args.force { targets.into_iter().collect() } else { HashSet::new() };
    let lock = project.lockfile();
    project.connect(&args.remote, &lock)?;
    let mut planner = project.planner(args.backend.into(), asked);
    let decisions = planner.plan(&ids)?;
    let asked = planner.asked;
    if decisions.iter().any(Decision::is_stale) {
        preflight(&project, &decisions)?;
    }
    if args.dry_run {
        project.save_memo();
        warn(&project);
        return status::show(&project, &decisions, args.json, args.exit_code);
    }
    let is_done = |decision: &Decision| {
        matches!(decision.verdict, Verdict::Fresh | Verdict::Recorded) && decision.failure.is_none()
    };
    let all_fresh = decisions.iter().all(is_done);
    let summary = if all_fresh && !args.locked {
        nothing_to_do(&mut project, &decisions)?
    } else {
        make(args, &mut project, &ids, asked, &lock)?
    };
    let relocked = if args.locked { Ok(false) } else { write_lock(&mut project, lock, &summary) };
    project.save_memo();
    if let Some(question) = question
        && all_fresh
        && relocked.as_ref().is_ok_and(|written| !written)
    {
        project.witness(question, ids.len());
    }
    project.store.finish()?;
    relocked?;
    finish(args, &project, &ids, &summary)
}

/// Returns what is asked, as far as the answer "nothing to do" depends on it; nothing where more is to be said.
fn question(args: &BuildArgs, place: &Place) -> Option<Digest> {
    let plain = !(args.dry_run || args.force || args.locked || args.update || args.json);
    plain.then(|| {
        let (backend, cache) = (BackendKind::from(args.backend).id(), HubCache::from_env());
        Digest::of_json(&(place.path().file_name(), &args.targets, backend, cache.root()))
    })
}

/// The plan is the result where all is in place: no thread is started and nothing is made.
fn nothing_to_do(project: &mut Project, decisions: &[Decision]) -> anyhow::Result<Summary> {
    project.store.sweep()?;
    let mut summary = Summary::default();
    for decision in decisions {
        if let (Some(key), Some(artifact)) = (decision.key, &decision.artifact) {
            project.memo.remember_node(&project.graph.node(decision.id).name, key, artifact, None);
            summary.done.insert(decision.id, (key, artifact.reproducible_digest()));
        }
    }
    Ok(summary)
}

fn make(
    args: &BuildArgs,
    project: &mut Project,
    ids: &[NodeId],
    asked: Asked,
    lock: &Lockfile,
) -> anyhow::Result<Summary> {
    project.store.prepare()?;
    let cancel = watch_for_interrupt();
    let options = Options {
        jobs: args.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from),
        keep_going: args.keep_going,
        locked: args.locked.then_some(lock),
        fetch_only: false,
        cancel,
    };
    let mut progress = progress(args.json);
    let (planner, share) = project.planner_and_share(args.backend.into(), asked);
    let (store, share) = (planner.store, share.filter(|_| !args.read_only));
    let outcome = publishing(share, store, cancel, progress.as_mut(), |progress| {
        schedule::run(planner, ids, &options, progress)
    });
    drop(progress);
    match &outcome {
        Ok(summary) => {
            attest(project, summary)?;
            project.store.count(&counters(project, summary));
        }
        Err(_) => project.store.finish()?,
    }
    outcome
}

fn counters(project: &Project, summary: &Summary) -> Counters {
    let count = |nodes: usize| u64::try_from(nodes).unwrap_or(u64::MAX);
    Counters {
        local_hits: count(summary.linked),
        remote_hits: count(summary.fetched),
        misses: count(summary.ran.len()),
        ..project.moved()
    }
}

/// Checks what can be checked before anything runs.
fn preflight(project: &Project, decisions: &[Decision]) -> anyhow::Result<()> {
    for decision in decisions.iter().filter(|decision| decision.is_stale()) {
        let node = project.graph.node(decision.id);
        if is_remote(project, decision.id) {
            continue;
        }
        let source = project.sources.path(&project.graph, decision.id);
        let bases = bases(project, decision.id);
        stage::preflight(&node.stage, source.as_deref(), &bases).map_err(|error| {
            let message = format!("node `{}`: {error:#}", node.name);
            project.problem(&Problem::new(node.at, message))
        })?;
    }
    Ok(())
}

/// Returns the model folders outside the graph that a node descends from, as far as they are on this machine.
fn bases(project: &Project, id: NodeId) -> Vec<PathBuf> {
    let above = project.graph.closure(&[id]);
    let bases = above.into_iter().filter(|id| project.graph.node(*id).stage == stage::Stage::Base);
    let bases = bases.filter_map(|id| Some((id, project.sources.path(&project.graph, id)?)));
    bases.filter(|(id, path)| !is_remote(project, *id) || path.exists()).map(|(_, path)| path).collect()
}

/// Writes the lock if it changed, and returns whether it did.
fn write_lock(project: &mut Project, mut lock: Lockfile, summary: &Summary) -> anyhow::Result<bool> {
    let before = lock.clone();
    for (id, (key, artifact)) in &summary.done {
        let pin = project.sources.pin(&project.graph, *id);
        lock.set(&project.graph.node(*id).name, Locked { key: *key, artifact: *artifact, pin });
    }
    let names: HashSet<_> =
        project.graph.order().iter().map(|id| project.graph.node(*id).name.as_str()).collect();
    lock.retain(|name| names.contains(name));
    if lock == before && !before.has_strays() {
        return Ok(false);
    }
    project.store.prepare()?;
    project.save_lockfile(&lock)?;
    Ok(true)
}

fn finish(args: &BuildArgs, project: &Project, ids: &[NodeId], summary: &Summary) -> anyhow::Result<Outcome> {
    let names =
        |ids: &[NodeId]| ids.iter().map(|id| project.graph.node(*id).name.clone()).collect::<Vec<_>>();
    let fresh = summary.done.keys().filter(|id| !summary.ran.contains(id)).count();
    let fresh = fresh.saturating_sub(summary.linked + summary.fetched);
    if args.json {
        print_json(&json!({
            "event": "finished", "ran": names(&summary.ran), "linked": summary.linked,
            "fetched": summary.fetched, "fresh": fresh,
            "failed": names(&summary.failed), "skipped": summary.skipped, "interrupted": summary.interrupted,
        }))?;
    } else {
        print(&sentence(ids.len(), fresh, summary))?;
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Outcome::Interrupted,
        Summary { failed, .. } if !failed.is_empty() => Outcome::Failure,
        _ => Outcome::Success,
    })
}

/// The two sentences that matter most: nothing to do, and what was done.
fn sentence(count: usize, fresh: usize, summary: &Summary) -> String {
    if fresh == count {
        return status::nothing_to_do(count);
    }
    let started = summary.done.len() + summary.failed.len() + summary.skipped;
    let mut parts = vec![format!("ran {}", status::nodes(summary.ran.len()))];
    let mut part = |count: usize, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    part(summary.linked, "from the cache");
    part(summary.fetched, "from the remote");
    part(fresh, "up to date");
    part(summary.failed.len(), "failed");
    part(summary.skipped, "skipped");
    if !summary.interrupted {
        part(count.saturating_sub(started), "not started (-k goes on)");
    }
    if summary.interrupted {
        parts.push("interrupted; nothing half-made was kept".to_owned());
    }
    parts.join(", ") + "\n"
}
