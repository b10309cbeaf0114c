//! What changed in a node since it was last built here: its recipe, compared with the recorded one.
//! Knows nothing of what is done about it.

use super::Planner;
use crate::graph::NodeId;
use crate::recipe::{Change, Recipe};
use crate::stage::{BASE_ROLE, FUSED_ROLE};
use crate::store::Action;
use artifact::Artifact;

impl Planner<'_> {
    /// Returns what changed since the node was last built here.
    pub(super) fn changes(
        &self,
        id: NodeId,
        recipe: &Recipe,
        source_files: Option<&Artifact>,
    ) -> Vec<Change> {
        let own_origin = self.sources.own_origin(self.graph, id);
        let Some((old, action)) = self.last(id) else {
            let never = own_origin.map(|origin| Change::NeverDownloaded { origin });
            return vec![never.unwrap_or(Change::NeverBuilt)];
        };
        let node = self.graph.node(id);
        let node_of =
            |role: &str| node.inputs.iter().find(|input| input.role == role).map(|input| input.node.clone());
        let mut changes = recipe.changes(&old, &node_of);
        // `base` and `fused` only serve to measure how much of the fine-tuning survives. They count as a
        // reason only if there is no other.
        let measured = |change: &Change| matches!(change, Change::Input { role, .. } if role == BASE_ROLE || role == FUSED_ROLE);
        if !changes.iter().all(measured) {
            changes.retain(|change| !measured(change));
        }
        if node.stage.is_reference()
            && let Some(source_files) = source_files
        {
            changes.retain(|change| !matches!(change, Change::Input { role, .. } if role == "source"));
            changes.extend(file_changes(&action.artifact, source_files));
        } else if own_origin.is_some() {
            // Its digest is computed from the commit, whose change is listed already.
            changes.retain(|change| !matches!(change, Change::Input { role, .. } if role == "source"));
        }
        changes
    }

    /// Returns what changed in a node itself, without the inputs and the origin that are not known yet.
    pub(super) fn known_changes(
        &self,
        id: NodeId,
        recipe: &Recipe,
        source_files: Option<&Artifact>,
    ) -> Vec<Change> {
        let mut changes = self.changes(id, recipe, source_files);
        changes.retain(|change| {
            !matches!(change, Change::Input { new: None, .. } | Change::Origin { new: None, .. })
        });
        changes
    }

    fn last(&self, id: NodeId) -> Option<(Recipe, Action)> {
        let key = self.state.nodes.get(&self.graph.node(id).name)?.key;
        let action = self.store.action(&key)?;
        let recipe = Recipe::read(&action.recipe)?;
        Some((recipe, action))
    }
}

fn file_changes(old: &Artifact, new: &Artifact) -> Vec<Change> {
    let mut changes = Vec::new();
    for file in new.files() {
        let before = old.file(&file.path).map(|file| file.digest);
        if before != Some(file.digest) {
            changes.push(Change::File { path: file.path.clone(), old: before, new: Some(file.digest) });
        }
    }
    let gone = old.files().iter().filter(|file| new.file(&file.path).is_none());
    changes.extend(gone.map(|file| Change::File {
        path: file.path.clone(),
        old: Some(file.digest),
        new: None,
    }));
    changes
}
