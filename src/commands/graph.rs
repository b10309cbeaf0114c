//! `pipeline graph`: prints the graph as DOT, Mermaid or JSON.
//! Knows nothing of what is stale.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::outcome::Outcome;
use crate::terminal::{print, print_json};
use engine::project::{Project, ProjectPath};
use engine::stage::{Kind, Stage};
use weights::checkpoint::Towers;
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{Mixed, Quantize};

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// The language to print
    #[arg(long, value_enum, default_value_t = Format::Dot)]
    format: Format,
    /// Print JSON, the same as --format json
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Graphviz
    Dot,
    /// Mermaid, which GitHub draws in Markdown
    Mermaid,
    /// JSON
    Json,
}

pub(crate) fn run(args: &GraphArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let project = Project::open(path)?;
    match if args.json { Format::Json } else { args.format } {
        Format::Dot => print(&dot(&project))?,
        Format::Mermaid => print(&mermaid(&project))?,
        Format::Json => print_json(&to_json(&project))?,
    }
    Ok(Outcome::Success)
}

/// Describes what a node does, with its main parameters.
fn label(stage: &Stage) -> String {
    match stage {
        Stage::Quantize(quantize) => how_quantized(quantize),
        Stage::Run(run) => {
            run.program().map_or_else(|| "run".to_owned(), |program| format!("run, {program}"))
        }
        Stage::Fuse(fuse) => fuse.dtype.map_or_else(|| "fuse".to_owned(), |dtype| format!("fuse, {dtype}")),
        _ => stage.word().to_owned(),
    }
}

/// Returns each edge once, as (from, to), in the order of the graph. A model that a node is only measured
/// against is not an edge, because it is already among what the node's model is made from.
fn edges(project: &Project) -> Vec<(&str, &str)> {
    let mut edges = Vec::new();
    for &id in project.graph().order() {
        for (_, input) in project.graph().written_inputs(id) {
            let edge = (project.graph().node(input).name.as_str(), project.graph().node(id).name.as_str());
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
    }
    edges
}

fn how_quantized(quantize: &Quantize) -> String {
    let Quantize { auto, bits, group_size, mode, overrides, recipe, rounding, towers } = quantize;
    let kept = if *rounding == Rounding::Keep { ", rounding keep" } else { "" };
    let towers = if *towers == Towers::Include { ", with towers" } else { "" };
    let own = format!("{kept}{towers}{}", if overrides.is_empty() { "" } else { ", overrides" });
    let recipe = Mixed::WORDS.iter().find(|(_, known)| Some(*known) == *recipe);
    if let Some(auto) = auto {
        return format!("auto, {} bits/weight, group {group_size}{own}", auto.target_bits);
    }
    match (recipe, mode) {
        (Some((word, _)), _) => format!("{word}, group {group_size}{own}"),
        (None, Mode::Affine) => format!("{bits} bits, group {group_size}{own}"),
        (None, mode) => format!("{}{own}", mode.word()),
    }
}

fn dot(project: &Project) -> String {
    let mut out = "digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n".to_owned();
    for id in project.graph().order() {
        let node = project.graph().node(*id);
        let _ = writeln!(out, "  \"{}\" [label=\"{}\\n{}\"];", node.name, node.name, label(&node.stage));
    }
    for (from, to) in edges(project) {
        let _ = writeln!(out, "  \"{from}\" -> \"{to}\";");
    }
    out + "}\n"
}

fn mermaid(project: &Project) -> String {
    let mut out = "graph LR\n".to_owned();
    // Mermaid's ids cannot be arbitrary text, so nodes are numbered and their names are labels.
    let number = |name: &str| project.graph().find(name).map_or(0, |id| id.index());
    for id in project.graph().order() {
        let node = project.graph().node(*id);
        let (open, close) = if node.stage.makes() == Kind::Report { ("([", "])") } else { ("[", "]") };
        let _ = writeln!(
            out,
            "  n{}{open}\"{}<br/><small>{}</small>\"{close}",
            id.index(),
            node.name,
            label(&node.stage)
        );
    }
    for (from, to) in edges(project) {
        let _ = writeln!(out, "  n{} --> n{}", number(from), number(to));
    }
    out
}

fn to_json(project: &Project) -> serde_json::Value {
    let nodes = project.graph().order().iter().map(|&id| {
        let node = project.graph().node(id);
        let inputs: serde_json::Map<_, _> = project
            .graph()
            .written_inputs(id)
            .map(|(role, input)| (role.to_owned(), project.graph().node(input).name.clone().into()))
            .collect();
        json!({
            "name": node.name, "stage": node.stage.word(), "inputs": inputs,
            "source": node.source.as_ref().map(ToString::to_string),
        })
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}
