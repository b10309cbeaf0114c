//! Attestations: what was built is signed, and `pipeline verify --attestation` says who vouches for what is here.
//! Knows nothing of remotes: a statement is kept beside the record of what it is about.

use serde_json::json;

use crate::cli::{BackendArg, Outcome, print, print_json};
use crate::commands::status::nodes;
use crate::project::Project;
use engine::graph::NodeId;
use engine::plan::{Asked, Decision, travels};
use engine::recipe::Recipe;
use engine::schedule::Summary;
use engine::share::{self, NotUsed};
use engine::sign::{self, PublicKey};

/// Signs what a build has made here, for a user who has a key. Without one, or with one that cannot be used, it stays
/// unsigned: signing is asked for where something is shared.
pub(crate) fn attest(project: &Project, summary: &Summary) -> anyhow::Result<()> {
    let Ok(Some(own)) = sign::load() else { return Ok(()) };
    for (id, (key, _)) in summary.done.iter().filter(|(id, _)| summary.ran.contains(id)) {
        let Some(action) = project.store.action(key) else { continue };
        let kind = travels(&project.graph.node(*id).stage);
        project.store.attest(key, &share::seal(key, kind, &action, &own))?;
    }
    Ok(())
}

/// Checks who vouches for what these nodes are.
pub(crate) fn verify(
    project: &mut Project,
    ids: &[NodeId],
    backend: BackendArg,
    is_json: bool,
) -> anyhow::Result<Outcome> {
    let closure = project.graph.closure(ids);
    let decisions = project.planner(backend.into(), Asked::default()).plan(&closure)?;
    let own = sign::load().ok().flatten().map(|own| own.public());
    let mut failed = 0;
    for decision in decisions.iter().filter(|decision| ids.contains(&decision.id)) {
        let node = &project.graph.node(decision.id).name;
        let found = check(project, decision, own);
        failed += usize::from(found.is_err());
        match (is_json, found) {
            (true, Ok(signer)) => print_json(&json!({"node": node, "signer": signer}))?,
            (true, Err(problem)) => print_json(&json!({"node": node, "problem": problem}))?,
            (false, Ok(signer)) => {
                print(&format!("{node}: {} vouches for it\n", name(project, own, &signer)))?;
            }
            (false, Err(problem)) => print(&format!("{node}: {problem}\n"))?,
        }
    }
    if is_json {
        print_json(&json!({"nodes": ids.len(), "failed": failed}))?;
    } else {
        print(&format!("{} checked, {failed} failed\n", nodes(ids.len())))?;
    }
    Ok(if failed == 0 { Outcome::Success } else { Outcome::Failure })
}

/// Returns who signed that this recipe made this artifact, or what is wrong.
fn check(project: &Project, decision: &Decision, own: Option<PublicKey>) -> Result<PublicKey, String> {
    let node = &project.graph.node(decision.id).name;
    let (Some(key), Some(artifact)) = (decision.key, &decision.artifact) else {
        return Err(format!("not built; `pipeline build {node}` makes it"));
    };
    let kept = project.store.attestation(&key);
    let kept =
        kept.ok_or("nobody attested it; what is built with a signing key is, see `pipeline keys init`")?;
    let believed: Vec<_> = project.cache.trusted_keys.iter().map(|trusted| trusted.key).chain(own).collect();
    let (claim, signer) = share::open(&kept, &believed).map_err(|problem: NotUsed| problem.to_string())?;
    let recipe = serde_json::from_value::<Recipe>(claim.action.recipe).map(|recipe| recipe.key());
    if claim.key != key || !recipe.is_ok_and(|recipe| recipe == key) {
        return Err("its attestation is about another recipe".to_owned());
    }
    if claim.action.artifact != *artifact {
        let (is, was) = (artifact.digest().short(), claim.action.artifact.digest().short());
        return Err(format!("its attestation is about {was}, but it is {is}"));
    }
    Ok(signer)
}

/// Names a key as the pipeline file does.
fn name(project: &Project, own: Option<PublicKey>, key: &PublicKey) -> String {
    let trusted = project.cache.trusted_keys.iter().find(|trusted| trusted.key == *key);
    match trusted {
        Some(trusted) => format!("{} ({})", trusted.name, key.short()),
        None if own == Some(*key) => format!("your key ({})", key.short()),
        None => key.short(),
    }
}
