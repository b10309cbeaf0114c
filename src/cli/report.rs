//! `pipeline report`: the table of the benchmarks as they were last built, without building.
//! Knows nothing of how they were measured.

use clap::Args;
use serde_json::json;

use super::project::{Place, Project};
use super::results::{Outcomes, benchmarks, outcomes};
use super::{Outcome, print, print_json};
use crate::report::Report;

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
    let benchmarks = benchmarks(&project, &args.targets)?;
    for (index, node) in benchmarks.iter().enumerate() {
        let Outcomes { results, timings, judgement } = outcomes(&project, node)?;
        if args.json {
            print_json(
                &json!({"node": node, "results": results, "timings": timings, "verdicts": judgement}),
            )?;
        } else {
            let gap = if index > 0 { "\n" } else { "" };
            let heading = if benchmarks.len() > 1 {
                format!("{gap}{node} ({})\n", results.suite)
            } else {
                String::new()
            };
            let report = Report { results: &results, timings: &timings, judgement: &judgement };
            print(&(heading + &report.table()))?;
        }
    }
    Ok(Outcome::Success)
}
