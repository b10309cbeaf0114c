//! `pipeline pull` and `pipeline push`: fetch artifacts from the remote or send them there, without building.
//! Knows nothing of how they are transferred.

use clap::Args;
use serde_json::json;

use crate::commands::status;
use crate::outcome::Outcome;
use crate::progress::observer;
use crate::shared_args::{ComputeArgs, RemoteArgs};
use crate::terminal::{print, print_json, warn, watch_for_interrupt};
use engine::project::{PlanOptions, Project, ProjectPath, PullOutcome, PushOutcome, TransferOptions};
use engine::schedule::Summary;

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
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    transfer: TransferArgs,
    /// Sign with your key also what somebody else made and nobody who is trusted signed
    #[arg(long)]
    adopt: bool,
}

impl TransferArgs {
    fn options(&self) -> TransferOptions<'static> {
        let plan = PlanOptions {
            targets: self.targets.clone(),
            backend: self.compute.backend(),
            device: self.compute.device(),
            remote: self.remote.choice(),
            placing: self.compute.placing(),
            ..PlanOptions::default()
        };
        TransferOptions { plan, adopt: false, cancel: watch_for_interrupt() }
    }
}

pub(crate) fn pull(args: &TransferArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    let mut observer = observer(args.json);
    let pulled = project.pull(&args.options(), observer.as_mut());
    drop(observer);
    let PullOutcome { summary, traffic } = pulled?;
    let Summary { fetched, linked, failed, interrupted, .. } = &summary;
    if args.json {
        print_json(&json!({
            "event": "finished", "fetched": fetched, "linked": linked, "failed": failed.len(),
            "interrupted": interrupted, "traffic": traffic,
        }))?;
    } else {
        let missing = if failed.is_empty() { String::new() } else { format!(", {} not there", failed.len()) };
        print(&format!("fetched {}{missing}\n", status::nodes(*fetched)))?;
    }
    Ok(Outcome::of(&summary))
}

pub(crate) fn push(args: &PushArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let PushArgs { transfer: args, adopt } = args;
    let mut project = Project::open(path)?;
    let mut observer = observer(args.json);
    let options = TransferOptions { adopt: *adopt, ..args.options() };
    let pushed = project.push(&options, observer.as_mut());
    drop(observer);
    let PushOutcome { sent, not_built, not_ours, traffic, notices } = match pushed {
        Err(error) if error.is_interrupted() => return Ok(Outcome::Interrupted),
        pushed => pushed?,
    };
    warn(&notices);
    if args.json {
        print_json(&json!({
            "event": "finished", "sent": sent, "not_built": not_built, "not_ours": not_ours, "traffic": traffic,
        }))?;
    } else {
        let part = |count: usize, what: &str| {
            if count == 0 { String::new() } else { format!(", {count} {what}") }
        };
        let rest = part(not_built, "not built") + &part(not_ours, "not signed");
        print(&format!("{} in the remote{rest}\n", status::nodes(sent)))?;
    }
    Ok(if not_built + not_ours == 0 { Outcome::Success } else { Outcome::Failure })
}
