//! The decision on each node: up to date, in the cache, on record only, in the remote, stale, or waiting for
//! an input.
//! Knows nothing of threads, and runs nothing. It reads the disk, asks the remote for records, and updates
//! the local state. `build`, `build -n`, `status` and `why` all read these decisions.

mod availability;
mod changes;
mod decision;

pub use decision::{Decision, Verdict};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use availability::{Availability, CachedResult};

use crate::error::{Context, Result};
use crate::graph::{Graph, NodeId};
use crate::recipe::{Change, Recipe};
use crate::request::{OUTCOMES, WorkOutcome};
use crate::share::{LocalRecords, Share, SharePolicy};
use crate::sources::Sources;
use crate::stage::{BASE_ROLE, BackendKind, Device, FILE_ROLE, Stage};
use crate::store::{ArtifactsDir, LocalState, LocalStore, StatCache, hash_source};
use artifact::{Artifact, AtPath, Digest, FileEntry};
use report::suite::Suite;

/// Decides what to do for each node, from the graph, the disk, the local state and the remote.
pub struct Planner<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Where the sources are.
    pub sources: &'a Sources,
    /// The cache.
    pub store: &'a LocalStore,
    /// The records in it that are believed.
    pub records: LocalRecords<'a>,
    /// `artifacts/`.
    pub artifacts_dir: &'a ArtifactsDir,
    /// The local state.
    pub state: &'a mut LocalState,
    /// The remote, if there is one.
    pub share: Option<&'a Share>,
    /// The backend that computes weights.
    pub backend: BackendKind,
    /// What is asked of the nodes.
    pub request: Request,
}

impl Planner<'_> {
    /// Returns which local records of a node are believed.
    fn local_policy(&self, id: NodeId) -> SharePolicy {
        policy_here(self.graph, id)
    }

    /// Returns under what the remote has the record of a node. What a worker measured is kept under the worker's class of
    /// machine, which its outcome names. Returns `None` if no worker has answered yet.
    fn remote_policy(&self, id: NodeId, key: &Digest) -> Option<SharePolicy> {
        let policy = policy_here(self.graph, id);
        let SharePolicy::MeasuredOn(_) = policy else { return Some(policy) };
        let (text, _) = self.share?.text(OUTCOMES, key, WorkOutcome::TYPE).ok()??;
        let outcome = WorkOutcome::parse(&text, key).ok()?;
        Some(SharePolicy::MeasuredOn(outcome.machine.into()))
    }
}

/// Returns what is shared of a node, as it is looked for in a cache. A measurement of a worker is one of any class of
/// machine.
pub fn policy_here(graph: &Graph, id: NodeId) -> SharePolicy {
    match share_policy(&graph.node(id).stage) {
        SharePolicy::Measured if graph.placed(id).is_some() => SharePolicy::MeasuredOn("".into()),
        policy => policy,
    }
}

/// What is asked of nodes besides being up to date.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// These nodes run even if they are not stale.
    pub force: HashSet<NodeId>,
    /// The files of these nodes must be here. A caller names the targets; [`Planner::plan`] adds the inputs
    /// of nodes that may have to run. Of other nodes it is enough to know the digest of the artifact.
    pub materialize: HashSet<NodeId>,
    /// If the source of one of these nodes is on the hub, missing files are downloaded again. A caller lists
    /// the nodes that the user named; [`Planner::plan`] adds the inputs of nodes that may have to run.
    pub download: HashSet<NodeId>,
    /// The nodes that the user named. If one of them is temporary, its files stay.
    pub kept: HashSet<NodeId>,
    /// The artifacts that must not be made anew: the reproducible digest in the lock of each node that would come out
    /// differently.
    pub locked: HashMap<NodeId, Digest>,
}

impl Planner<'_> {
    /// Decides on `ids`, which must be in an order with inputs first. Runs nothing. If a node that may have
    /// to run reads files that are not here, the plan is made again with these files required.
    ///
    /// # Errors
    /// Fails if a source cannot be read.
    pub fn plan(&mut self, ids: &[NodeId]) -> Result<Vec<Decision>> {
        let mut recorded = HashSet::new();
        loop {
            let decisions = self.plan_once(ids, &recorded)?;
            let absent = self.read_but_absent(&decisions);
            if absent.is_empty() {
                return Ok(decisions);
            }
            let is_recorded = |decision: &&Decision| decision.verdict == Verdict::Recorded;
            recorded.extend(decisions.iter().filter(is_recorded).map(|decision| decision.id));
            self.materialize(&absent);
        }
    }

    /// Requires the files of these nodes to be here.
    pub fn materialize(&mut self, ids: &[NodeId]) {
        self.request.download.extend(ids);
        self.request.materialize.extend(ids);
    }

    /// Decides on each node once. The artifacts of the nodes in `recorded` are known, even if these nodes
    /// must run because their files are needed.
    fn plan_once(&mut self, ids: &[NodeId], recorded: &HashSet<NodeId>) -> Result<Vec<Decision>> {
        let mut made: Vec<Option<Artifact>> = vec![None; self.graph.len()];
        let mut decisions = Vec::with_capacity(ids.len());
        self.artifacts_dir.observe(&mut self.state.stats);
        for &id in ids {
            let decision = self.decide(id, &|input| made[input.index()].as_ref())?;
            if !decision.is_stale() || recorded.contains(&id) {
                made[id.index()] = decision.artifact.clone();
            }
            decisions.push(decision);
        }
        Ok(decisions)
    }

    /// Decides on one node. `made` returns the artifact of an input, or `None` if the input must run first.
    ///
    /// # Errors
    /// Fails if its source cannot be read.
    pub fn decide<'m>(
        &mut self,
        id: NodeId,
        made: &dyn Fn(NodeId) -> Option<&'m Artifact>,
    ) -> Result<Decision> {
        if let Some(source) = self.sources.unresolved(self.graph, id) {
            let (repo, revision) = (source.repo.clone(), source.revision.clone());
            return Ok(Decision::new(id, Verdict::Stale, vec![Change::Unresolved { repo, revision }]));
        }
        let missing = self.sources.missing(self.graph, id);
        if let Some(path) = missing.filter(|_| self.sources.content(id).is_none()) {
            let path = path.to_owned();
            return Ok(Decision::new(id, Verdict::Stale, vec![Change::SourceMissing { path }]));
        }
        let source_files = if missing.is_some() { None } else { self.source_files(id)? };
        let recipe = self.recipe(id, source_files.as_ref(), made)?;
        // The inputs that the pipeline file does not name are ancestors of those that it names, so they are
        // done before.
        let inputs = self.graph.written_inputs(id).map(|(_, input)| input);
        let mut waits_for: Vec<_> = inputs.filter(|input| made(*input).is_none()).collect();
        if waits_for.is_empty() {
            return Ok(self.decide_known(id, recipe, source_files));
        }
        waits_for.dedup();
        let changes = self.known_changes(id, &recipe, source_files.as_ref());
        Ok(Decision { waits_for, source_files, ..Decision::new(id, Verdict::Waits, changes) })
    }

    /// Returns the recipe of a node, as far as its inputs are known.
    fn recipe<'m>(
        &mut self,
        id: NodeId,
        source_files: Option<&Artifact>,
        made: &dyn Fn(NodeId) -> Option<&'m Artifact>,
    ) -> Result<Recipe> {
        let stage = &self.graph.node(id).stage;
        let origin = match stage {
            Stage::Benchmark(_) | Stage::Probe(_) | Stage::Run(_) => None,
            _ => self.sources.origin(self.graph, id),
        };
        let mut inputs = BTreeMap::new();
        for (input, node) in self.graph.edges(id) {
            let content = |artifact: &Artifact| {
                // Of a folder inside an artifact, only its own files count.
                let read = input.path.as_ref().map_or_else(|| artifact.clone(), |path| artifact.below(path));
                // A command may read all files, also those that differ from run to run.
                if matches!(stage, Stage::Run(_)) { read.digest() } else { read.reproducible_digest() }
            };
            inputs.extend(made(node).map(|artifact| (input.role.clone(), content(artifact))));
        }
        for (name, path) in self.sources.project_files(id) {
            let digest = self.state.stats.digest_of(path).at("read", path);
            let (digest, _) = digest.within(|| format!("node `{}`", self.graph.node(id).name))?;
            inputs.insert(format!("{FILE_ROLE}{name}"), digest);
        }
        let source = match (source_files, &origin) {
            (Some(files), _) => Some(files.digest()),
            (None, Some(origin)) if stage.is_reference() => Some(Digest::of(origin.to_string().as_bytes())),
            // It is on disk, and not there now.
            (None, _) if stage.is_reference() => self.sources.content(id),
            _ => None,
        };
        inputs.extend(source.map(|digest| ("source".to_owned(), digest)));
        let is_measured = self.graph.inputs(id).any(|(role, _)| role == BASE_ROLE);
        Ok(Recipe::new(stage.clone(), stage.backend(self.backend), inputs, is_measured).with_origin(origin))
    }

    /// Hashes the source of a node, if it is on disk. A source on the hub is identified by its commit
    /// instead.
    fn source_files(&mut self, id: NodeId) -> Result<Option<Artifact>> {
        let Some(path) = self.sources.path(self.graph, id) else { return Ok(None) };
        if self.sources.own_origin(self.graph, id).is_some() {
            return Ok(None);
        }
        let files = match self.graph.node(id).stage {
            Stage::Benchmark(_) => hash_suite(&path, &mut self.state.stats),
            _ => hash_source(&path, &mut self.state.stats),
        };
        files.map(Some).within(|| format!("node `{}`", self.graph.node(id).name))
    }

    /// Decides on a node whose recipe is known.
    fn decide_known(&mut self, id: NodeId, recipe: Recipe, source_files: Option<Artifact>) -> Decision {
        let key = recipe.key();
        let is_forced = self.request.force.contains(&id);
        let locked = self.request.locked.get(&id).copied();
        let is_meant = |result: &CachedResult| {
            locked.is_none_or(|locked| result.artifact.reproducible_digest() == locked)
        };
        let mut cached = self.cached_result(id, &key).filter(is_meant);
        if cached.is_none() && !is_forced {
            cached = self.shared_result(id, &key, source_files.as_ref()).filter(is_meant);
        }
        let missing = self.sources.missing(self.graph, id);
        let missing = missing.map(|path| Change::SourceMissing { path: path.to_owned() });
        let availability = match cached {
            // What is on record is enough for the nodes below, unless one of them must run.
            Some(cached) if missing.is_some() => Availability::new(Verdict::Recorded, missing, Some(cached)),
            None if missing.is_some() => Availability::new(Verdict::Stale, missing, None),
            cached if is_forced => Availability::new(Verdict::Stale, Some(Change::Forced), cached),
            None => Availability::new(Verdict::Stale, None, None),
            Some(cached) => self.availability(id, &key, cached),
        };
        let changes = self.reasons(id, &recipe, source_files.as_ref(), &availability);
        let Availability { verdict, edited, result, .. } = availability;
        let (artifact, failure) = match result {
            Some(CachedResult { artifact, failure }) => (Some(artifact), failure),
            None => (None, None),
        };
        let decision = Decision::new(id, verdict, changes);
        Decision { edited, recipe: Some(recipe), key: Some(key), artifact, failure, source_files, ..decision }
    }

    /// Returns the reasons for the verdict on a node whose recipe is known; none if the recipe did not
    /// change.
    fn reasons(
        &self,
        id: NodeId,
        recipe: &Recipe,
        source_files: Option<&Artifact>,
        availability: &Availability,
    ) -> Vec<Change> {
        if let Some(change) = &availability.change {
            return vec![change.clone()];
        }
        let built = self.state.nodes.get(&self.graph.node(id).name);
        let is_unchanged = built.is_some_and(|built| built.key == recipe.key());
        if availability.verdict == Verdict::Fresh || (is_unchanged && availability.result.is_some()) {
            return Vec::new();
        }
        let mut changes = self.changes(id, recipe, source_files);
        let log = self.store.log_path(&recipe.key());
        if matches!(recipe.stage(), Stage::Run(_)) && availability.result.is_none() && log.exists() {
            changes.push(Change::CommandFailed { log });
        }
        if availability.verdict != Verdict::Stale {
            let never =
                |change: &Change| matches!(change, Change::NeverBuilt | Change::NeverDownloaded { .. });
            changes.retain(|change| !never(change));
        } else if changes.is_empty() {
            changes.push(Change::RecordLost);
        }
        changes
    }

    /// Returns the nodes whose files are not here, but are read by a node that may have to run.
    fn read_but_absent(&self, decisions: &[Decision]) -> Vec<NodeId> {
        let absent = |decision: &&Decision| match decision.verdict {
            Verdict::Recorded => !decision.lacks_source(),
            Verdict::Fresh | Verdict::Cached => decision.lacks_download(),
            Verdict::Remote | Verdict::Stale | Verdict::Waits => false,
        };
        let absent: Vec<_> = decisions.iter().filter(absent).map(|decision| decision.id).collect();
        if absent.is_empty() {
            return absent;
        }
        // A worker brings its inputs from the remote.
        let runs_here =
            |decision: &&Decision| decision.is_stale() && self.graph.placed(decision.id).is_none();
        let stale = decisions.iter().filter(runs_here);
        let read: HashSet<_> =
            stale.flat_map(|decision| self.graph.inputs(decision.id).map(|(_, input)| input)).collect();
        absent.into_iter().filter(|id| read.contains(id)).collect()
    }
}

/// Returns which parts of the actions of a stage are shared.
pub fn share_policy(stage: &Stage) -> SharePolicy {
    match stage {
        Stage::Base | Stage::Adapter | Stage::Files => SharePolicy::Source,
        Stage::Fuse(_) | Stage::Quantize(_) | Stage::Probe(_) | Stage::Run(_) => SharePolicy::Made,
        // The CPU runtime gives the same results everywhere. Times are those of a machine.
        Stage::Benchmark(benchmark) if benchmark.runs_on == Device::Cpu && !benchmark.judges_timings() => {
            SharePolicy::Made
        }
        Stage::Benchmark(_) => SharePolicy::Measured,
    }
}

/// Hashes a suite, and the files with texts that it names. A file that is not there is left out: the suite says so when
/// it is read.
fn hash_suite(suite: &Path, stats: &mut StatCache) -> Result<Artifact> {
    let mut files = hash_source(suite, stats)?.files().to_vec();
    for (name, path) in Suite::files(suite) {
        if let (Ok((digest, _)), Ok(metadata)) = (stats.digest_of(&path), fs::metadata(&path)) {
            let path = name.to_string_lossy().into_owned();
            files.push(FileEntry { digest, path, size: metadata.len(), volatile: false });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(Artifact::new(files))
}
