//! Finds what a stage needs to start: the folders of its inputs, its source, and the origin of its weights.
//! Knows nothing of threads, nor of whether the output is kept or only compared.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{OrBug, Result, fail, require};
use crate::graph::{Graph, NodeId};
use crate::manifest::SourceLocation;
use crate::plan::Planner;
use crate::sources::Sources;
use crate::stage::{InputFile, Inputs, Quoting, Run, Stage};
use crate::store::{ArtifactState, LocalStore, StatCache, hash_source, restrict_to};
use crate::{git_head, paths};
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
        Stage::Run(run) => of_a_command(planner, id, run, inputs, made),
        _ => Ok(inputs),
    }
}

/// Adds what only a command needs.
fn of_a_command<'a>(
    planner: &mut Planner<'_>,
    id: NodeId,
    run: &Run,
    inputs: Inputs,
    made: &dyn Fn(NodeId) -> Option<&'a Artifact>,
) -> Result<Inputs> {
    let Planner { graph, sources, state, .. } = planner;
    let mut files = Vec::new();
    for (input, node) in graph.edges(id) {
        let artifact = made(node).or_bug("the inputs of a started node are made")?;
        check_source(graph, sources, node, artifact, &mut state.stats)?;
        let folder = inputs.folders.get(&input.role).or_bug("an input has a folder")?;
        let part = input.path.as_ref().map(|path| artifact.below(path));
        for file in part.as_ref().unwrap_or(artifact).files() {
            let path = if folder.is_dir() { folder.join(&file.path) } else { folder.clone() };
            let (role, name) = (input.role.clone(), file.path.clone());
            files.push(InputFile { role, name, path, digest: file.digest });
        }
    }
    let mut project_files = BTreeMap::new();
    for (name, path) in sources.project_files(id) {
        let path = absolute(path.to_owned())?;
        let (digest, _) = state.stats.digest_of(&path).at("read", &path)?;
        project_files.insert(name.to_owned(), (path, digest));
    }
    let root = paths::absolute(sources.root());
    let is_unnamed = |word: &String| {
        let is_plain = !word.is_empty() && !word.starts_with('/') && !word.contains("..");
        is_plain && root.join(word).is_file()
    };
    let words = run.templates().into_iter().skip(1).filter_map(|template| template.constant());
    let words: Vec<_> = words.flat_map(|words| words_of(&words)).collect();
    let unnamed_files = words.iter().filter(|word| is_unnamed(word)).cloned().collect();
    let bypassing = words.iter().filter(|word| is_bypassing(Path::new(word), &root));
    let bypassing_files = bypassing.cloned().collect();
    Ok(Inputs { root, files, project_files, unnamed_files, bypassing_files, ..inputs })
}

/// Returns the words of an argument, which may be a script of a shell, and the argument itself.
fn words_of(argument: &str) -> BTreeSet<String> {
    let words =
        argument.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ';' | '(' | ')' | '='));
    words.chain([argument]).map(str::to_owned).collect()
}

/// Whether `path` is the whole path of a file in the project, which the command reads past its key.
fn is_bypassing(path: &Path, root: &Path) -> bool {
    path.is_absolute() && path.starts_with(root) && path.is_file() && paths::is_inside(path, root)
}

/// Checks that an input which is a source on disk is still what was planned with. A command may begin hours after that.
fn check_source(
    graph: &Graph,
    sources: &Sources,
    id: NodeId,
    artifact: &Artifact,
    stats: &mut StatCache,
) -> Result<()> {
    let node = graph.node(id);
    let source = sources.path(graph, id).filter(|_| node.stage.is_reference());
    let Some(source) = source.filter(|_| sources.own_origin(graph, id).is_none()) else { return Ok(()) };
    let is_same = hash_source(&source, stats)?.digest() == artifact.digest();
    require!(is_same, Source, "its input `{}` was changed while the build ran; build again", node.name);
    Ok(())
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
fn about<'a>(
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
fn link_all(
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

/// Runs a stage. After a command, its inputs and the cache must be as they were.
///
/// # Errors
/// Fails as `run` does, or if a command changed an input or wrote into the cache.
pub(crate) fn guarded<T>(
    store: &LocalStore,
    stage: &Stage,
    inputs: &Inputs,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !matches!(stage, Stage::Run(_)) {
        return run();
    }
    let files: Vec<_> = inputs.files.iter().map(|file| (file.path.as_path(), file.digest)).collect();
    let before = store.snapshot(&files)?;
    let known: HashSet<_> = inputs.files.iter().map(|file| file.path.clone()).collect();
    let ran = run();
    for (role, folder) in &inputs.folders {
        if let Some(path) = added(folder, &known)? {
            let path = path.display();
            fail!(
                Command,
                "the command made {path} in its input `{role}`; inputs are read-only: what it makes goes into {{out}}"
            );
        }
    }
    if let Some(path) = store.trespass(&before)? {
        let input = inputs.files.iter().find(|file| file.path == path);
        match input {
            Some(InputFile { role, name, .. }) => fail!(
                Command,
                "the command changed `{name}` of its input `{role}`; inputs are read-only: what it makes goes into {{out}}"
            ),
            None => fail!(
                Command,
                "while the command ran, somebody else wrote into the cache: {}; what a command makes goes into {{out}}",
                path.display()
            ),
        }
    }
    ran
}

/// Returns a file below `folder` that is not among the known ones, if there is one. Hidden names do not count.
fn added(folder: &Path, known: &HashSet<PathBuf>) -> Result<Option<PathBuf>, IoError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(entry.file_name());
        let found = if path.is_dir() {
            added(&path, known)?
        } else {
            Some(path).filter(|path| !known.contains(path))
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
