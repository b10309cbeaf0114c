//! `pipeline report`: prints the results of benchmarks as they were last built, without building.
//! Knows nothing of how they were measured.

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::outcome::Outcome;
use crate::results::{Outcomes, benchmarks, outcomes};
use crate::terminal::{print, print_json};
use engine::project::{Project, ProjectPath};
use engine::stage::{DeviceChoice, Prompt};
use report::{Report, csv_header};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Which benchmark; all of them if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
    /// Print what each query of a benchmark becomes: the text that the models read
    #[arg(long, value_name = "NODE", conflicts_with_all = ["targets", "format"])]
    show_prompt: Option<String>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// The format in which a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The table, and what was decided
    #[default]
    Table,
    /// Markdown, with every answer
    Md,
    /// A line of JSON for each benchmark, with everything
    Json,
    /// A row for each config, with all plain figures
    Csv,
}

pub(crate) fn run(args: &ReportArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    if let Some(node) = &args.show_prompt {
        return show_prompts(&project.prompts(node, DeviceChoice::default())?, args.json);
    }
    let nodes = benchmarks(&project, &args.targets)?;
    let format = if args.json { Format::Json } else { args.format };
    for (index, node) in nodes.iter().enumerate() {
        outcomes(&project, node)?.print(node, format, index, nodes.len())?;
    }
    Ok(Outcome::Success)
}

/// Prints the prompts of a benchmark, each below the number of its query.
fn show_prompts(prompts: &[Prompt], json: bool) -> anyhow::Result<Outcome> {
    for (index, prompt) in prompts.iter().enumerate() {
        if json {
            print_json(prompt)?;
            continue;
        }
        let Prompt { query, configs, text, problem } = prompt;
        let gap = if index > 0 { "\n" } else { "" };
        let text = text.as_deref().or(problem.as_deref()).unwrap_or_default();
        print(&format!("{gap}# query {query}: {}\n{}\n", configs.join(", "), text.trim_end_matches('\n')))?;
    }
    Ok(Outcome::Success)
}

impl Outcomes {
    /// Prints the results of `node`, which is the one at `index` of `count`.
    fn print(&self, node: &str, format: Format, index: usize, count: usize) -> anyhow::Result<()> {
        let Self { results, timings, judgement } = self;
        let report = Report { results, timings, judgement };
        let gap = if index > 0 { "\n" } else { "" };
        match format {
            Format::Table if count > 1 => {
                print(&format!("{gap}{node} ({})\n{}", results.suite, report.table()))
            }
            Format::Table => print(&report.table()),
            Format::Md => print(&(gap.to_owned() + &report.markdown())),
            Format::Json => print_json(&json!({
                "node": node, "results": results, "readings": results.text_evals(), "timings": timings,
                "verdicts": judgement,
            })),
            Format::Csv => {
                let header = if index == 0 { csv_header() } else { String::new() };
                print(&(header + &report.csv_rows(node)))
            }
        }
    }
}
