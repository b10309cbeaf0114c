//! `pipeline verify --store`: every stored content hashed again, trusting no memory, and compared with its name.
//! Knows nothing of what the contents are.

use clap::Args;
use serde_json::json;

use super::project::{Place, Project};
use super::{Outcome, print, print_json};
use crate::digest::Digest;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Hash everything that is stored again
    #[arg(long, required = true)]
    store: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs, place: &Place) -> anyhow::Result<Outcome> {
    debug_assert!(args.store, "there is nothing else to verify yet");
    let project = Project::open(place)?;
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
