//! `pipeline gc`: removes what is not current from the cache or the remote, and prints what was removed.
//! Knows nothing of how the collector decides what to remove.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::outcome::Outcome;
use crate::shared_args::RemoteArgs;
use crate::terminal::{print, print_json};
use engine::project::{GcOptions, Project, ProjectPath, RemoteGcOptions};
use engine::store::{GcPlan, Left, Limits, Unused};
use text::units::{age, bytes, parse_age, parse_size};

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Remove what was used longest ago until the cache takes no more than this, such as 200GB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Remove what was not used for so long, such as 30d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Collect the remote, not the cache: records that are not in pipeline.lock and older than --older-than,
    /// and what no record names. Those of other projects on the same remote count as not current
    #[arg(long = "remote", conflicts_with = "max_size")]
    on_remote: bool,
    /// In the remote, keep what was written within this time: it may be on its way into a record
    #[arg(long, value_name = "AGE", value_parser = parse_age, default_value = "1d", requires = "on_remote")]
    grace: Duration,
    /// Show what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print a JSON line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &GcArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    if args.on_remote {
        return collect_remote(args, path);
    }
    let limits = Limits { max_size: args.max_size, older_than: args.older_than };
    let plan = Project::gc(path, GcOptions { limits, dry_run: args.dry_run })?;
    if args.json {
        print_json(&to_json(args, &plan))?;
    } else {
        print(&text(args, &plan))?;
    }
    Ok(Outcome::Success)
}

fn collect_remote(args: &GcArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let plan = Project::open(path)?.gc_remote(&RemoteGcOptions {
        older_than: args.older_than,
        grace: args.grace,
        remote: RemoteArgs::default().choice(),
        dry_run: args.dry_run,
    })?;
    let (records, contents) = (plan.records.len(), plan.contents.len());
    if args.json {
        print_json(&json!({
            "dry_run": args.dry_run, "records": records, "contents": contents, "bytes": plan.bytes(),
            "left": {"records": plan.left_records, "bytes": plan.left_bytes},
        }))?;
    } else {
        let removed = if args.dry_run { "would remove" } else { "removed" };
        let (records, contents) = (count(records, "record"), count(contents, "content"));
        let left = (count(plan.left_records, "record"), bytes(plan.left_bytes));
        print(&format!(
            "{removed} {records} and {contents}, {}\nleft: {}, {}\n",
            bytes(plan.bytes()),
            left.0,
            left.1
        ))?;
    }
    Ok(Outcome::Success)
}

fn stage(record: &Unused) -> &str {
    record.action.recipe.pointer("/stage/stage").and_then(serde_json::Value::as_str).unwrap_or("?")
}

fn to_json(args: &GcArgs, plan: &GcPlan) -> serde_json::Value {
    let record = |record: &Unused| {
        let size = record.action.artifact.size();
        json!({"key": record.key, "stage": stage(record), "unused_seconds": record.age.as_secs(), "bytes": size})
    };
    let Left { records, objects, bytes, spare_records, spare_bytes } = plan.left;
    json!({
        "dry_run": args.dry_run,
        "records": plan.records.iter().map(record).collect::<Vec<_>>(),
        "folders": plan.folders.len(), "objects": plan.objects.len(), "partial_downloads": plan.partials.len(),
        "bytes": plan.bytes,
        "left": {
            "records": records, "objects": objects, "bytes": bytes,
            "spare_records": spare_records, "spare_bytes": spare_bytes,
        },
    })
}

fn text(args: &GcArgs, plan: &GcPlan) -> String {
    let mut text = String::new();
    for record in &plan.records {
        let (key, age, size) = (record.key.short(), age(record.age), record.action.artifact.size());
        let _ = writeln!(text, "{key}  {}, {}, last used {age} ago", stage(record), bytes(size));
    }
    let removed = if args.dry_run { "would remove" } else { "removed" };
    let (records, folders) = (count(plan.records.len(), "record"), count(plan.folders.len(), "folder"));
    let objects = count(plan.objects.len(), "object");
    let _ = writeln!(text, "{removed} {records}, {folders} and {objects}, {}", bytes(plan.bytes));
    if !plan.partials.is_empty() {
        let _ = writeln!(text, "among that {}", count(plan.partials.len(), "abandoned download"));
    }
    text + &left(args, plan.left)
}

fn left(args: &GcArgs, left: Left) -> String {
    let (records, objects) = (count(left.records, "record"), count(left.objects, "object"));
    let mut text = format!("left: {records}, {objects}, {}\n", bytes(left.bytes));
    if left.spare_records > 0 {
        let (records, size) = (count(left.spare_records, "record"), bytes(left.spare_bytes));
        let _ = writeln!(text, "not current: {records}, {size}; --older-than and --max-size remove such");
    }
    if args.max_size.is_some_and(|limit| left.bytes > limit) {
        text += "this is more than --max-size, but it is current or in use\n";
    }
    text
}

/// Formats a number of things.
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
