//! What a command needs beside its folders, and what must be as it was when it has ended: its inputs and the cache.
//! Knows nothing of how a command runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::absolute;
use crate::error::{OrBug, Result, fail, require};
use crate::graph::{Graph, NodeId};
use crate::paths;
use crate::plan::Planner;
use crate::sources::Sources;
use crate::stage::{InputFile, Inputs, Run, Stage};
use crate::store::{LocalStore, StatCache, hash_source};
use artifact::{Artifact, AtPath, IoError};

/// Adds what only a command needs.
pub(super) fn of_a_command<'a>(
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
