//! A project on disk, and all operations on it: plan, build, verify, push, pull, collect garbage.
//! Knows nothing of the command line. A caller gets return values, and events while something runs.
//!
//! ```text
//! open    the pipeline file, checked               plan    what a build would do, and why
//! build   run what is stale, lock it, share it     verify  build again and compare; check hashes, signatures
//! push    upload to the remote                     pull    download from the remote
//! gc      remove what is not current, from the cache or from the remote
//! ```

mod build;
mod connect;
mod gc;
mod lock;
mod plan;
mod preflight;
mod resolve;
mod text_file;
mod transfer;
mod up_to_date;
mod verify;

pub use build::{BuildOptions, BuildOutcome, Revisions};
pub use connect::RemoteChoice;
pub use gc::{GcOptions, RemoteGcOptions};
pub use plan::{Plan, PlanOptions};
pub use text_file::read as read_text;
pub use transfer::{PullOutcome, PushOutcome, TransferOptions};
pub use up_to_date::nodes_up_to_date;
pub use verify::{Attestation, DamagedObject, StoreVerification, VerifyOptions};

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use crate::Error;
use crate::error::{Result, fail, require};
use crate::graph::{Graph, NodeId};
use crate::manifest::{self, Cache, DEFAULT_DIR, Manifest, TrustedKey};
use crate::paths;
use crate::plan::{Planner, Request};
use crate::share::{Believed, LocalRecords, Share, Traffic};
use crate::sign::{PublicKey, Signer, signer};
use crate::sources::Sources;
use crate::stage::{BackendKind, WorkerProgram};
use crate::store::{ArtifactsDir, Counters, LocalState, LocalStore, Stat, read_checked};
use text::yaml::Problem;

/// Increased when [`Manifest`] changes, so that an older encoded one is not misread.
const MANIFEST_FORMAT: u32 = 4;

/// The folder with a name for each node.
const ARTIFACTS: &str = "artifacts";

/// A cancel flag that is never set, for callers that do not cancel.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// Where a project is.
#[derive(Clone, Debug)]
pub struct ProjectPath {
    /// The folder that `file` is relative to; if `None`, the current one.
    pub folder: Option<PathBuf>,
    /// The pipeline file.
    pub file: PathBuf,
    /// A file with the keys that are trusted, relative to the current folder. They come before those in the
    /// pipeline file, which a change under review may have edited.
    pub trusted_keys: Option<PathBuf>,
}

impl ProjectPath {
    /// Returns the path of the project whose `pipeline.yaml` is in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), file: PathBuf::from("pipeline.yaml"), trusted_keys: None }
    }

    /// Returns the path of the pipeline file as the user would write it.
    pub fn path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| self.file.clone(), |folder| folder.join(&self.file))
    }

    /// Creates the default cache and `artifacts/`, which git is told to ignore.
    ///
    /// # Errors
    /// Fails if one of them cannot be written, or if there is something else.
    pub fn make_folders(&self) -> Result<()> {
        let root = self.root();
        LocalStore::new(root.join(DEFAULT_DIR)).make_folders()?;
        ArtifactsDir::new(root.join(ARTIFACTS)).prepare()
    }

    /// Returns the folder of the pipeline file.
    fn root(&self) -> PathBuf {
        self.path().parent().map_or_else(PathBuf::new, Path::to_owned)
    }
}

/// An opened project.
pub struct Project {
    /// The folder of the pipeline file.
    root: PathBuf,
    path: PathBuf,
    text: String,
    cache: Cache,
    graph: Graph,
    sources: Sources,
    store: LocalStore,
    artifacts_dir: ArtifactsDir,
    state: LocalState,
    /// Whether the caller named the keys that are trusted, and not the pipeline file.
    keys_are_given: bool,
    /// Which local records count; `None` if all do.
    believed: Option<Believed>,
    /// The remote, once it is connected; `None` if there is none.
    share: Option<Share>,
    worker: WorkerProgram,
    /// When it was opened. Everything else was read later.
    opened: SystemTime,
}

impl Project {
    /// Opens the project at `path` and checks its pipeline file. Nothing is written.
    ///
    /// # Errors
    /// Fails if the pipeline file cannot be read or is wrong, if a source contains the cache or `artifacts/` or
    /// lies in them, if the cache may not be used, or if sources on the hub, or sources that are not here, need
    /// a lock that cannot be read.
    pub fn open(path: &ProjectPath) -> Result<Self> {
        let trusted_keys = path.trusted_keys.clone();
        let (root, path) = (path.root(), path.path());
        require!(
            path.extension().is_none_or(|extension| extension != "lock"),
            Usage,
            "{} is the name of a lock; a pipeline file has another",
            path.display()
        );
        let (opened, stat) = (SystemTime::now(), Stat::at(&path));
        let text = text_file::read(&path).map_err(|error| {
            let hint = "`pipeline init` writes one, -C and -f name another";
            Error::Usage(format!("cannot read {}: {error}; {hint}", path.display()))
        })?;
        // The local state is in the cache, and the pipeline file says where the cache is. So the default
        // place is tried first.
        let default = LocalStore::new(root.join(DEFAULT_DIR));
        let mut state = LocalState::load(&default.state_path(), default.secret());
        let manifest = match remembered(&state, &text) {
            Some(manifest) => manifest,
            None => Manifest::parse(&text).map_err(|problem| usage(&problem, &path, &text))?,
        };
        let mut cache = manifest.cache.clone();
        if let Some(file) = &trusted_keys {
            cache.trusted_keys = read_keys(file)?;
        }
        let store = if cache.dir == DEFAULT_DIR { default } else { store_in(&root, &cache.dir, &path)? };
        store.check_folder()?;
        if cache.dir != DEFAULT_DIR {
            state = LocalState::load(&store.state_path(), store.secret());
        }
        remember(&mut state, &text, &manifest);
        if let Ok(stat) = stat {
            state.stats.log(&path, stat);
        }
        let graph = Graph::check(manifest).map_err(|problem| usage(&problem, &path, &text))?;
        let artifacts_dir = ArtifactsDir::new(root.join(ARTIFACTS));
        artifacts_dir.check()?;
        let outputs = [store.root().to_owned(), root.join(ARTIFACTS)];
        let sources = Sources::new(root.clone(), &graph, &outputs);
        let sources = sources.map_err(|problem| usage(&problem, &path, &text))?;
        let worker = WorkerProgram::default();
        let mut project = Self {
            root,
            path,
            text,
            cache,
            graph,
            sources,
            store,
            artifacts_dir,
            state,
            keys_are_given: trusted_keys.is_some(),
            believed: None,
            share: None,
            worker,
            opened,
        };
        project.use_locked_sources()?;
        Ok(project)
    }

    /// Uses the worker program at `path`, whatever `PIPELINE_WORKER` says.
    #[must_use]
    pub fn with_worker(self, path: impl Into<PathBuf>) -> Self {
        Self { worker: WorkerProgram::at(path.into()), ..self }
    }

    /// Returns the graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the folder of the pipeline file.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of the pipeline file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the `cache` section of the pipeline file.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Returns the cache on disk.
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// Resolves the names of targets. No names mean all nodes.
    ///
    /// # Errors
    /// Fails if a name is not a node.
    pub fn targets(&self, names: &[String]) -> Result<Vec<NodeId>> {
        if names.is_empty() {
            return Ok(self.graph.order().to_vec());
        }
        let found = names.iter().map(|name| self.graph.find(name));
        found.collect::<Result<_, _>>().map_err(|unknown| Error::Usage(unknown.to_string()))
    }

    /// Reads a file that the last build of `node` here made. What lies in `artifacts/` counts only if it is that
    /// file.
    ///
    /// # Errors
    /// Fails if the node was not built here, makes no such file, or if the file is gone or was altered.
    pub fn read_built(&self, node: &str, file: &str) -> Result<Vec<u8>> {
        let built = self.state.nodes.get(node);
        let entry = built.and_then(|built| Some((built, built.artifact.file(file)?)));
        let Some((built, entry)) = entry else {
            fail!(NotBuilt, "there is no result of `{node}` yet; `pipeline build {node}` makes it");
        };
        let path = self.artifacts_dir.folder(node, &built.artifact).join(file);
        match read_checked(&path, &entry.digest) {
            Ok(bytes) => Ok(bytes),
            Err(_) => Ok(self.store.read_content(&entry.digest)?),
        }
    }

    /// Returns how many bytes were transferred to and from the remote since it was connected.
    pub fn traffic(&self) -> Traffic {
        self.share.as_ref().map(Share::traffic).unwrap_or_default()
    }

    /// Returns the keys that are trusted, the user's own included.
    fn trusted(&self) -> Result<Vec<PublicKey>> {
        let own = signer()?.map(Signer::public);
        Ok(self.cache.trusted_keys.iter().map(|trusted| trusted.key).chain(own).collect())
    }

    /// Makes an error that shows the place in the pipeline file.
    fn problem(&self, problem: &Problem) -> Error {
        usage(problem, &self.path, &self.text)
    }

    /// Takes the commits of the sources on the hub, and what is known of sources that are not here, from the
    /// lock. If all sources are here, the lock is not read.
    fn use_locked_sources(&mut self) -> Result<()> {
        let Self { graph, sources, .. } = self;
        let mut ids = graph.order().iter().copied();
        if ids.any(|id| sources.unresolved(graph, id).is_some() || sources.missing(graph, id).is_some()) {
            let lock = self.lockfile()?;
            self.sources.use_locked(&self.graph, &lock);
        }
        Ok(())
    }

    /// Returns the error for a source that is not there but needed.
    fn missing_source(&self, id: NodeId, path: &str) -> Error {
        let node = self.graph.node(id);
        let at = node.source.as_ref().map_or(node.at, |source| source.at);
        let message = format!("the source `{path}` of node `{}` does not exist", node.name);
        self.problem(&Problem::new(at, message))
    }

    /// Returns the planner of this project.
    fn planner(&mut self, backend: BackendKind, request: Request) -> Planner<'_> {
        let Self { graph, sources, store, artifacts_dir, state, believed, share, .. } = self;
        let (records, share) = (LocalRecords::new(store, believed.as_ref()), share.as_ref());
        Planner { graph, sources, store, records, artifacts_dir, state, share, backend, request }
    }

    /// Returns the bytes that were transferred to and from the remote, for the counters.
    fn moved(&self) -> Counters {
        let Traffic { sent, already_there, fetched, .. } = self.traffic();
        Counters {
            bytes_fetched: fetched,
            bytes_sent: sent,
            bytes_not_sent: already_there,
            ..Counters::default()
        }
    }

    /// Writes the local state, if it changed.
    fn save_state(&mut self) {
        if let Some(bytes) = self.state.changed(self.store.secret()) {
            self.store.put_cache_file(&self.store.state_path(), &bytes);
        }
    }
}

/// Returns the cache in the folder that `cache.dir` of the pipeline file names.
fn store_in(root: &Path, dir: &str, file: &Path) -> Result<LocalStore> {
    let dir = paths::expand(dir);
    let dir = dir.map_err(|error| Error::Usage(format!("{}: `cache.dir`: {error}", file.display())))?;
    Ok(LocalStore::new(root.join(dir)))
}

/// Reads a file of trusted keys: a mapping as in `cache: {trusted_keys: …}`. Nothing of it is quoted, because it
/// may be a file that holds something else.
fn read_keys(file: &Path) -> Result<Vec<TrustedKey>> {
    let wrong = |problem: String| Error::Usage(format!("the trusted keys in {}: {problem}", file.display()));
    let text = text_file::read(file).map_err(|error| wrong(error.to_string()))?;
    manifest::read_trusted_keys(&text).map_err(|Problem { at, .. }| {
        let form = "a mapping of names to keys, as `cache: {trusted_keys: …}` in pipeline.yaml";
        wrong(format!("line {} is not part of {form}", at.line))
    })
}

/// Makes an error that shows the place of a problem in the text of the file at `path`. If the file is a link
/// that leads out of its folder, nothing of it is shown: it may be a file that must not be read here.
pub fn usage(problem: &Problem, path: &Path, text: &str) -> Error {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Error::Usage(match paths::is_inside(path, folder) {
        true => problem.render(path, text),
        false => problem.without_quotes().render_without_text(path),
    })
}

fn text_digest(text: &str) -> artifact::Digest {
    artifact::Digest::of(&[&MANIFEST_FORMAT.to_le_bytes(), text.as_bytes()].concat())
}

/// Returns the manifest that was kept for `text`. Parsing ten thousand nodes of YAML takes longer than
/// everything else in a build that has nothing to do. The manifest depends on the text alone, so the local
/// state keeps it.
fn remembered(state: &LocalState, text: &str) -> Option<Manifest> {
    Manifest::from_bytes(state.manifest(&text_digest(text))?)
}

fn remember(state: &mut LocalState, text: &str, manifest: &Manifest) {
    let digest = text_digest(text);
    if state.manifest(&digest).is_none()
        && let Some(bytes) = manifest.to_bytes()
    {
        state.set_manifest(digest, bytes);
    }
}
