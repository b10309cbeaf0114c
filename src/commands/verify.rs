//! `pipeline verify`: nodes made again aside and compared with what is recorded, or every stored content hashed again.
//! Knows nothing of how a node is made, nor of what the contents are.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use clap::Args;
use serde_json::json;

use crate::cli::{BackendArg, Outcome, print, print_json, watch_for_interrupt};
use crate::commands::attest;
use crate::commands::status::nodes;
use crate::project::{Place, Project};
use artifact::{Digest, Interrupted};
use engine::graph::NodeId;
use engine::plan::Asked;
use engine::verify::{Finding, Rederiver};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What to make again; all nodes if none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Make nothing; hash everything that is stored again
    #[arg(long, conflicts_with_all = ["nodes", "backend"])]
    store: bool,
    /// Make nothing; check who signed what is recorded of the nodes
    #[arg(long, conflicts_with = "store")]
    attestation: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// What weights are computed with
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
}

pub(crate) fn run(args: &VerifyArgs, place: &Place) -> anyhow::Result<Outcome> {
    let mut project = Project::open(place)?;
    if args.store {
        return verify_store(args, &project);
    }
    let named = project.targets(&args.nodes)?;
    let ids: Vec<_> = project.graph.order().iter().copied().filter(|id| named.contains(id)).collect();
    if args.attestation {
        return attest::verify(&mut project, &ids, args.backend, args.json);
    }
    project.store.prepare()?;
    let outcome = verify_nodes(args, &mut project, &ids);
    project.store.finish()?;
    match outcome {
        Err(error) if error.chain().any(|cause| cause.is::<Interrupted>()) => Ok(Outcome::Interrupted),
        outcome => outcome,
    }
}

/// Makes these nodes again. The memory is read but not written: nothing of a verification is to be trusted later.
fn verify_nodes(args: &VerifyArgs, project: &mut Project, ids: &[NodeId]) -> anyhow::Result<Outcome> {
    let cancel = watch_for_interrupt();
    let tick = |_, _| if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) };
    let names: Vec<_> = ids.iter().map(|id| project.graph.node(*id).name.clone()).collect();
    let mut rederiver = Rederiver::new(project.planner(args.backend.into(), Asked::default()), ids)?;
    let mut failed = 0;
    for (id, name) in ids.iter().zip(&names) {
        // A terminal that cannot be written to must not fail the verification.
        let _ = writeln!(io::stderr(), "{name}: verifying");
        let finding = rederiver.rederive(*id, &tick)?;
        failed += usize::from(finding != Finding::Same);
        show(args, name, &finding)?;
    }
    if args.json {
        print_json(&json!({"nodes": ids.len(), "failed": failed}))?;
    } else {
        print(&format!("{} verified, {failed} failed\n", nodes(ids.len())))?;
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failure })
}

fn show(args: &VerifyArgs, node: &str, finding: &Finding) -> anyhow::Result<()> {
    if args.json {
        return print_json(&match finding {
            Finding::Same => json!({"node": node, "finding": "same"}),
            Finding::NotBuilt => json!({"node": node, "finding": "not_built"}),
            Finding::Failed(error) => json!({"node": node, "finding": "failed", "error": error}),
            Finding::Differs(files) => json!({"node": node, "finding": "differs", "differences": files}),
        });
    }
    match finding {
        Finding::Same => Ok(()),
        Finding::NotBuilt => print(&format!("{node}: not built; `pipeline build {node}` makes it\n")),
        Finding::Failed(error) => print(&format!("{node}: cannot be made again: {error}\n")),
        Finding::Differs(files) => {
            files.iter().try_for_each(|file| print(&format!("{node}: {} {}\n", file.file, file.problem)))
        }
    }
}

/// Hashes every stored content, trusting no memory, and compares it with its name.
fn verify_store(args: &VerifyArgs, project: &Project) -> anyhow::Result<Outcome> {
    let objects = project.store.objects()?;
    let mut damaged = 0;
    for object in &objects {
        let path = project.store.object_path(object);
        let problem = match Digest::of_file(&path) {
            Ok((digest, _)) if digest == *object => continue,
            Ok((digest, _)) => format!("its content is now {digest}"),
            Err(error) => error.to_string(),
        };
        damaged += 1;
        if args.json {
            print_json(&json!({"object": object, "path": path, "problem": problem}))?;
        } else {
            print(&format!("{}: {problem}\n", path.display()))?;
        }
    }
    if args.json {
        print_json(&json!({"objects": objects.len(), "damaged": damaged}))?;
    } else {
        let advice =
            if damaged == 0 { "" } else { "; `pipeline build` makes the artifacts that need them again" };
        print(&format!("{} objects, {damaged} damaged{advice}\n", objects.len()))?;
    }
    Ok(if damaged == 0 { Outcome::Success } else { Outcome::Failure })
}
