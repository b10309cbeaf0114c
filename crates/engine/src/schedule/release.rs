//! Temporary nodes: their files go when the last node of the build that reads them is done.
//! Knows nothing of how files are removed.

use std::collections::HashSet;

use super::{NodeState, Scheduler, attest};
use crate::error::Result;
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::Planner;
use crate::recipe::Recipe;
use crate::store::Action;
use artifact::{Digest, in_one_line};

impl Scheduler<'_, '_> {
    /// Releases the temporary nodes that the nodes made since the last call needed, and those among these themselves.
    pub(super) fn release_all(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.leaving) {
            let inputs: Vec<_> = self.planner.graph.inputs(id).map(|(_, input)| input).chain([id]).collect();
            inputs.into_iter().try_for_each(|input| self.release(input))?;
        }
        Ok(())
    }

    /// Notes that a node is made again, so that it needs its inputs once more.
    pub(super) fn needs_inputs_again(&mut self, id: NodeId) {
        self.finished.remove(&id);
        self.leaving.retain(|left| *left != id);
    }

    /// Removes the files of a temporary node, if no node of this build needs them any more. The user may have named the
    /// node: then they stay.
    fn release(&mut self, id: NodeId) -> Result<()> {
        let Planner { graph, request, .. } = &self.planner;
        let node = graph.node(id);
        let is_done = self.states[id.index()] == Some(NodeState::Done) && !self.absent.contains(&id);
        if !node.temporary || !is_done || request.kept.contains(&id) {
            return Ok(());
        }
        if self.uploads.has(&node.name) {
            self.leaving.push(id);
            return Ok(());
        }
        if self.readers[id.index()].iter().any(|reader| !self.finished.contains(reader)) {
            return Ok(());
        }
        let Some(artifact) = self.artifacts.get(&id).cloned() else { return Ok(()) };
        self.attest_before_release(id);
        let spare = self.spare_keys(id);
        let current = self.current_keys();
        let word = node.stage.word();
        // An older recipe of the node may have made the same.
        let is_older = |key: &Digest, action: &Action| {
            let is_same = action.artifact == artifact && !current.contains(key);
            is_same && Recipe::read(&action.recipe).is_some_and(|recipe| recipe.stage().word() == word)
        };
        let is_spare = |key: &Digest, action: &Action| spare.contains(key) || is_older(key, action);
        let Planner { store, artifacts_dir, state, .. } = &mut self.planner;
        let freed = store.release(&node.name, &artifact, &is_spare, artifacts_dir, &mut state.stats)?;
        if let Some(bytes) = freed {
            self.absent.insert(id);
            self.observer.event(&Event::Released { node: &node.name, bytes });
        }
        Ok(())
    }

    /// Returns the keys of temporary nodes whose files nobody needs: of this one, and of those that are released or not part
    /// of this build.
    fn spare_keys(&self, id: NodeId) -> HashSet<Digest> {
        let Planner { graph, state, .. } = &self.planner;
        let is_spare = |other: &NodeId| {
            let is_idle = self.states[other.index()].is_none() || self.absent.contains(other);
            graph.node(*other).temporary && (*other == id || is_idle)
        };
        let nodes = graph.order().iter().filter(|other| is_spare(other));
        nodes.filter_map(|other| Some(state.nodes.get(&graph.node(*other).name)?.key)).collect()
    }

    /// Returns the keys that the nodes of the graph were last built with here.
    fn current_keys(&self) -> HashSet<Digest> {
        let Planner { graph, state, .. } = &self.planner;
        let names = graph.order().iter().map(|id| graph.node(*id).name.as_str());
        names.filter_map(|name| Some(state.nodes.get(name)?.key)).collect()
    }

    /// Signs the record of a node that ran here, as long as its files are here.
    fn attest_before_release(&mut self, id: NodeId) {
        if !self.summary.ran.contains(&id) {
            return;
        }
        let Some((key, _)) = self.summary.done.get(&id) else { return };
        if let Err(error) = attest::attest(&self.planner, id, key) {
            let node = &self.planner.graph.node(id).name;
            let message = format!("it is not signed: {}", in_one_line(&error));
            self.observer.event(&Event::Warning { node, message });
        }
    }
}
