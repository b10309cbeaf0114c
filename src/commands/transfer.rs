//! `pipeline pull` and `pipeline push`: artifacts brought from the remote or sent there, without building.
//! Knows nothing of how they travel.

use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde_json::json;

use crate::cli::{BackendArg, Outcome, print, print_json, watch_for_interrupt};
use crate::commands::status;
use crate::progress::progress;
use crate::project::{Place, Project};
use crate::publish::send;
use crate::remote::{RemoteArgs, connected, warn};
use artifact::Interrupted;
use engine::graph::NodeId;
use engine::plan::{Asked, Decision, Verdict};
use engine::schedule::{self, Event, Options, Summary};
use engine::share::{Share, Unsent};
use engine::stage::Unit;
use engine::store::Counters;

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Which nodes; all if none is named
    #[arg(value_name = "NODE")]
    targets: Vec<String>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// What weights are computed with
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
}

pub(crate) fn pull(args: &TransferArgs, place: &Place) -> anyhow::Result<Outcome> {
    let mut project = connected(place, &args.remote)?;
    let targets = project.targets(&args.targets)?;
    let ids = project.graph.closure(&targets);
    project.store.prepare()?;
    let cancel = watch_for_interrupt();
    let options = Options { jobs: 1, keep_going: true, locked: None, fetch_only: true, cancel };
    let asked = Project::asked(&args.targets, &targets);
    let mut progress = progress(args.json);
    let summary =
        schedule::run(project.planner(args.backend.into(), asked), &ids, &options, progress.as_mut());
    drop(progress);
    project.save_memo();
    if let Ok(Summary { fetched, .. }) = &summary {
        let remote_hits = u64::try_from(*fetched).unwrap_or(u64::MAX);
        project.store.count(&Counters { remote_hits, ..project.moved() });
    }
    project.store.finish()?;
    report_pull(args, &project, &summary?)
}

fn report_pull(args: &TransferArgs, project: &Project, summary: &Summary) -> anyhow::Result<Outcome> {
    let Summary { fetched, linked, failed, interrupted, .. } = summary;
    let traffic = project.share.as_ref().map(Share::traffic).unwrap_or_default();
    if args.json {
        print_json(&json!({
            "event": "finished", "fetched": fetched, "linked": linked, "failed": failed.len(),
            "interrupted": interrupted, "traffic": traffic,
        }))?;
    } else {
        let missing = if failed.is_empty() { String::new() } else { format!(", {} not there", failed.len()) };
        print(&format!("fetched {}{missing}\n", status::nodes(*fetched)))?;
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Outcome::Interrupted,
        Summary { failed, .. } if !failed.is_empty() => Outcome::Failure,
        _ => Outcome::Success,
    })
}

pub(crate) fn push(args: &TransferArgs, place: &Place) -> anyhow::Result<Outcome> {
    let mut project = connected(place, &args.remote)?;
    let targets = project.targets(&args.targets)?;
    let ids = project.graph.closure(&targets);
    // What is asked is what is here, not what the team has.
    let share = project.share.take();
    let decisions = project.planner(args.backend.into(), Asked::default()).plan(&ids)?;
    project.share = share;
    project.save_memo();
    project.store.prepare()?;
    let cancel = watch_for_interrupt();
    let mut progress = progress(args.json);
    let named = if args.targets.is_empty() { &[] } else { targets.as_slice() };
    let sent = push_all(&project, &decisions, named, cancel, progress.as_mut());
    drop(progress);
    warn(&project);
    project.store.count(&project.moved());
    project.store.finish()?;
    let Pushed { sent, unbuilt } = match sent {
        Ok(pushed) => pushed,
        Err(Unsent::Interrupted(_)) => return Ok(Outcome::Interrupted),
        Err(problem) => return Err(problem.into()),
    };
    let traffic = project.share.as_ref().map(Share::traffic).unwrap_or_default();
    if args.json {
        print_json(&json!({"event": "finished", "sent": sent, "not_built": unbuilt, "traffic": traffic}))?;
    } else {
        let rest = if unbuilt == 0 { String::new() } else { format!(", {unbuilt} not built") };
        print(&format!("{} in the remote{rest}\n", status::nodes(sent)))?;
    }
    Ok(if unbuilt == 0 { Outcome::Success } else { Outcome::Failure })
}

struct Pushed {
    sent: usize,
    unbuilt: usize,
}

fn push_all(
    project: &Project,
    decisions: &[Decision],
    named: &[NodeId],
    cancel: &AtomicBool,
    progress: &mut dyn schedule::Progress,
) -> Result<Pushed, Unsent> {
    let share = project.share.as_ref().ok_or_else(|| anyhow::anyhow!("BUG: a push has a remote"))?;
    let progress = std::sync::Mutex::new(progress);
    let show = |event: &Event<'_>| {
        if let Ok(mut progress) = progress.lock() {
            progress.event(event);
        }
    };
    let mut pushed = Pushed { sent: 0, unbuilt: 0 };
    for decision in decisions {
        let node = &project.graph.node(decision.id).name;
        if decision.verdict == Verdict::Recorded && !named.contains(&decision.id) {
            // Its files went to the remote with whoever made them, or nobody wanted them any more.
            continue;
        }
        let built = matches!(decision.verdict, Verdict::Fresh | Verdict::Cached);
        let Some(key) = decision.key.filter(|_| built) else {
            pushed.unbuilt += 1;
            let message = "not here; `pipeline build` makes it".to_owned();
            show(&Event::Warning { node, message });
            continue;
        };
        show(&Event::Sending { node });
        let tick = |done, total| {
            show(&Event::Progress { node, unit: Unit::Bytes, done, total });
            if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
        };
        let before = share.traffic();
        send(share, &project.store, &key, &tick)?;
        let now = share.traffic();
        let (bytes, already_there) = (now.sent - before.sent, now.already_there - before.already_there);
        show(&Event::Sent { node, bytes, already_there });
        pushed.sent += 1;
    }
    Ok(pushed)
}
