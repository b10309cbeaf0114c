//! Signs the record of a node that ran here.
//! Knows nothing of when that is done, nor of keys.

use super::place_of;
use crate::error::Result;
use crate::graph::NodeId;
use crate::plan::{Planner, share_policy};
use crate::share;
use crate::sign::signer;
use crate::store::Action;
use artifact::{Digest, FileEntry};

/// Signs the record of a node that ran here under `key`, if the user has a key that can be used. Its files must be here.
///
/// # Errors
/// Fails if a file cannot be read, or if the statement cannot be signed or written.
pub(crate) fn attest(planner: &Planner<'_>, id: NodeId, key: &Digest) -> Result<()> {
    let Ok(Some(own)) = signer() else { return Ok(()) };
    let Planner { graph, sources, store, state, .. } = planner;
    let node = graph.node(id);
    // Others may write to a shared cache: only what this build made is signed.
    let built = state.nodes.get(&node.name);
    let is_built = |action: &Action| {
        built.is_some_and(|built| built.artifact == action.artifact && built.failure == action.failure)
    };
    let Some(action) = store.action(key).filter(is_built) else { return Ok(()) };
    let source = sources.path(graph, id).filter(|_| node.stage.is_reference());
    let place = |file: &FileEntry| place_of(store, source.as_deref(), file);
    let statement = share::seal(key, &share_policy(&node.stage), &action, own, &place)?;
    Ok(store.put_attestation(key, &statement)?)
}
