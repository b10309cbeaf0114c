//! `pipeline report`: the table of the benchmarks as they were last built, without building.
//! Knows nothing of how they were measured.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::project::{Place, Project};
use super::{Outcome, print, print_json};
use crate::failure::AtPath;
use crate::report::{AllTimings, Judgement, Report, Results};
use crate::stage::Kind;

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Which benchmark; all of them if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs, place: &Place) -> anyhow::Result<Outcome> {
    let project = Project::open(place)?;
    let targets = project.targets(&args.targets)?;
    let nodes = targets.iter().map(|id| project.graph.node(*id));
    let benchmarks: Vec<_> = nodes.filter(|node| node.stage.makes() == Kind::Report).collect();
    anyhow::ensure!(!benchmarks.is_empty(), "there is no benchmark to report");
    for (index, node) in benchmarks.iter().enumerate() {
        let folder = project.root.join("artifacts").join(&node.name);
        let (results, timings, judgement) = read(&folder).with_context(|| {
            format!("there is no result of `{0}` yet; `pipeline build {0}` makes it", node.name)
        })?;
        if args.json {
            print_json(
                &json!({"node": node.name, "results": results, "timings": timings, "verdicts": judgement}),
            )?;
        } else {
            let gap = if index > 0 { "\n" } else { "" };
            let heading = if benchmarks.len() > 1 {
                format!("{gap}{} ({})\n", node.name, results.suite)
            } else {
                String::new()
            };
            let report = Report { results: &results, timings: &timings, judgement: &judgement };
            print(&(heading + &report.table()))?;
        }
    }
    Ok(Outcome::Success)
}

fn read(folder: &Path) -> anyhow::Result<(Results, AllTimings, Judgement)> {
    Ok((
        read_json(&folder.join("results.json"))?,
        read_json(&folder.join("timings.json"))?,
        read_json(&folder.join("verdicts.json"))?,
    ))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).at("read", path)?;
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
}
