//! What a stage is started with: where the artifacts of its inputs lie, and its source.
//! Knows nothing of threads or of the states of nodes.

use std::path::PathBuf;

use anyhow::Context;

use super::Scheduler;
use super::task::Download;
use crate::graph::NodeId;
use crate::plan::Planner;
use crate::stage::{Inputs, Stage};
use crate::store::narrow;

impl Scheduler<'_, '_> {
    /// Returns what a node whose inputs are done is made from.
    pub(super) fn inputs(&self, id: NodeId) -> anyhow::Result<Inputs> {
        let Planner { graph, sources, .. } = &self.planner;
        let mut inputs = Inputs::default();
        for (role, input) in graph.inputs(id) {
            inputs.folders.insert(role.to_owned(), absolute(self.folder(input)?)?);
        }
        inputs.source = sources.path(graph, id).map(absolute).transpose()?;
        if matches!(graph.node(id).stage, Stage::Fuse(_) | Stage::Quantize(_)) {
            inputs.origin = sources.origin(graph, id).map(Into::into);
        }
        Ok(inputs)
    }

    /// Returns where the artifact of a node that is done lies.
    fn folder(&self, id: NodeId) -> anyhow::Result<PathBuf> {
        let Planner { graph, sources, shelf, store, .. } = &self.planner;
        let name = &graph.node(id).name;
        let artifact = self.artifacts.get(&id).context("BUG: the inputs of a started node are done")?;
        match sources.path(graph, id).filter(|_| graph.node(id).stage.is_reference()) {
            Some(folder) if sources.own_origin(graph, id).is_some() => {
                narrow(folder, artifact, store.workspace().join(format!("{name}.source")))
            }
            Some(folder) => Ok(folder),
            None => Ok(shelf.folder(name, artifact)),
        }
    }

    /// Returns what is to be downloaded for a source on the hub.
    pub(super) fn download(&self, id: NodeId) -> Option<Download> {
        let Planner { graph, sources, .. } = &self.planner;
        let origin = sources.own_origin(graph, id)?;
        Some(Download { cache: sources.cache().clone(), origin, content: sources.content(id) })
    }
}

/// A worker process has another working folder in mind than we may.
fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("cannot make {} absolute", path.display()))
}
