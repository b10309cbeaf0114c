//! Finds what a stage needs to start: the folders of its inputs, its source, and the origin of its weights.
//! Knows nothing of threads, nor of whether the output is kept or only compared.

mod command;

pub(crate) use command::guarded;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{OrBug, Result, fail};
use crate::git_head;
use crate::graph::NodeId;
use crate::manifest::SourceLocation;
use crate::plan::Planner;
use crate::stage::{Inputs, Quoting, Stage};
use crate::store::{ArtifactState, restrict_to};
use artifact::{Artifact, AtPath, FileEntry, IoError};
use report::SourceFacts;
use text::nearest;

/// Returns the inputs of a node, which must all be built. `made` returns the artifact of an input.
///
/// # Errors
/// Fails if the files of an input are not here, or if a folder of links to them cannot be made.
pub(crate) fn find<'a>(
    planner: &mut Planner<'_>,
    id: NodeId,
    made: &dyn Fn(NodeId) -> Option<&'a Artifact>,
) -> Result<Inputs> {
    find_with(planner, id, made, &BTreeMap::new())
}

/// Like [`find`]. The files of the nodes in `elsewhere` are in these folders.
///
/// # Errors
/// Fails as [`find`] does.
pub(crate) fn find_with<'a>(
    planner: &mut Planner<'_>,
    id: NodeId,
    made: &dyn Fn(NodeId) -> Option<&'a Artifact>,
    elsewhere: &BTreeMap<NodeId, PathBuf>,
) -> Result<Inputs> {
    let (graph, sources) = (planner.graph, planner.sources);
    let mut folders = BTreeMap::new();
    for (input, node) in graph.edges(id) {
        let artifact = made(node).or_bug("the inputs of a started node are made")?;
        let folder = match elsewhere.get(&node) {
            Some(folder) => folder.clone(),
            None => folder(planner, node, artifact)?,
        };
        let folder = absolute(folder)?;
        let part = input.path.as_ref().map(|path| part(&folder, artifact, path, &input.node)).transpose()?;
        folders.insert(input.role.clone(), part.unwrap_or(folder));
    }
    let is_rewrite = matches!(graph.node(id).stage, Stage::Fuse(_) | Stage::Quantize(_));
    let origin = if is_rewrite { sources.origin(graph, id) } else { None };
    let source = sources.path(graph, id).map(absolute).transpose()?;
    let quoting = if sources.is_of_the_project(id) { Quoting::Allowed } else { Quoting::Forbidden };
    let inputs = Inputs { folders, source, quoting, origin: origin.map(Into::into), ..Inputs::default() };
    match &graph.node(id).stage {
        Stage::Benchmark(_) => {
            Ok(Inputs { previous: previous(planner, id), about: about(planner, id, made), ..inputs })
        }
        Stage::Run(run) => command::of_a_command(planner, id, run, inputs, made),
        _ => Ok(inputs),
    }
}

/// Returns the files of the last run of a benchmark here, as far as they are still there.
fn previous(planner: &Planner<'_>, id: NodeId) -> BTreeMap<String, Vec<u8>> {
    let built = planner.state.nodes.get(&planner.graph.node(id).name);
    let files = built.map(|built| built.artifact.files()).unwrap_or_default();
    let named = files.iter().filter(|file| file.path.ends_with(".json"));
    named
        .filter_map(|file| Some((file.path.clone(), planner.store.read_content(&file.digest).ok()?)))
        .collect()
}

/// Returns the bases and adapters that a benchmark descends from, and the commit around the project.
pub(crate) fn about<'a>(
    planner: &Planner<'_>,
    id: NodeId,
    made: &dyn Fn(NodeId) -> Option<&'a Artifact>,
) -> (Vec<SourceFacts>, Option<String>) {
    let Planner { graph, sources, .. } = planner;
    let facts = |id: &NodeId| {
        let node = graph.node(*id);
        let location = &node.source.as_ref().filter(|_| node.stage.is_reference())?.location;
        let (source, commit) = match (location, sources.own_origin(graph, *id)) {
            (SourceLocation::Hub(hub), origin) => {
                (hub.repo.clone(), origin.map(|origin| origin.commit.to_string()))
            }
            (SourceLocation::Disk(path), _) => {
                (path.clone(), made(*id).map(|artifact| artifact.digest().short()))
            }
        };
        Some(SourceFacts { node: node.name.clone(), stage: node.stage.word().to_owned(), source, commit })
    };
    let closure = graph.closure(&[id]);
    (closure.iter().filter_map(facts).collect(), git_head::commit(sources.root()))
}

/// Returns a folder with the files of an artifact: its source, its folder in `artifacts/` if that is
/// unchanged, or else a new folder of links into the store.
fn folder(planner: &mut Planner<'_>, id: NodeId, artifact: &Artifact) -> Result<PathBuf> {
    let Planner { graph, sources, store, artifacts_dir, state, .. } = planner;
    let node = graph.node(id);
    let scratch = store.workspace();
    if let Some(source) = sources.path(graph, id).filter(|_| node.stage.is_reference()) {
        let is_shared = sources.own_origin(graph, id).is_some();
        return match is_shared {
            true => Ok(restrict_to(source, artifact, scratch.join(format!("{}.source", node.name)))?),
            false => Ok(source),
        };
    }
    if artifacts_dir.state(&node.name, artifact, &mut state.stats) == ArtifactState::InPlace {
        return Ok(artifacts_dir.folder(&node.name, artifact));
    }
    let object = |file: &FileEntry| store.object_path(&file.digest);
    if artifact.files().iter().any(|file| !object(file).exists()) {
        let name = &node.name;
        fail!(
            NotBuilt,
            "its input `{name}` is not here; `pipeline pull {name}` or `pipeline build {name}` brings it"
        );
    }
    Ok(link_all(artifact, scratch.join(format!("{}.links", node.name)), &object)?)
}

/// Returns where the files at `path` in the artifact of `node` are, which lies in `folder`.
fn part(folder: &Path, artifact: &Artifact, path: &str, node: &str) -> Result<PathBuf> {
    match nothing_at(artifact, path, node) {
        Some(problem) => fail!(Source, "{problem}"),
        None => Ok(folder.join(path)),
    }
}

/// Says that the artifact of `node` has nothing at `path`, if it has not.
pub(crate) fn nothing_at(artifact: &Artifact, path: &str, node: &str) -> Option<String> {
    let near = nearest(path, artifact.folders());
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let is_nothing = artifact.below(path).files().is_empty();
    is_nothing.then(|| format!("its input `{node}` has nothing at `{path}`{near}"))
}

/// Makes a folder of symbolic links to the files of `artifact`. Hard links would change the state of the
/// stored objects, which must stay as they are.
pub(crate) fn link_all(
    artifact: &Artifact,
    folder: PathBuf,
    object: &dyn Fn(&FileEntry) -> PathBuf,
) -> Result<PathBuf, IoError> {
    if folder.exists() {
        return Ok(folder);
    }
    for file in artifact.files() {
        let link = folder.join(&file.path);
        let parent = link.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).at("create", parent)?;
        symlink(absolute(object(file))?, &link).at("link", &link)?;
    }
    Ok(folder)
}

/// Makes a path absolute, because a worker process may have another working directory.
fn absolute(path: PathBuf) -> Result<PathBuf, IoError> {
    std::path::absolute(&path).at("find", Path::new(&path))
}
