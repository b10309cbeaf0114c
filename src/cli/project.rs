//! A project on disk: the pipeline file found and checked, its cache, its shelf and the memory of both.
//! Knows nothing of what a command does with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

use crate::backend::BackendKind;
use crate::digest::Digest;
use crate::graph::{Graph, NodeId};
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::plan::{Asked, Planner};
use crate::sources::Sources;
use crate::store::{LocalStore, Memo, Shelf, Stat, Witness};
use crate::yaml::Problem;

/// Bumped when [`Manifest`] changes, so that a remembered one is not misread.
const MANIFEST_FORMAT: u32 = 3;

/// Where the user says the project is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: Option<PathBuf>,
    pub(super) file: PathBuf,
}

impl Place {
    /// Returns the path of the pipeline file as the user would write it.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| self.file.clone(), |folder| folder.join(&self.file))
    }

    /// Returns the folder of the pipeline file.
    fn root(&self) -> PathBuf {
        self.path().parent().map_or_else(PathBuf::new, Path::to_owned)
    }

    /// Answers how many nodes are up to date if that was the answer to `question` before, and nothing changed that
    /// it rests on. Where the cache is stands in the pipeline file, which is not read here: a cache that is not in
    /// the default place has no short cut.
    pub(super) fn recall(&self, question: &Digest) -> anyhow::Result<Option<usize>> {
        let root = self.root();
        let store = LocalStore::new(root.join("cache"));
        let answer = Witness::recall(&store.witness_path(), &root, question);
        answer.map(|answer| store.sweep().map(|()| answer)).transpose()
    }
}

/// Something wrong in what the user wrote: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// An opened project.
pub(super) struct Project {
    /// The folder of the pipeline file.
    pub(super) root: PathBuf,
    pub(super) graph: Graph,
    /// Where its sources lie.
    pub(super) sources: Sources,
    pub(super) store: LocalStore,
    pub(super) shelf: Shelf,
    pub(super) memo: Memo,
    pub(super) path: PathBuf,
    text: String,
    /// When it was opened: before anything was looked at.
    opened: SystemTime,
}

impl Project {
    /// Opens the project at `place` and checks its pipeline file.
    pub(super) fn open(place: &Place) -> anyhow::Result<Self> {
        let path = place.path();
        let (opened, stat) = (SystemTime::now(), Stat::at(&path));
        let text = fs::read_to_string(&path).map_err(|error| {
            let hint = "`pipeline init` writes one, -C and -f name another";
            UsageError(format!("cannot read {}: {error}; {hint}", path.display()))
        })?;
        let root = place.root();
        // The memory lies in the cache, and where the cache is stands in the file; the default place is tried first.
        let mut memo = Memo::load(&LocalStore::new(root.join("cache")).memo_path());
        let manifest = match remembered(&memo, &text) {
            Some(manifest) => manifest,
            None => Manifest::parse(&text).map_err(|problem| usage(&problem, &path, &text))?,
        };
        let store = LocalStore::new(root.join(&manifest.cache));
        if manifest.cache != "cache" {
            memo = Memo::load(&store.memo_path());
        }
        remember(&mut memo, &text, &manifest);
        if let Ok(stat) = stat {
            memo.saw(&path, stat);
        }
        let graph = Graph::check(manifest).map_err(|problem| usage(&problem, &path, &text))?;
        let shelf = Shelf::new(root.join("artifacts"));
        let sources = Sources::new(root.clone());
        let mut project = Self { root, graph, sources, store, shelf, memo, path, text, opened };
        project.check_sources()?;
        project.hold_commits();
        Ok(project)
    }

    /// Makes an error that shows the place in the pipeline file.
    pub(super) fn problem(&self, problem: &Problem) -> anyhow::Error {
        usage(problem, &self.path, &self.text)
    }

    fn check_sources(&self) -> anyhow::Result<()> {
        for id in self.graph.order() {
            let node = self.graph.node(*id);
            if let Some(source) = &node.source
                && let Some(path) = source.path()
                && !self.root.join(path).exists()
            {
                let message = format!("the source `{path}` of node `{}` does not exist", node.name);
                return Err(self.problem(&Problem::new(source.at, message)));
            }
        }
        Ok(())
    }

    /// Takes the commits of the sources on the hub from the lock, which is not read where there are none.
    fn hold_commits(&mut self) {
        let Self { graph, sources, .. } = self;
        if graph.order().iter().any(|&id| sources.unresolved(graph, id).is_some()) {
            let lock = self.lockfile();
            self.sources.hold(&self.graph, &lock);
        }
    }

    /// Resolves the names of targets; none means all nodes.
    pub(super) fn targets(&self, names: &[String]) -> anyhow::Result<Vec<NodeId>> {
        if names.is_empty() {
            return Ok(self.graph.order().to_vec());
        }
        let found = names.iter().map(|name| self.graph.find(name));
        found.collect::<Result<_, _>>().map_err(|unknown| UsageError(unknown.to_string()).into())
    }

    /// Returns what is asked by naming `targets`.
    pub(super) fn asked(names: &[String], targets: &[NodeId]) -> Asked {
        let named: &[NodeId] = if names.is_empty() { &[] } else { targets };
        Asked { wanted: named.iter().copied().collect(), ..Asked::default() }
    }

    /// Returns the planner of this project.
    pub(super) fn planner(&mut self, backend: BackendKind, asked: Asked) -> Planner<'_> {
        Planner {
            graph: &self.graph,
            sources: &self.sources,
            store: &self.store,
            shelf: &self.shelf,
            memo: &mut self.memo,
            backend,
            asked,
        }
    }

    /// Writes back what was learned about the disk.
    pub(super) fn save_memo(&mut self) {
        if let Some(bytes) = self.memo.changed() {
            self.store.save(&self.store.memo_path(), &bytes);
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("pipeline.lock")
    }

    /// Keeps that all `count` nodes of `question` are up to date, with what this was read from: the pipeline file,
    /// the lock, the sources, the shelf, the memory, and this very program.
    pub(super) fn witness(&mut self, question: Digest, count: usize) {
        // What was changed just before it was looked at may be changed again within the same tick of the clock.
        if self.memo.seen().iter().any(|(_, stat)| stat.is_racy(self.opened)) {
            return;
        }
        // These two may be as young as they like: nobody writes into them. In a cache that cannot be written there
        // is no memory, and no witness either.
        let own = [std::env::current_exe(), Ok(self.store.memo_path())];
        if !own.into_iter().all(|path| path.is_ok_and(|path| self.memo.look(&path).is_ok())) {
            return;
        }
        if let Some(bytes) = Witness::encode(question, count, &self.root, self.memo.seen()) {
            self.store.save(&self.store.witness_path(), &bytes);
        }
    }

    /// Reads `pipeline.lock`; a missing one is empty.
    pub(super) fn lockfile(&mut self) -> Lockfile {
        let path = self.lock_path();
        // A missing lock has no state; it is written before anything can be said to rest on it.
        let _ = self.memo.look(&path);
        fs::read_to_string(self.lock_path()).map(|text| Lockfile::parse(&text)).unwrap_or_default()
    }

    /// Writes `pipeline.lock` if it changed.
    pub(super) fn save_lockfile(&self, lock: &Lockfile) -> anyhow::Result<()> {
        let text = lock.render();
        if fs::read_to_string(self.lock_path()).is_ok_and(|current| current == text) {
            return Ok(());
        }
        self.store.write(&self.lock_path(), text.as_bytes()).context("pipeline.lock could not be written")
    }
}

fn usage(problem: &Problem, path: &Path, text: &str) -> anyhow::Error {
    UsageError(problem.render(path, text)).into()
}

fn text_digest(text: &str) -> Digest {
    Digest::of(&[&MANIFEST_FORMAT.to_le_bytes(), text.as_bytes()].concat())
}

/// Parsing ten thousand nodes of YAML takes longer than everything else a null build does; the outcome is a pure
/// function of the text, so it is remembered.
fn remembered(memo: &Memo, text: &str) -> Option<Manifest> {
    postcard::from_bytes(memo.manifest(&text_digest(text))?).ok()
}

fn remember(memo: &mut Memo, text: &str, manifest: &Manifest) {
    let digest = text_digest(text);
    if memo.manifest(&digest).is_none()
        && let Ok(bytes) = postcard::to_stdvec(manifest)
    {
        memo.remember_manifest(digest, bytes);
    }
}
