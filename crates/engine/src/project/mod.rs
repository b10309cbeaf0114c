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
mod open;
mod plan;
mod preflight;
mod prompts;
mod resolve;
mod results;
mod text_file;
mod transfer;
mod up_to_date;
mod verify;
mod work;
mod workers;

pub use build::{BuildOptions, BuildOutcome, Revisions};
pub use connect::RemoteChoice;
pub use gc::{GcOptions, RemoteGcOptions};
pub use open::ProjectPath;
pub use plan::{Plan, PlanOptions};
pub use results::LastRun;
pub use text_file::read as read_text;
pub use transfer::{PullOutcome, PushOutcome, TransferOptions};
pub use up_to_date::nodes_up_to_date;
pub use verify::{Attestation, DamagedObject, StoreVerification, VerifyOptions};
pub use work::{WorkListener, WorkOptions};
pub use workers::{Placing, WorkerJob};

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use crate::Error;
use crate::error::Result;
use crate::graph::{Graph, NodeId};
use crate::manifest::Cache;
use crate::paths;
use crate::plan::{Planner, Request};
use crate::share::{Believed, LocalRecords, Share, Traffic};
use crate::sign::{PublicKey, Signer, signer};
use crate::sources::Sources;
use crate::stage::{BackendKind, WorkerProgram};
use crate::store::{ArtifactsDir, Counters, LocalState, LocalStore};
use text::yaml::Problem;
use workers::Workers;

/// Increased when [`Manifest`] changes, so that an older encoded one is not misread.
const MANIFEST_FORMAT: u32 = 10;

/// The folder with a name for each node.
const ARTIFACTS: &str = "artifacts";

/// A cancel flag that is never set, for callers that do not cancel.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

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
    /// The workers that nodes may be placed on: first those of the user, then those of the pipeline file.
    workers: Workers,
    /// When it was opened. Everything else was read later.
    opened: SystemTime,
}

impl Project {
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

/// Makes an error that shows the place of a problem in the text of the file at `path`. If the file is a link
/// that leads out of its folder, nothing of it is shown: it may be a file that must not be read here.
pub fn usage(problem: &Problem, path: &Path, text: &str) -> Error {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Error::Usage(match paths::is_inside(path, folder) {
        true => problem.render(path, text),
        false => problem.without_quotes().render_without_text(path),
    })
}
