//! A project on disk: the pipeline file found and checked, its cache, its shelf and the memory of both.
//! Knows nothing of what a command does with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

use crate::remote::RemoteArgs;
use artifact::Digest;
use engine::graph::{Graph, NodeId};
use engine::lockfile::Lockfile;
use engine::manifest::{Cache, DEFAULT_DIR, Manifest};
use engine::plan::{Asked, Planner, travels};
use engine::share::{self, Settings, Share, Traffic};
use engine::sign;
use engine::sources::Sources;
use engine::stage::BackendKind;
use engine::store::{Counters, LocalStore, Memo, Shelf, Stat, Witness};
use text::yaml::Problem;

/// Bumped when [`Manifest`] changes, so that a remembered one is not misread.
const MANIFEST_FORMAT: u32 = 4;

/// Where the user says the project is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: Option<PathBuf>,
    pub(crate) file: PathBuf,
}

impl Place {
    /// Returns the path of the pipeline file as the user would write it.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| self.file.clone(), |folder| folder.join(&self.file))
    }

    /// Returns the folder of the pipeline file.
    fn root(&self) -> PathBuf {
        self.path().parent().map_or_else(PathBuf::new, Path::to_owned)
    }

    /// Answers how many nodes are up to date if that was the answer to `question` before, and nothing changed that
    /// it rests on. Where the cache is stands in the pipeline file, which is not read here: a cache that is not in
    /// the default place has no short cut.
    pub(crate) fn recall(&self, question: &Digest) -> anyhow::Result<Option<usize>> {
        let root = self.root();
        let store = LocalStore::new(root.join(DEFAULT_DIR));
        let answer = Witness::recall(&store.witness_path(), &root, question);
        answer.map(|answer| store.sweep().map(|()| answer)).transpose()
    }
}

/// Something wrong in what the user wrote: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// An opened project.
pub(crate) struct Project {
    /// The folder of the pipeline file.
    pub(crate) root: PathBuf,
    /// What the pipeline file says of the cache.
    pub(crate) cache: Cache,
    pub(crate) graph: Graph,
    /// Where its sources lie.
    pub(crate) sources: Sources,
    pub(crate) store: LocalStore,
    pub(crate) shelf: Shelf,
    pub(crate) memo: Memo,
    /// The team's cache, once [`Self::connect`] was called and there is one.
    pub(crate) share: Option<Share>,
    pub(crate) path: PathBuf,
    text: String,
    /// When it was opened: before anything was looked at.
    opened: SystemTime,
}

impl Project {
    /// Opens the project at `place` and checks its pipeline file.
    pub(crate) fn open(place: &Place) -> anyhow::Result<Self> {
        let path = place.path();
        let (opened, stat) = (SystemTime::now(), Stat::at(&path));
        let text = fs::read_to_string(&path).map_err(|error| {
            let hint = "`pipeline init` writes one, -C and -f name another";
            UsageError(format!("cannot read {}: {error}; {hint}", path.display()))
        })?;
        let root = place.root();
        // The memory lies in the cache, and where the cache is stands in the file; the default place is tried first.
        let mut memo = Memo::load(&LocalStore::new(root.join(DEFAULT_DIR)).memo_path());
        let manifest = match remembered(&memo, &text) {
            Some(manifest) => manifest,
            None => Manifest::parse(&text).map_err(|problem| usage(&problem, &path, &text))?,
        };
        let cache = manifest.cache.clone();
        let store = LocalStore::new(root.join(&cache.dir));
        if cache.dir != DEFAULT_DIR {
            memo = Memo::load(&store.memo_path());
        }
        remember(&mut memo, &text, &manifest);
        if let Ok(stat) = stat {
            memo.saw(&path, stat);
        }
        let graph = Graph::check(manifest).map_err(|problem| usage(&problem, &path, &text))?;
        let shelf = Shelf::new(root.join("artifacts"));
        let sources = Sources::new(root.clone());
        let mut project =
            Self { root, cache, graph, sources, store, shelf, memo, share: None, path, text, opened };
        project.check_sources()?;
        project.hold_commits();
        Ok(project)
    }

    /// Makes an error that shows the place in the pipeline file.
    pub(crate) fn problem(&self, problem: &Problem) -> anyhow::Error {
        usage(problem, &self.path, &self.text)
    }

    /// Names the team's cache, if the pipeline file, the environment or the command line does. `sign` says whether our
    /// own key is wanted; a key file that cannot be used is then an error.
    pub(crate) fn connect(&mut self, args: &RemoteArgs, lock: &Lockfile) -> anyhow::Result<()> {
        let Some(url) = args.url(self.cache.remote.as_deref()) else { return Ok(()) };
        let locked = self.graph.order().iter().filter_map(|id| lock.get(&self.graph.node(*id).name));
        let settings = Settings {
            trusted: self.cache.trusted_keys.iter().map(|trusted| trusted.key).collect(),
            // Flattened: advice for a cache that cannot be written does not fit a key that cannot be read.
            own: sign::load().map_err(|error| anyhow::anyhow!("{error:#}"))?,
            locked: locked.map(|locked| (locked.key, locked.artifact)).collect(),
            compress: self.cache.compress,
        };
        let share = Share::new(&url, settings);
        share.prefetch(&self.unknown(lock));
        self.share = Some(share);
        Ok(())
    }

    /// Returns what the lock says that was built, as far as it was not built here: most of what a plan will ask for.
    fn unknown(&self, lock: &Lockfile) -> Vec<(Digest, share::Kind)> {
        let nodes = self.graph.order().iter().map(|id| self.graph.node(*id));
        let locked = nodes.filter_map(|node| Some((node, lock.get(&node.name)?.key)));
        let unknown = locked.filter(|(node, key)| {
            self.memo.node(&node.name).is_none_or(|known| known.key != *key)
                && self.store.action(key).is_none()
        });
        unknown.map(|(node, key)| (key, travels(&node.stage))).collect()
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
    pub(crate) fn targets(&self, names: &[String]) -> anyhow::Result<Vec<NodeId>> {
        if names.is_empty() {
            return Ok(self.graph.order().to_vec());
        }
        let found = names.iter().map(|name| self.graph.find(name));
        found.collect::<Result<_, _>>().map_err(|unknown| UsageError(unknown.to_string()).into())
    }

    /// Returns what is asked by naming `targets`.
    pub(crate) fn asked(names: &[String], targets: &[NodeId]) -> Asked {
        let named: &[NodeId] = if names.is_empty() { &[] } else { targets };
        let (wanted, needed) = (named.iter().copied().collect(), targets.iter().copied().collect());
        Asked { wanted, needed, ..Asked::default() }
    }

    /// Returns the planner of this project.
    pub(crate) fn planner(&mut self, backend: BackendKind, asked: Asked) -> Planner<'_> {
        self.planner_and_share(backend, asked).0
    }

    /// Returns the planner, and the team's cache beside it.
    pub(crate) fn planner_and_share(
        &mut self,
        backend: BackendKind,
        asked: Asked,
    ) -> (Planner<'_>, Option<&Share>) {
        let Self { graph, sources, store, shelf, memo, share, .. } = self;
        let share = share.as_ref();
        (Planner { graph, sources, store, shelf, memo, share, backend, asked }, share)
    }

    /// Returns how many bytes were moved to the remote and from it.
    pub(crate) fn moved(&self) -> Counters {
        let Traffic { sent, already_there, fetched, .. } =
            self.share.as_ref().map(Share::traffic).unwrap_or_default();
        Counters {
            bytes_fetched: fetched,
            bytes_sent: sent,
            bytes_not_sent: already_there,
            ..Counters::default()
        }
    }

    /// Writes back what was learned about the disk.
    pub(crate) fn save_memo(&mut self) {
        if let Some(bytes) = self.memo.changed() {
            self.store.save(&self.store.memo_path(), &bytes);
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("pipeline.lock")
    }

    /// Keeps that all `count` nodes of `question` are up to date, with what this was read from: the pipeline file,
    /// the lock, the sources, the shelf, the memory, and this very program.
    pub(crate) fn witness(&mut self, question: Digest, count: usize) {
        // Nobody would look for it anywhere else.
        if self.cache.dir != DEFAULT_DIR {
            return;
        }
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
    pub(crate) fn lockfile(&mut self) -> Lockfile {
        let path = self.lock_path();
        // A missing lock has no state; it is written before anything can be said to rest on it.
        let _ = self.memo.look(&path);
        fs::read_to_string(self.lock_path()).map(|text| Lockfile::parse(&text)).unwrap_or_default()
    }

    /// Writes `pipeline.lock` if it changed.
    pub(crate) fn save_lockfile(&self, lock: &Lockfile) -> anyhow::Result<()> {
        let text = lock.render();
        if fs::read_to_string(self.lock_path()).is_ok_and(|current| current == text) {
            return Ok(());
        }
        self.store.write(&self.lock_path(), text.as_bytes()).context("pipeline.lock could not be written")
    }
}

/// Makes an error that shows the place in the pipeline file.
pub(crate) fn usage(problem: &Problem, path: &Path, text: &str) -> anyhow::Error {
    UsageError(problem.render(path, text)).into()
}

fn text_digest(text: &str) -> Digest {
    Digest::of(&[&MANIFEST_FORMAT.to_le_bytes(), text.as_bytes()].concat())
}

/// Parsing ten thousand nodes of YAML takes longer than everything else a null build does; the outcome is a pure
/// function of the text, so it is remembered.
fn remembered(memo: &Memo, text: &str) -> Option<Manifest> {
    Manifest::from_bytes(memo.manifest(&text_digest(text))?)
}

fn remember(memo: &mut Memo, text: &str, manifest: &Manifest) {
    let digest = text_digest(text);
    if memo.manifest(&digest).is_none()
        && let Some(bytes) = manifest.to_bytes()
    {
        memo.remember_manifest(digest, bytes);
    }
}
