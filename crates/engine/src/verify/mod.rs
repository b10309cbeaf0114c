//! Making a node again beside what is recorded of it, and saying where the two differ.
//! Knows nothing of threads, nor of what is printed; writes nowhere but in the process's own workspace.

mod difference;

pub use difference::{Difference, describe, differences};

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::graph::NodeId;
use crate::plan::{Decision, Planner};
use crate::stage::{self, Inputs, Stage};
use crate::store::{Memo, ShelfState, narrow, take_stock, take_stock_of};
use artifact::{Artifact, AtPath, FileEntry, Interrupted, Output, Tick};

/// What came of making a node again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Every file that is the same on every run is the same.
    Same,
    /// There is no artifact to compare with: the node is stale, or an input of it is.
    NotBuilt,
    /// It could not be made again.
    Failed(String),
    /// These files differ.
    Differs(Vec<Difference>),
}

/// Makes nodes again, one by one.
pub struct Rederiver<'a> {
    planner: Planner<'a>,
    decisions: BTreeMap<NodeId, Decision>,
}

impl<'a> Rederiver<'a> {
    /// Plans, so as to know what is recorded of `ids` and of their inputs.
    pub fn new(mut planner: Planner<'a>, ids: &[NodeId]) -> anyhow::Result<Self> {
        let decisions = planner.plan(&planner.graph.closure(ids))?;
        let decisions = decisions.into_iter().map(|decision| (decision.id, decision)).collect();
        Ok(Self { planner, decisions })
    }

    /// Makes the node again and compares. Fails only if it is asked to stop.
    pub fn rederive(&mut self, id: NodeId, tick: Tick<'_>) -> anyhow::Result<Finding> {
        let Some(recorded) = self.recorded(id) else { return Ok(Finding::NotBuilt) };
        match self.compare(id, &recorded, tick) {
            Ok(differences) if differences.is_empty() => Ok(Finding::Same),
            Ok(differences) => Ok(Finding::Differs(differences)),
            Err(error) if error.chain().any(|cause| cause.is::<Interrupted>()) => Err(error),
            Err(error) => Ok(Finding::Failed(format!("{error:#}"))),
        }
    }

    fn recorded(&self, id: NodeId) -> Option<Artifact> {
        self.decisions.get(&id).filter(|decision| !decision.is_stale())?.artifact.clone()
    }

    fn compare(
        &mut self,
        id: NodeId,
        recorded: &Artifact,
        tick: Tick<'_>,
    ) -> anyhow::Result<Vec<Difference>> {
        let key = self.decisions.get(&id).and_then(|decision| decision.key);
        let folder = self.planner.store.stage(&key.context("BUG: a node that is built has a key")?)?;
        let inputs = self.inputs(id)?;
        let output = Output::new(folder.clone());
        let stage = &self.planner.graph.node(id).stage;
        stage::run(stage, &inputs, &output, self.planner.backend, tick)?;
        if stage.is_reference() {
            let stock = self.stock(id, recorded)?;
            let now = |_: &FileEntry, now: &FileEntry| format!("differs: its content is now {}", now.digest);
            return Ok(differences(recorded, &stock, &now));
        }
        let store = self.planner.store;
        let describe = |old: &FileEntry, new: &FileEntry| {
            describe(&new.path, &store.object_path(&old.digest), &folder.join(&new.path))
        };
        let found = differences(recorded, &output.finish().artifact, &describe);
        // The next node may need the room.
        fs::remove_dir_all(&folder).at("remove", &folder)?;
        Ok(found)
    }

    /// Lists the source of a `base` or `adapter` as it is now, trusting no memory. Of a source on the hub only the files
    /// that are recorded count, because the hub's cache is shared.
    fn stock(&self, id: NodeId, recorded: &Artifact) -> anyhow::Result<Artifact> {
        let Planner { graph, sources, .. } = &self.planner;
        let path = sources.path(graph, id).context("BUG: a reference has a source")?;
        if sources.own_origin(graph, id).is_none() {
            return take_stock(&path, &mut Memo::default());
        }
        let names = recorded.files().iter().map(|file| file.path.clone());
        let names: Vec<_> = names.filter(|name| path.join(name).exists()).collect();
        Ok(take_stock_of(&path, &names)?.0)
    }

    fn inputs(&mut self, id: NodeId) -> anyhow::Result<Inputs> {
        let (graph, sources) = (self.planner.graph, self.planner.sources);
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

    /// Returns where the recorded artifact of an input can be read.
    fn folder(&mut self, id: NodeId) -> anyhow::Result<PathBuf> {
        let artifact = self.recorded(id).context("BUG: the inputs of a node that is built are built")?;
        let Planner { graph, sources, store, shelf, memo, .. } = &mut self.planner;
        let node = graph.node(id);
        let scratch = store.workspace();
        match sources.path(graph, id).filter(|_| node.stage.is_reference()) {
            Some(folder) if sources.own_origin(graph, id).is_some() => {
                narrow(folder, &artifact, scratch.join(format!("{}.source", node.name)))
            }
            Some(folder) => Ok(folder),
            None if shelf.state(&node.name, &artifact, memo) == ShelfState::InPlace => {
                Ok(shelf.folder(&node.name, &artifact))
            }
            None => {
                let is_gone = |file: &FileEntry| !store.object_path(&file.digest).exists();
                if artifact.files().iter().any(is_gone) {
                    let name = &node.name;
                    anyhow::bail!(
                        "its input `{name}` is not here; `pipeline pull {name}` or `pipeline build {name}` brings it"
                    );
                }
                let object = |file: &FileEntry| store.object_path(&file.digest);
                link(&artifact, &scratch.join(format!("{}.links", node.name)), &object)
            }
        }
    }
}

/// Makes a folder of the files of `artifact` out of links. A hard link would change the state of the object, and the
/// store is not to be touched.
fn link(
    artifact: &Artifact,
    folder: &Path,
    object: &dyn Fn(&FileEntry) -> PathBuf,
) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        return Ok(folder.to_owned());
    }
    for file in artifact.files() {
        let link = folder.join(&file.path);
        let parent = link.parent().unwrap_or(folder);
        fs::create_dir_all(parent).at("create", parent)?;
        symlink(absolute(object(file))?, &link).at("link", &link)?;
    }
    Ok(folder.to_owned())
}

/// A worker process has another working folder in mind than we may.
fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("cannot make {} absolute", path.display()))
}
