//! Temporary nodes: their files go when the last node of the build that reads them is done.
//! Knows nothing of how files are removed.

use super::{NodeState, Scheduler};
use crate::error::Result;
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::Planner;

impl Scheduler<'_, '_> {
    /// Releases the temporary nodes that the nodes made since the last call needed, and those among these themselves.
    pub(super) fn release_all(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.leaving) {
            let inputs: Vec<_> = self.planner.graph.inputs(id).map(|(_, input)| input).chain([id]).collect();
            inputs.into_iter().try_for_each(|input| self.release(input))?;
        }
        Ok(())
    }

    /// Removes the files of a temporary node, if no node of this build needs them any more. The user may have named the
    /// node: then they stay.
    fn release(&mut self, id: NodeId) -> Result<()> {
        let Planner { graph, store, artifacts_dir, state, request, .. } = &mut self.planner;
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
        let Some(artifact) = self.artifacts.get(&id) else { return Ok(()) };
        if let Some(bytes) = store.release(&node.name, artifact, artifacts_dir, &mut state.stats)? {
            self.absent.insert(id);
            self.observer.event(&Event::Released { node: &node.name, bytes });
        }
        Ok(())
    }
}
