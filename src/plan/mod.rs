//! The verdict on each node: in place, in the cache, stale and why, or waiting for an input.
//! Knows nothing of threads and runs nothing. `build`, `build -n`, `status` and `why` all read these decisions.

mod changes;

use std::collections::{BTreeMap, HashSet};

use anyhow::Context;
use serde::Serialize;

use crate::artifact::{Artifact, FileEntry};
use crate::backend::BackendKind;
use crate::digest::Digest;
use crate::graph::{Graph, NodeId};
use crate::recipe::{Change, Recipe};
use crate::sources::Sources;
use crate::stage::Stage;
use crate::store::{LocalStore, Memo, Shelf, ShelfState, take_stock};

/// What is to be done for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing: its artifact is in place.
    Fresh,
    /// It was made before; only the link in `artifacts/` is missing, old or was edited.
    Cached,
    /// It must run.
    Stale,
    /// An input must run first; whether this node must depends on what comes out.
    Waits,
}

/// The decision on one node, and its grounds.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The node.
    pub id: NodeId,
    /// What is to be done.
    pub verdict: Verdict,
    /// What changed since it was last built here; for a node that waits, as far as is known.
    pub changes: Vec<Change>,
    /// The inputs that it waits for.
    pub waits_for: Vec<NodeId>,
    /// A file of its artifact that was changed by hand, relative to the artifact.
    pub edited: Option<String>,
    /// Its recipe, unless it waits or its source is not resolved.
    pub recipe: Option<Recipe>,
    /// The key of the recipe.
    pub key: Option<Digest>,
    /// What it made, if that is known.
    pub artifact: Option<Artifact>,
    /// Why it fails although that was made.
    pub failure: Option<String>,
    /// The files of its source, if it has one that is not on the hub.
    pub stock: Option<Artifact>,
}

impl Decision {
    /// A decision on a node of which more is known later.
    fn undecided(id: NodeId, verdict: Verdict, changes: Vec<Change>) -> Self {
        Self {
            id,
            verdict,
            changes,
            waits_for: Vec::new(),
            edited: None,
            recipe: None,
            key: None,
            artifact: None,
            failure: None,
            stock: None,
        }
    }

    /// Whether something must be done for the node, or may have to be.
    pub fn is_stale(&self) -> bool {
        matches!(self.verdict, Verdict::Stale | Verdict::Waits)
    }
}

/// Decides, from the graph, the disk and the memory of both.
pub struct Planner<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Where the sources lie.
    pub sources: &'a Sources,
    /// The cache.
    pub store: &'a LocalStore,
    /// `artifacts/`.
    pub shelf: &'a Shelf,
    /// What is remembered of both.
    pub memo: &'a mut Memo,
    /// What weights are computed with.
    pub backend: BackendKind,
    /// What is asked of the nodes.
    pub asked: Asked,
}

/// What is asked of nodes beyond being up to date.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// They run whether they are stale or not.
    pub forced: HashSet<NodeId>,
    /// If their source is on the hub, its files must be there: the user named them, or, as [`Planner::plan`] finds
    /// out, another node that may have to run reads them. Files that nobody reads are not downloaded again.
    pub wanted: HashSet<NodeId>,
}

impl Planner<'_> {
    /// Decides on `ids`, each after its inputs, without running anything.
    pub fn plan(&mut self, ids: &[NodeId]) -> anyhow::Result<Vec<Decision>> {
        let decisions = self.plan_once(ids)?;
        let needed = self.needed(&decisions);
        if needed.is_empty() {
            return Ok(decisions);
        }
        self.asked.wanted.extend(needed);
        self.plan_once(ids)
    }

    fn plan_once(&mut self, ids: &[NodeId]) -> anyhow::Result<Vec<Decision>> {
        let mut made: Vec<Option<Digest>> = vec![None; self.graph.len()];
        let mut decisions = Vec::with_capacity(ids.len());
        self.shelf.look(self.memo);
        for &id in ids {
            let decision = self.decide(id, &|input| made[input.index()])?;
            if !decision.is_stale() {
                made[id.index()] = decision.artifact.as_ref().map(Artifact::reproducible_digest);
            }
            decisions.push(decision);
        }
        Ok(decisions)
    }

    /// Decides on one node. `made` gives the digest of an input's content, or nothing if it must be made first.
    pub fn decide(
        &mut self,
        id: NodeId,
        made: &dyn Fn(NodeId) -> Option<Digest>,
    ) -> anyhow::Result<Decision> {
        let node = self.graph.node(id);
        if let Some(source) = self.sources.unresolved(self.graph, id) {
            let (repo, revision) = (source.repo.clone(), source.revision.clone());
            return Ok(Decision::undecided(id, Verdict::Stale, vec![Change::Unresolved { repo, revision }]));
        }
        let origin = match node.stage {
            Stage::Benchmark(_) => None,
            _ => self.sources.origin(self.graph, id),
        };
        let stock = self.stock(id)?;
        let mut inputs = BTreeMap::new();
        let mut waits_for = Vec::new();
        for (role, input) in self.graph.inputs(id) {
            inputs.extend(made(input).map(|digest| (role.to_owned(), digest)));
        }
        // The inputs that are not written are waited for by those that are.
        let waited_for = self.graph.written_inputs(id).map(|(_, input)| input);
        waits_for.extend(waited_for.filter(|input| made(*input).is_none()));
        if let Some(stock) = &stock {
            inputs.insert("source".to_owned(), stock.digest());
        } else if node.stage.is_reference()
            && let Some(origin) = &origin
        {
            inputs.insert("source".to_owned(), Digest::of(origin.to_string().as_bytes()));
        }
        let recipe = Recipe::new(node.stage.clone(), node.stage.backend(self.backend), inputs);
        let recipe = recipe.with_origin(origin);
        if waits_for.is_empty() {
            return self.judge(id, recipe, stock);
        }
        waits_for.dedup();
        let changes = self.own_changes(id, &recipe, stock.as_ref());
        Ok(Decision { waits_for, stock, ..Decision::undecided(id, Verdict::Waits, changes) })
    }

    /// Takes stock of a source that may change at any time. What is at a commit on the hub is known by its name.
    fn stock(&mut self, id: NodeId) -> anyhow::Result<Option<Artifact>> {
        let Some(path) = self.sources.path(self.graph, id) else { return Ok(None) };
        if self.sources.own_origin(self.graph, id).is_some() {
            return Ok(None);
        }
        let stock = take_stock(&path, self.memo);
        stock.map(Some).with_context(|| format!("node `{}`", self.graph.node(id).name))
    }

    /// Decides on a node whose recipe is known.
    fn judge(&mut self, id: NodeId, recipe: Recipe, stock: Option<Artifact>) -> anyhow::Result<Decision> {
        let name = &self.graph.node(id).name;
        let key = recipe.key();
        let known = self.memo.node(name).filter(|known| known.key == key);
        let unchanged = known.is_some();
        let (artifact, failure) = match known {
            Some(known) => (Some(known.artifact.clone()), known.failure.clone()),
            None => match self.store.action(&key) {
                Some(action) => (Some(action.artifact), action.failure),
                None => (None, None),
            },
        };
        let (verdict, edited, damage) = match &artifact {
            _ if self.asked.forced.contains(&id) => (Verdict::Stale, None, Some(Change::Forced)),
            None => (Verdict::Stale, None, None),
            Some(artifact) => self.look(id, artifact),
        };
        let mut changes: Vec<_> = damage.into_iter().collect();
        if changes.is_empty() && verdict != Verdict::Fresh && (!unchanged || artifact.is_none()) {
            changes = self.changes(id, &recipe, stock.as_ref());
            if verdict == Verdict::Cached {
                let never =
                    |change: &Change| matches!(change, Change::NeverBuilt | Change::NeverDownloaded { .. });
                changes.retain(|change| !never(change));
            } else if changes.is_empty() {
                changes.push(Change::RecordLost);
            }
        }
        Ok(Decision {
            id,
            verdict,
            changes,
            waits_for: Vec::new(),
            edited,
            recipe: Some(recipe),
            key: Some(key),
            artifact,
            failure,
            stock,
        })
    }

    /// Looks whether a known artifact is in place, and if not, whether the cache has it whole.
    fn look(&mut self, id: NodeId, artifact: &Artifact) -> (Verdict, Option<String>, Option<Change>) {
        let node = self.graph.node(id);
        if let Some(target) = self.sources.target(self.graph, id) {
            let absent = self.absent(id, artifact).map(|path| Change::NotDownloaded { path });
            if absent.is_some() && self.asked.wanted.contains(&id) {
                return (Verdict::Stale, None, absent);
            }
            let there = self.shelf.points_at(&node.name, &target);
            return (if there { Verdict::Fresh } else { Verdict::Cached }, None, absent);
        }
        let edited = match self.shelf.state(&node.name, artifact, self.memo) {
            ShelfState::InPlace => return (Verdict::Fresh, None, None),
            ShelfState::Absent => None,
            ShelfState::Edited(path) => Some(path),
        };
        let damage = artifact.files().iter().find_map(|file| self.store.check(file, self.memo).err());
        match damage {
            Some(damage) => (Verdict::Stale, edited, Some(Change::Damaged { problem: damage.to_string() })),
            None => (Verdict::Cached, edited, None),
        }
    }

    /// Looks for a file that was downloaded and is not there any more as it was.
    fn absent(&mut self, id: NodeId, artifact: &Artifact) -> Option<String> {
        self.sources.own_origin(self.graph, id)?;
        let folder = self.sources.path(self.graph, id)?;
        // Before its files, so that one that is replaced meanwhile shows in the state of the folder.
        let _ = self.memo.look(&folder);
        let mut holds = |file: &FileEntry| self.memo.holds(&folder.join(&file.path), &file.digest, file.size);
        artifact.files().iter().find(|file| !holds(file)).map(|file| file.path.clone())
    }

    /// Returns the nodes whose files are gone from the hub's cache, but are needed by a node that may have to run.
    fn needed(&self, decisions: &[Decision]) -> Vec<NodeId> {
        let gone = |decision: &&Decision| {
            let gone = decision.changes.iter().any(|change| matches!(change, Change::NotDownloaded { .. }));
            gone && !decision.is_stale()
        };
        let gone: Vec<_> = decisions.iter().filter(gone).map(|decision| decision.id).collect();
        if gone.is_empty() {
            return gone;
        }
        let stale = decisions.iter().filter(|decision| decision.is_stale());
        let read: HashSet<_> =
            stale.flat_map(|decision| self.graph.inputs(decision.id).map(|(_, input)| input)).collect();
        gone.into_iter().filter(|id| read.contains(id)).collect()
    }
}
