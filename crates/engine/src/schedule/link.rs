//! Puts the artifact of a node into `artifacts/`: its folder, or a link to its source.
//! Knows nothing of how the artifact came to be here.

use super::Scheduler;
use crate::error::Result;
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::{Decision, Planner};
use artifact::Artifact;

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    pub(super) fn link(&mut self, id: NodeId, decision: &Decision, artifact: Artifact) -> Result<()> {
        if self.contradicts_the_lock(id, decision, &artifact) {
            return Ok(());
        }
        if let Err(error) = self.put_in_place(id, &artifact) {
            if !self.is_gone(id, &artifact) {
                self.failed(id, &error);
                return Ok(());
            }
            // The collector or a person has removed a file since the node was decided on, so it is decided on
            // again.
            self.ready.push_back(id);
            return Ok(());
        }
        let node = &self.planner.graph.node(id).name;
        let edited = decision.edited.as_deref();
        self.observer.event(&Event::Linked { node, edited, artifact: artifact.digest() });
        self.done(id, decision, artifact, decision.failure.clone())?;
        let counts = self.summary.done.contains_key(&id) && !self.summary.by_workers.contains(&id);
        self.summary.linked += usize::from(counts);
        Ok(())
    }

    /// Whether a file of an artifact is no longer in the store.
    pub(super) fn is_gone(&self, id: NodeId, artifact: &Artifact) -> bool {
        let Planner { graph, sources, store, .. } = &self.planner;
        let mut objects = artifact.files().iter().map(|file| store.object_path(&file.digest));
        sources.target(graph, id).is_none() && objects.any(|object| !object.exists())
    }

    /// Puts the artifact of a node into `artifacts/`.
    pub(super) fn put_in_place(&mut self, id: NodeId, artifact: &Artifact) -> Result<()> {
        let Planner { graph, sources, store, artifacts_dir, state, .. } = &mut self.planner;
        let node = graph.node(id);
        match sources.target(graph, id) {
            Some(target) => artifacts_dir.link(&node.name, &target, store),
            None => artifacts_dir.put(&node.name, artifact, store, &mut state.stats),
        }
    }
}
