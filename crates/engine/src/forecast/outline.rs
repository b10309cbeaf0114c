//! Outlines of models that are not made yet, in a temporary folder.
//! Knows nothing of what a forecast is for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Size, size_below};
use crate::error::Result;
use crate::graph::NodeId;
use crate::plan::{Decision, Planner};
use crate::stage::{self, Inputs, Kind};
use artifact::{Artifact, AtPath, Output};

/// The outlines that were made, and where the files of the other nodes are.
pub(super) struct Outlines {
    folder: TempDir,
    /// The artifacts of the nodes that need not run.
    known: BTreeMap<NodeId, Artifact>,
    made: BTreeMap<NodeId, PathBuf>,
    memory: BTreeMap<NodeId, u64>,
}

impl Outlines {
    /// Makes the temporary folder.
    pub(super) fn new(decisions: &[Decision]) -> Result<Self> {
        let folder = tempfile::tempdir().at("create a folder in", &std::env::temp_dir())?;
        let known = decisions.iter().filter(|decision| !decision.is_stale());
        let known = known.filter_map(|decision| Some((decision.id, decision.artifact.clone()?))).collect();
        Ok(Self { folder, known, made: BTreeMap::new(), memory: BTreeMap::new() })
    }

    /// Outlines the model that a `fuse` or `quantize` node makes, and returns its size. Returns `None` if the model that it
    /// is made from is not known yet, or if it cannot be read: then the node itself says what ails it.
    pub(super) fn make(&mut self, planner: &Planner<'_>, id: NodeId) -> Result<Option<Size>> {
        let node = planner.graph.node(id);
        let mut inputs = Inputs::default();
        let mut is_exact = true;
        for (input, of) in planner.graph.edges(id) {
            let folder = self.folder_of(planner, of)?;
            let folder =
                folder.map(|folder| input.path.iter().fold(folder, |folder, path| folder.join(path)));
            match folder {
                Some(folder) => drop(inputs.folders.insert(input.role.clone(), folder)),
                // What an adapter changes has the same size, as a rule.
                None if node.stage.takes(&input.role) == Some(Kind::Adapter) => is_exact = false,
                None if node.stage.takes(&input.role) == Some(Kind::Probe) => {}
                None => return Ok(None),
            }
        }
        let origin = planner.sources.origin(planner.graph, id);
        inputs.origin = origin.map(Into::into);
        let folder = self.folder.path().join(id.index().to_string());
        fs::create_dir(&folder).at("create", &folder)?;
        let output = Output::new(folder.clone());
        let Ok(outlined) = stage::outline(&node.stage, &inputs, &output) else { return Ok(None) };
        self.memory.insert(id, outlined.memory);
        let bytes = size_below(&folder).max(outlined.budget.unwrap_or(0));
        self.made.insert(id, folder);
        Ok(Some(if is_exact && outlined.is_exact { Size::Exact(bytes) } else { Size::About(bytes) }))
    }

    /// Returns how much memory a node needs that was outlined.
    pub(super) fn memory(&self, id: NodeId) -> Option<u64> {
        self.memory.get(&id).copied()
    }

    /// Returns a folder with the files of a node, or with its outline.
    fn folder_of(&self, planner: &Planner<'_>, id: NodeId) -> Result<Option<PathBuf>> {
        if let Some(folder) = self.made.get(&id) {
            return Ok(Some(folder.clone()));
        }
        let Planner { graph, sources, store, artifacts_dir, .. } = planner;
        let node = graph.node(id);
        if node.stage.is_reference() {
            return Ok(sources.path(graph, id).filter(|path| path.exists()));
        }
        let Some(artifact) = self.known.get(&id) else { return Ok(None) };
        let folder = artifacts_dir.folder(&node.name, artifact);
        if folder.is_dir() {
            return Ok(Some(folder));
        }
        let links = self.folder.path().join(format!("{}.links", id.index()));
        for file in artifact.files() {
            let object = store.object_path(&file.digest);
            if !object.exists() {
                return Ok(None);
            }
            let link = links.join(&file.path);
            let parent = link.parent().unwrap_or(&links);
            fs::create_dir_all(parent).at("create", parent)?;
            link_to(&object, &link)?;
        }
        Ok(Some(links))
    }
}

fn link_to(object: &Path, link: &Path) -> Result<()> {
    if !link.is_symlink() {
        symlink(crate::paths::absolute(object), link).at("link", link)?;
    }
    Ok(())
}
