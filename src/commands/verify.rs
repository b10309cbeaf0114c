//! `pipeline verify`: makes nodes again on the side and compares them with what is recorded, hashes all
//! stored content again, or checks signatures.
//! Knows nothing of how a node is made, nor of what the content is.

use clap::Args;
use serde_json::json;

use crate::commands::status::nodes;
use crate::outcome::Outcome;
use crate::shared_args::ComputeArgs;
use crate::terminal::{print, print_json, say, watch_for_interrupt};
use engine::event::{Event, Observer};
use engine::project::{Attestation, DamagedObject, Project, ProjectPath, VerifyOptions};
use engine::sign::PublicKey;
use engine::store::{LocalStore, Repair};
use engine::verify::Comparison;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What to make again; all nodes if none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Make nothing; hash everything that is stored again
    #[arg(long, conflicts_with_all = ["nodes", "backend", "device"])]
    store: bool,
    /// With --store, put right what is damaged: from artifacts/, or by removing it so that it is made again
    #[arg(long, requires = "store")]
    repair: bool,
    /// Make nothing; check who signed what is recorded of the nodes
    #[arg(long, conflicts_with = "store")]
    attestation: bool,
    /// Make nodes with `deterministic: false` again too, and say how they differ
    #[arg(long, conflicts_with_all = ["store", "attestation"])]
    rerun: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: &VerifyArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let mut project = Project::open(path)?;
    if args.store {
        return verify_store(args, &mut project);
    }
    let targets = args.nodes.clone();
    let (backend, device) = (args.compute.backend(), args.compute.device());
    let placing = args.compute.placing();
    if args.attestation {
        let options = VerifyOptions { targets, backend, device, placing, ..VerifyOptions::default() };
        let attestations = project.verify_attestations(&options)?;
        return show_attestations(args, &project, &attestations);
    }
    let options =
        VerifyOptions { targets, backend, device, placing, rerun: args.rerun, cancel: watch_for_interrupt() };
    let mut shown = Shown { json: args.json, problem: None };
    let verified = project.verify(&options, &mut shown);
    if let Some(problem) = shown.problem {
        return Err(problem);
    }
    let comparisons = match verified {
        Err(error) if error.is_interrupted() => return Ok(Outcome::Interrupted),
        verified => verified?,
    };
    let is_fine =
        |comparison: &Comparison| matches!(comparison, Comparison::Same | Comparison::NotRepeatable);
    let failed = comparisons.iter().filter(|(_, comparison)| !is_fine(comparison)).count();
    let is_kept = |comparison: &Comparison| *comparison == Comparison::NotRepeatable;
    let kept = comparisons.iter().filter(|(_, comparison)| is_kept(comparison)).count();
    let what = match kept {
        0 => "verified".to_owned(),
        kept => format!("verified, {kept} of them only hashed"),
    };
    total(args, comparisons.len(), failed, &what)
}

/// Prints how many nodes were checked, and how many failed.
fn total(args: &VerifyArgs, count: usize, failed: usize, what: &str) -> anyhow::Result<Outcome> {
    if args.json {
        print_json(&json!({"nodes": count, "failed": failed}))?;
    } else {
        print(&format!("{} {what}, {failed} failed\n", nodes(count)))?;
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failure })
}

/// Shows each node as it is verified.
struct Shown {
    json: bool,
    /// The error if standard output could not be written to.
    problem: Option<anyhow::Error>,
}

impl Observer for Shown {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Verifying { node } => {
                say(&format!("{node}: verifying"));
            }
            Event::Verified { node, comparison } if self.problem.is_none() => {
                self.problem = show(self.json, node, comparison).err();
            }
            _ => {}
        }
    }
}

fn show(is_json: bool, node: &str, comparison: &Comparison) -> anyhow::Result<()> {
    if is_json {
        return print_json(&match comparison {
            Comparison::Same => json!({"node": node, "finding": "same"}),
            Comparison::NotBuilt => json!({"node": node, "finding": "not_built"}),
            Comparison::NotRepeatable => json!({"node": node, "finding": "not_repeatable"}),
            Comparison::Failed(error) => json!({"node": node, "finding": "failed", "error": error}),
            Comparison::Differs(files) => json!({"node": node, "finding": "differs", "differences": files}),
        });
    }
    match comparison {
        Comparison::Same => Ok(()),
        Comparison::NotBuilt => print(&format!("{node}: not built; `pipeline build {node}` makes it\n")),
        Comparison::NotRepeatable => print(&format!(
            "{node}: cannot be made again, because it is not deterministic; its files are as recorded (--rerun compares)\n"
        )),
        Comparison::Failed(error) => print(&format!("{node}: cannot be made again: {error}\n")),
        Comparison::Differs(files) => {
            files.iter().try_for_each(|file| print(&format!("{node}: {} {}\n", file.file, file.problem)))
        }
    }
}

fn verify_store(args: &VerifyArgs, project: &mut Project) -> anyhow::Result<Outcome> {
    let root = project.store().root().to_owned();
    let verified = project.verify_store(&mut |DamagedObject { object, problem }| {
        let path = LocalStore::new(root.clone()).object_path(object);
        if args.json {
            print_json(&json!({"object": object, "path": path, "problem": problem}))
        } else {
            print(&format!("{}: {problem}\n", path.display()))
        }
    })?;
    let (objects, damaged) = (verified.objects, verified.damaged.len());
    let repairs = if args.repair { project.repair_store()? } else { Vec::new() };
    let copied = repairs.iter().filter(|(_, repair)| !matches!(repair, Repair::Removed)).count();
    let removed = repairs.len() - copied;
    if args.json {
        print_json(&json!({"objects": objects, "damaged": damaged, "repaired": copied, "removed": removed}))?;
    } else {
        let advice = match (damaged, args.repair) {
            (0, _) => String::new(),
            (_, true) => format!(
                "; {copied} put right from artifacts/, {removed} removed: `pipeline build` makes again what needs them"
            ),
            (_, false) => "; `pipeline build` puts them right, and so does --repair".to_owned(),
        };
        print(&format!("{objects} objects, {damaged} damaged{advice}\n"))?;
    }
    Ok(if damaged == 0 || args.repair { Outcome::Success } else { Outcome::Failure })
}

fn show_attestations(
    args: &VerifyArgs,
    project: &Project,
    attestations: &[Attestation],
) -> anyhow::Result<Outcome> {
    let mut failed = 0;
    for Attestation { node, signer } in attestations {
        let node = &project.graph().node(*node).name;
        failed += usize::from(signer.is_err());
        match (args.json, signer) {
            (true, Ok(signer)) => print_json(&json!({"node": node, "signer": signer}))?,
            (true, Err(problem)) => print_json(&json!({"node": node, "problem": problem}))?,
            (false, Ok(signer)) => print(&format!("{node}: {} vouches for it\n", name(project, signer)))?,
            (false, Err(problem)) => print(&format!("{node}: {problem}\n"))?,
        }
    }
    total(args, attestations.len(), failed, "checked")
}

/// Returns the name of a key in the pipeline file. If it has none, says whether it is the user's own key.
fn name(project: &Project, key: &PublicKey) -> String {
    let trusted = project.cache().trusted_keys.iter().find(|trusted| trusted.key == *key);
    match trusted {
        Some(trusted) => format!("{} ({})", trusted.name, key.short()),
        None if Project::own_key() == Some(*key) => format!("your key ({})", key.short()),
        None => key.short(),
    }
}
