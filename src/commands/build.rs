//! `pipeline build`: builds the targets, and prints one line that says what was done.
//! Knows nothing of how a build works.

use clap::Args;
use serde_json::json;

use crate::commands::{forecast, status};
use crate::outcome::Outcome;
use crate::progress::observer;
use crate::shared_args::{ComputeArgs, RemoteArgs};
use crate::terminal::{print, print_json, warn, watch_for_interrupt};
use engine::project::{
    BuildOptions, BuildOutcome, PlanOptions, Project, ProjectPath, Revisions, nodes_up_to_date,
};
use engine::schedule::Summary;
use engine::stage::Counted;

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
    /// How many stages run at once; models always run one at a time
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// After a failure, go on with what does not depend on it
    #[arg(short = 'k', long)]
    keep_going: bool,
    /// Build although it will not fit on the disk or into memory
    #[arg(long)]
    anyway: bool,
    /// Run the targets even if they are up to date
    #[arg(long)]
    force: bool,
    /// Fail where an artifact differs from pipeline.lock
    #[arg(long)]
    locked: bool,
    /// Ask the hub again what branches and tags are, and move the lock there
    #[arg(long, conflicts_with_all = ["locked", "dry_run"])]
    update: bool,
    /// Show what commands write, line by line
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// Run no command of a `run` node; take what they make from the cache or the remote
    #[arg(long)]
    no_commands: bool,
    /// End when only workers have something to do; a later build finds their jobs again
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Take from the remote, send nothing
    #[arg(long)]
    read_only: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl BuildArgs {
    fn options(&self) -> BuildOptions<'static> {
        BuildOptions {
            plan: PlanOptions {
                targets: self.targets.clone(),
                force: self.force,
                jobs: self.jobs.map(usize::from),
                preflight: true,
                backend: self.compute.backend(),
                device: self.compute.device(),
                remote: self.remote.choice(),
                placing: self.compute.placing(),
            },
            keep_going: self.keep_going,
            anyway: self.anyway,
            revisions: match (self.update, self.locked) {
                (true, _) => Revisions::Update,
                (_, true) => Revisions::Locked,
                _ => Revisions::New,
            },
            commands: !self.no_commands,
            detach: self.detach,
            upload: !self.read_only,
            verbose: self.verbose,
            ..BuildOptions::default()
        }
    }
}

pub(crate) fn run(args: &BuildArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let options = args.options();
    if !args.dry_run
        && !args.json
        && let Some(count) = nodes_up_to_date(path, &options)?
    {
        print(&status::nothing_to_do(count))?;
        return Ok(Outcome::Success);
    }
    let mut project = Project::open(path)?;
    if args.dry_run {
        let plan = project.plan(&options.plan)?;
        warn(&plan.notices);
        let shown = status::show(&project, &plan.decisions, args.json, args.exit_code)?;
        plan.forecast.iter().try_for_each(|forecast| forecast::show(forecast, args.json))?;
        return Ok(shown);
    }
    let options = BuildOptions { cancel: watch_for_interrupt(), ..options };
    let mut observer = observer(args.json);
    let built = project.build(&options, observer.as_mut());
    // The live lines must be gone before the last line is printed.
    drop(observer);
    finish(args, &project, &built?)
}

fn finish(args: &BuildArgs, project: &Project, built: &BuildOutcome) -> anyhow::Result<Outcome> {
    let summary = &built.summary;
    if args.json {
        let names = |ids: &[engine::graph::NodeId]| {
            ids.iter().map(|id| project.graph().node(*id).name.clone()).collect::<Vec<_>>()
        };
        print_json(&json!({
            "event": "finished", "ran": names(&summary.ran), "by_workers": names(&summary.by_workers),
            "left": names(&summary.left), "linked": summary.linked,
            "fetched": summary.fetched, "fresh": built.up_to_date(),
            "failed": names(&summary.failed), "skipped": summary.skipped, "interrupted": summary.interrupted,
            "counted": summary.counted,
        }))?;
    } else {
        print(&sentence(built))?;
    }
    Ok(Outcome::of(summary))
}

/// Returns the line that a build ends with: that there was nothing to do, or what was done.
fn sentence(built: &BuildOutcome) -> String {
    let (count, fresh, summary) = (built.nodes.len(), built.up_to_date(), &built.summary);
    if fresh == count {
        return status::nothing_to_do(count);
    }
    let Summary { ran, linked, fetched, failed, skipped, interrupted, in_benchmark, done, counted, .. } =
        summary;
    let started = done.len() + failed.len() + skipped + summary.left.len();
    let mut parts = vec![format!("ran {}", status::nodes(ran.len()))];
    let mut part = |count: usize, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    part(summary.by_workers.len(), "made by workers");
    part(summary.left.len(), "left to workers; `pipeline build` finds them again");
    part(*linked, "from the cache");
    part(*fetched, "from the remote");
    part(fresh, "up to date");
    part(failed.len(), "failed");
    part(*skipped, "skipped");
    if *interrupted {
        let kept = if *in_benchmark { "what was measured is kept" } else { "nothing half-made was kept" };
        parts.push(format!("interrupted; {kept}"));
    } else if summary.left.is_empty() {
        part(count.saturating_sub(started), "not started (-k goes on)");
    } else {
        part(count.saturating_sub(started), "not started");
    }
    parts.extend(measured(counted));
    parts.join(", ") + "\n"
}

/// Says what benchmarks measured, and what they knew: `measured 3 queries (52 remembered), remembered 2 texts`.
fn measured(counted: &Counted) -> Vec<String> {
    let Counted { measured_queries, remembered_queries, measured_texts, remembered_texts } = *counted;
    let kinds = [
        (measured_queries, remembered_queries, "query", "queries"),
        (measured_texts, remembered_texts, "text", "texts"),
    ];
    let (mut measured, mut remembered) = (Vec::new(), Vec::new());
    for (new, known, one, many) in kinds {
        let counted = |count: usize| format!("{count} {}", if count == 1 { one } else { many });
        match (new, known) {
            (0, 0) => {}
            (0, _) => remembered.push(counted(known)),
            (_, 0) => measured.push(counted(new)),
            _ => measured.push(format!("{} ({known} remembered)", counted(new))),
        }
    }
    let said = [("measured", measured), ("remembered", remembered)].into_iter();
    let said = said.filter(|(_, parts)| !parts.is_empty());
    said.map(|(verb, parts)| format!("{verb} {}", parts.join(" and "))).collect()
}
