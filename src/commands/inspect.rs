//! `pipeline inspect`: shows what the model of a node is, and what quantizing left of its fine-tuning,
//! without building.
//! Knows nothing of how that was measured.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::outcome::Outcome;
use crate::terminal::{print, print_json};
use engine::graph::NodeId;
use engine::project::{LastRun, Project, ProjectPath};
use engine::stage::{BASE_ROLE, Kind, Stage};
use report::paragraph;
use text::units::bytes;
use weights::arch::LayerName;
use weights::checkpoint::{Checkpoint, ModelSummary};
use weights::survival::{Figures, Survival, read_survival};

/// How many layers are shown unless all are asked for.
const SHOWN: usize = 10;

/// The most characters of a layer's name that are shown, so that a line fits a terminal of 80 columns.
const NAME_WIDTH: usize = 35;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The node
    #[arg(value_name = "NODE")]
    target: String,
    /// Show all layers, not the ten worst
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InspectArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let project = Project::open(path)?;
    let id =
        project.graph().find(&args.target).map_err(|unknown| engine::Error::Usage(unknown.to_string()))?;
    let node = project.graph().node(id);
    let (name, made) = (&node.name, node.stage.makes());
    let is_command = matches!(node.stage, Stage::Run(_));
    if made != Kind::Model && !is_command {
        let what = "inspect shows models, and what commands made";
        return Err(engine::Error::Usage(format!("`{name}` is {made}; {what}")).into());
    }
    if made != Kind::Model {
        let run = project.last_run(name)?;
        let shown =
            if args.json { print_json(&json!({"node": name, "run": run})) } else { print(&how(name, &run)) };
        return shown.map(|()| Outcome::Success);
    }
    let folder = project.root().join("artifacts").join(name);
    anyhow::ensure!(folder.exists(), "`{name}` is not there yet; `pipeline build {name}` makes it");
    let (summary, survival) = look(&folder).with_context(|| format!("in `{name}`"))?;
    let run = is_command.then(|| project.last_run(name)).transpose()?;
    if args.json {
        print_json(&json!({"node": name, "model": summary, "survival": survival, "run": run}))?;
    } else {
        let shown = if args.all { usize::MAX } else { SHOWN };
        let about = match &survival {
            Some(survival) => describe(survival, shown),
            None => format!("survival: none, {}\n", why_none(&project, id)),
        };
        let command = run.map_or_else(String::new, |run| how(name, &run));
        print(&format!("{command}{name}: {}{about}", what(&summary)))?;
    }
    Ok(Outcome::Success)
}

/// Describes how a command made a node.
fn how(name: &str, run: &LastRun) -> String {
    let LastRun { command, version, seconds, tool, files, log, .. } = run;
    let mut text = format!("{name}: made in {seconds:.2} s by {}\n", command.join(" "));
    for (what, said) in [("version", version), ("tool", tool)] {
        let said = said.as_deref().map(|said| said.trim_end().replace('\n', "\n  "));
        text += &said.map_or_else(String::new, |said| format!("{what}: {said}\n"));
    }
    for (file, size) in files {
        let _ = writeln!(text, "{file}  {}", bytes(*size));
    }
    text + &log.as_ref().map_or_else(String::new, |log| format!("its output: {}\n", log.display()))
}

fn look(folder: &Path) -> anyhow::Result<(ModelSummary, Option<Survival>)> {
    Ok((Checkpoint::open(folder)?.summary(), read_survival(folder)?))
}

/// Describes the model.
fn what(model: &ModelSummary) -> String {
    let kinds: Vec<_> = model.tensors.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
    let towers: Vec<_> =
        model.towers.iter().map(|(part, size)| format!("`{part}` {}", bytes(*size))).collect();
    let towers = if towers.is_empty() {
        String::new()
    } else {
        format!("not of the language model: {}\n", towers.join(", "))
    };
    format!(
        "{}, {} weights, {:.2} bits each, {}\ntensors: {}\n{towers}{}",
        model.architecture,
        millions(model.parameters),
        model.bits_per_weight,
        bytes(model.bytes),
        kinds.join(", "),
        bits_by_layer(&model.bits)
    )
}

/// Lists which layers have how many bits, a line for each kind of module. Returns nothing if all have the same.
fn bits_by_layer(bits: &BTreeMap<String, usize>) -> String {
    let mut kinds: BTreeMap<&str, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    let mut lines = Vec::new();
    for (module, bits) in bits {
        match LayerName::of(module) {
            Some(layer) => kinds.entry(layer.rest).or_default().entry(*bits).or_default().push(layer.number),
            None => lines.push(format!("{}: {bits} bits", shorten(module))),
        }
    }
    for (kind, by_bits) in kinds {
        let count: usize = by_bits.values().map(Vec::len).sum();
        let part = |(bits, layers): (usize, Vec<usize>)| match layers.len() == count {
            true => format!("{bits} bits"),
            false => format!("{bits} bits in {}", ranges(layers)),
        };
        let parts: Vec<_> = by_bits.into_iter().map(part).collect();
        lines.push(format!("{}: {}", shorten(kind), parts.join("; ")));
    }
    lines.iter().map(|line| paragraph("  ", line, "    ")).collect()
}

/// Formats numbers as ranges: `0-3, 7`.
fn ranges(mut numbers: Vec<usize>) -> String {
    numbers.sort_unstable();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let show = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// Formats a number of weights in thousands, millions or billions.
fn millions(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count < 1e6 => format!("{:.1} thousand", count / 1e3),
        _ if count < 1e9 => format!("{:.1} million", count / 1e6),
        _ => format!("{:.2} billion", count / 1e9),
    }
}

fn why_none(project: &Project, id: NodeId) -> &'static str {
    let measured = project.graph().inputs(id).any(|(role, _)| role == BASE_ROLE);
    if measured {
        "because the fine-tuning changed none of its weights"
    } else {
        "because it is no quantized descendant of a fuse node"
    }
}

fn describe(survival: &Survival, shown: usize) -> String {
    let tensors = survival.worst_first();
    let mut said = format!("survival: {:.2} of the fine-tuning is left", survival.overall.survival);
    said += &survival.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
    let mut text = paragraph("", &said, "");
    if let Some(explanation) = survival.explanation() {
        text += &paragraph("", &format!("{explanation}."), "");
    }
    let name = |name: &str| shorten(name.strip_suffix(".weight").unwrap_or(name));
    let rows = tensors.iter().take(shown).map(|(tensor, figures)| (name(tensor), **figures));
    let rows: Vec<_> = rows.chain([("all of them".to_owned(), survival.overall)]).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let heading = match tensors.len() {
        count if count > shown => format!("worst {shown} of {count}"),
        _ => "layer".to_owned(),
    };
    let _ = writeln!(text, "\n{heading:width$} bits survival cosine  noise reverted   step");
    for (name, figures) in &rows {
        let Figures { survival, cosine, noise_to_signal, reverted, delta_per_step, .. } = figures;
        let step = delta_per_step.map_or_else(|| "-".to_owned(), |step| format!("{step:.3}"));
        let bits = figures.bits.map_or_else(|| "-".to_owned(), |bits| bits.to_string());
        let reverted = format!("{:.1}%", 100.0 * reverted);
        let _ = writeln!(
            text,
            "{name:width$} {bits:>4} {survival:>8.2} {cosine:>6.2} {noise_to_signal:>6.2} {reverted:>8} {step:>6}"
        );
    }
    text + "\ncosine: the direction of what arrived against that of the update; noise: the\nrounding error against the update; \
            step: the update against a step\n"
}

/// Cuts off the beginning of a name that is too long.
fn shorten(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_WIDTH {
        return name.to_owned();
    }
    "…".to_owned() + &name.chars().skip(length - NAME_WIDTH + 1).collect::<String>()
}
