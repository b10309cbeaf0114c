//! Where the result of a known recipe is: in `artifacts/`, in the cache, in the remote, on record only, or
//! nowhere.
//! Knows nothing of why a recipe changed.

use super::{Planner, Verdict};
use crate::graph::NodeId;
use crate::recipe::{Change, Recipe};
use crate::store::{Action, ArtifactState, Damage};
use artifact::{Artifact, Digest, FileEntry};

/// What is recorded under a key.
pub(super) struct CachedResult {
    pub(super) artifact: Artifact,
    /// Why the node fails although the artifact was made.
    pub(super) failure: Option<String>,
}

impl From<Action> for CachedResult {
    fn from(action: Action) -> Self {
        Self { artifact: action.artifact, failure: action.failure }
    }
}

/// Where a result is, and the verdict that follows.
pub(super) struct Availability {
    pub(super) verdict: Verdict,
    /// A file that was changed by hand, relative to the artifact.
    pub(super) edited: Option<String>,
    /// The reason for the verdict, if it is not a change of the recipe.
    pub(super) change: Option<Change>,
    pub(super) result: Option<CachedResult>,
}

impl Availability {
    pub(super) fn new(verdict: Verdict, change: Option<Change>, result: Option<CachedResult>) -> Self {
        Self { verdict, edited: None, change, result }
    }
}

impl Planner<'_> {
    /// Returns what is recorded on this machine under `key`.
    pub(super) fn cached_result(&self, id: NodeId, key: &Digest) -> Option<CachedResult> {
        let node = self.graph.node(id);
        let built = self.state.nodes.get(&node.name).filter(|built| built.key == *key);
        let result = match built.filter(|_| !self.records.are_strict()) {
            Some(built) => CachedResult { artifact: built.artifact.clone(), failure: built.failure.clone() },
            None => self.records.get(key, &self.local_policy(id))?.into(),
        };
        node.stage.check_volatile(&result.artifact).is_ok().then_some(result)
    }

    /// Returns what is recorded in the remote under `key`. If `source_files` are given and the node's
    /// artifact is its source, the record must have the same files.
    pub(super) fn shared_result(
        &self,
        id: NodeId,
        key: &Digest,
        source_files: Option<&Artifact>,
    ) -> Option<CachedResult> {
        let stage = &self.graph.node(id).stage;
        let action = self.share?.record(key, &self.remote_policy(id, key)?)?;
        // The signature only shows who made the record. That its recipe has this key is checked here.
        let recipe = Recipe::read(&action.recipe)?;
        if let Err(problem) = stage.check_volatile(&action.artifact) {
            self.share?.refuse(key, problem.to_string());
            return None;
        }
        let own_files = source_files.filter(|_| stage.is_reference());
        let is_same = own_files.is_none_or(|files| files.digest() == action.artifact.digest());
        (recipe.key() == *key && is_same).then(|| CachedResult::from(action))
    }

    /// Finds out where a known result is, and returns the verdict.
    pub(super) fn availability(&mut self, id: NodeId, key: &Digest, result: CachedResult) -> Availability {
        if self.sources.target(self.graph, id).is_some() {
            return self.availability_of_source(id, result);
        }
        let name = &self.graph.node(id).name;
        let state = self.artifacts_dir.state(name, &result.artifact, &mut self.state.stats);
        let edited = match state {
            ArtifactState::InPlace => return Availability::new(Verdict::Fresh, None, Some(result)),
            ArtifactState::Absent => None,
            ArtifactState::Edited(path) => Some(path),
        };
        // Nobody needs it, so it is not linked, although its files may be here for another node.
        if self.graph.node(id).temporary && !self.request.materialize.contains(&id) {
            return Availability::new(Verdict::Recorded, None, Some(result));
        }
        let mut files = result.artifact.files().iter();
        match files.find_map(|file| self.store.check(file, &mut self.state.stats).err()) {
            None => Availability { edited, ..Availability::new(Verdict::Cached, None, Some(result)) },
            Some(damage) => {
                let availability = self.availability_elsewhere(id, key, result, &damage);
                let edited = edited.filter(|_| availability.verdict == Verdict::Stale);
                Availability { edited, ..availability }
            }
        }
    }

    /// Returns the verdict on a node whose artifact is its source.
    fn availability_of_source(&mut self, id: NodeId, result: CachedResult) -> Availability {
        let absent = self.absent_file(id, &result.artifact).map(|path| Change::NotDownloaded { path });
        if absent.is_some() && self.request.download.contains(&id) {
            return Availability::new(Verdict::Stale, absent, Some(result));
        }
        let target = self.sources.target(self.graph, id);
        let links_there =
            |target: &std::path::PathBuf| self.artifacts_dir.links_to(&self.graph.node(id).name, target);
        let verdict = if target.as_ref().is_some_and(links_there) { Verdict::Fresh } else { Verdict::Cached };
        Availability::new(verdict, absent, Some(result))
    }

    /// Returns the verdict on a node whose files are missing or damaged in the cache.
    fn availability_elsewhere(
        &self,
        id: NodeId,
        key: &Digest,
        result: CachedResult,
        damage: &Damage,
    ) -> Availability {
        let is_missing = matches!(damage, Damage::Missing { .. });
        if is_missing && !self.request.materialize.contains(&id) {
            return Availability::new(Verdict::Recorded, None, Some(result));
        }
        let damaged = Change::Damaged { problem: damage.to_string() };
        let shared = self.shared_result(id, key, None);
        if let Some(shared) = shared.filter(|_| self.share.is_some_and(|share| !share.is_down())) {
            let change = Some(damaged).filter(|_| !is_missing);
            return Availability::new(Verdict::Remote, change, Some(shared));
        }
        let was_shared = self.share.is_some() || self.store.attestation(key).is_some();
        let change = match is_missing {
            true if self.graph.node(id).temporary => Change::Temporary,
            true if was_shared => Change::FilesLost,
            _ => damaged,
        };
        Availability::new(Verdict::Stale, Some(change), Some(result))
    }

    /// Returns a file from the hub that was downloaded, but is gone or was altered.
    fn absent_file(&mut self, id: NodeId, artifact: &Artifact) -> Option<String> {
        self.sources.own_origin(self.graph, id)?;
        let folder = self.sources.path(self.graph, id)?;
        // The folder is observed before its files: if a file is replaced in between, the state of the folder
        // shows it.
        let _ = self.state.stats.observe(&folder);
        let mut is_there = |file: &FileEntry| {
            self.state.stats.has_content(&folder.join(&file.path), &file.digest, file.size)
        };
        artifact.files().iter().find(|file| !is_there(file)).map(|file| file.path.clone())
    }
}
