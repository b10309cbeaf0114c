//! The verdict on each node: in place, in the cache, stale and why, or waiting for an input.
//! Knows nothing of threads and runs nothing. `build`, `build -n`, `status` and `why` all read these decisions.

mod changes;

use std::collections::{BTreeMap, HashSet};

use anyhow::Context;
use serde::Serialize;

use crate::graph::{Graph, NodeId};
use crate::recipe::{Change, Recipe};
use crate::share::{self, Share};
use crate::sources::Sources;
use crate::stage::{BackendKind, Stage};
use crate::store::{Action, Damage, LocalStore, Memo, Shelf, ShelfState, take_stock};
use artifact::{Artifact, Digest, FileEntry};

/// What is to be done for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing: its artifact is in place.
    Fresh,
    /// It was made before; only the link in `artifacts/` is missing, old or was edited.
    Cached,
    /// Nothing: what it makes is on record, and nobody needs the files, which are not here.
    Recorded,
    /// Somebody of the team made it; the files are to be brought here from the remote.
    Remote,
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
    /// What the team has, if there is a remote.
    pub share: Option<&'a Share>,
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
    /// Their files must be here: they are what is built, or, as [`Planner::plan`] finds out, a node that may have to
    /// run reads them. Of other nodes it is enough to know what they make.
    pub needed: HashSet<NodeId>,
    /// If their source is on the hub, its files must be there: the user named them, or, as [`Planner::plan`] finds
    /// out, another node that may have to run reads them. Files that nobody reads are not downloaded again.
    pub wanted: HashSet<NodeId>,
}

impl Planner<'_> {
    /// Decides on `ids`, each after its inputs, without running anything.
    pub fn plan(&mut self, ids: &[NodeId]) -> anyhow::Result<Vec<Decision>> {
        let mut recorded = HashSet::new();
        loop {
            let decisions = self.plan_once(ids, &recorded)?;
            let needed = self.read_but_absent(&decisions);
            if needed.is_empty() {
                return Ok(decisions);
            }
            let is_recorded = |decision: &&Decision| decision.verdict == Verdict::Recorded;
            recorded.extend(decisions.iter().filter(is_recorded).map(|decision| decision.id));
            self.need(&needed);
        }
    }

    /// Asks for the files of these nodes.
    pub fn need(&mut self, ids: &[NodeId]) {
        self.asked.wanted.extend(ids);
        self.asked.needed.extend(ids);
    }

    /// What those in `recorded` make is known, also if somebody turns out to need their files and they must run for that.
    fn plan_once(&mut self, ids: &[NodeId], recorded: &HashSet<NodeId>) -> anyhow::Result<Vec<Decision>> {
        let mut made: Vec<Option<Digest>> = vec![None; self.graph.len()];
        let mut decisions = Vec::with_capacity(ids.len());
        self.shelf.look(self.memo);
        for &id in ids {
            let decision = self.decide(id, &|input| made[input.index()])?;
            if !decision.is_stale() || recorded.contains(&id) {
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
        let outcome = match known {
            Some(known) => Some(Outcome { artifact: known.artifact.clone(), failure: known.failure.clone() }),
            None => self.store.action(&key).map(Outcome::from),
        };
        let is_forced = self.asked.forced.contains(&id);
        let outcome = match outcome {
            None if !is_forced => self.of_the_team(id, &key, stock.as_ref()),
            found => found,
        };
        let Look { verdict, edited, change, outcome } = match outcome {
            _ if is_forced => Look::new(Verdict::Stale, Some(Change::Forced), outcome),
            None => Look::new(Verdict::Stale, None, None),
            Some(outcome) => self.look(id, &key, outcome),
        };
        let mut changes: Vec<_> = change.into_iter().collect();
        if changes.is_empty() && verdict != Verdict::Fresh && (!unchanged || outcome.is_none()) {
            changes = self.changes(id, &recipe, stock.as_ref());
            if verdict != Verdict::Stale {
                let never =
                    |change: &Change| matches!(change, Change::NeverBuilt | Change::NeverDownloaded { .. });
                changes.retain(|change| !never(change));
            } else if changes.is_empty() {
                changes.push(Change::RecordLost);
            }
        }
        let (artifact, failure) = outcome.map(|made| (made.artifact, made.failure)).unzip();
        let decision = Decision::undecided(id, verdict, changes);
        let failure = failure.flatten();
        Ok(Decision { edited, recipe: Some(recipe), key: Some(key), artifact, failure, stock, ..decision })
    }

    /// Returns what somebody of the team recorded under `key`. Of a source that lies here, they must have had the same
    /// files.
    fn of_the_team(&self, id: NodeId, key: &Digest, stock: Option<&Artifact>) -> Option<Outcome> {
        let stage = &self.graph.node(id).stage;
        let action = self.share?.record(key, travels(stage))?;
        // The signature says who claims this; that the recipe is the one we asked for can be seen.
        let recipe: Recipe = serde_json::from_value(action.recipe.clone()).ok()?;
        if recipe.key() != *key {
            return None;
        }
        let stock = stock.filter(|_| stage.is_reference());
        let same = stock.is_none_or(|stock| stock.digest() == action.artifact.digest());
        same.then(|| Outcome::from(action))
    }

    /// Looks whether a known artifact is in place, and if not, whether the cache or the team has it whole.
    fn look(&mut self, id: NodeId, key: &Digest, made: Outcome) -> Look {
        let node = self.graph.node(id);
        if let Some(target) = self.sources.target(self.graph, id) {
            let absent = self.absent(id, &made.artifact).map(|path| Change::NotDownloaded { path });
            if absent.is_some() && self.asked.wanted.contains(&id) {
                return Look::new(Verdict::Stale, absent, Some(made));
            }
            let there = self.shelf.points_at(&node.name, &target);
            return Look::new(if there { Verdict::Fresh } else { Verdict::Cached }, absent, Some(made));
        }
        let edited = match self.shelf.state(&node.name, &made.artifact, self.memo) {
            ShelfState::InPlace => return Look::new(Verdict::Fresh, None, Some(made)),
            ShelfState::Absent => None,
            ShelfState::Edited(path) => Some(path),
        };
        let damage = made.artifact.files().iter().find_map(|file| self.store.check(file, self.memo).err());
        let is_missing = matches!(damage, Some(Damage::Missing { .. }));
        let change = damage.map(|damage| Change::Damaged { problem: damage.to_string() });
        if change.is_none() {
            return Look { edited, ..Look::new(Verdict::Cached, None, Some(made)) };
        }
        if is_missing && !self.asked.needed.contains(&id) {
            return Look::new(Verdict::Recorded, None, Some(made));
        }
        let up = self.share.is_some_and(|share| !share.is_down());
        match self.of_the_team(id, key, None).filter(|_| up) {
            Some(theirs) => Look::new(Verdict::Remote, change.filter(|_| !is_missing), Some(theirs)),
            None => {
                let shared = self.share.is_some() || self.store.attestation(key).is_some();
                let lost = (is_missing && shared).then_some(Change::FilesLost);
                Look { edited, ..Look::new(Verdict::Stale, lost.or(change), Some(made)) }
            }
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

    /// Returns the nodes whose files are not here, but are read by a node that may have to run.
    fn read_but_absent(&self, decisions: &[Decision]) -> Vec<NodeId> {
        let absent = |decision: &&Decision| match decision.verdict {
            Verdict::Recorded => true,
            Verdict::Fresh | Verdict::Cached => {
                decision.changes.iter().any(|change| matches!(change, Change::NotDownloaded { .. }))
            }
            Verdict::Remote | Verdict::Stale | Verdict::Waits => false,
        };
        let absent: Vec<_> = decisions.iter().filter(absent).map(|decision| decision.id).collect();
        if absent.is_empty() {
            return absent;
        }
        let stale = decisions.iter().filter(|decision| decision.is_stale());
        let read: HashSet<_> =
            stale.flat_map(|decision| self.graph.inputs(decision.id).map(|(_, input)| input)).collect();
        absent.into_iter().filter(|id| read.contains(id)).collect()
    }
}

/// Returns what of the actions of a stage travels between the members of a team.
pub fn travels(stage: &Stage) -> share::Kind {
    match stage {
        Stage::Base | Stage::Adapter => share::Kind::Source,
        Stage::Fuse(_) | Stage::Quantize(_) => share::Kind::Made,
        Stage::Benchmark(_) => share::Kind::Measured,
    }
}

/// What is on record of an action.
struct Outcome {
    artifact: Artifact,
    /// Why the node fails although that was made.
    failure: Option<String>,
}

impl From<Action> for Outcome {
    fn from(action: Action) -> Self {
        Self { artifact: action.artifact, failure: action.failure }
    }
}

/// What a look at the shelf, the cache and the remote says.
struct Look {
    verdict: Verdict,
    edited: Option<String>,
    change: Option<Change>,
    outcome: Option<Outcome>,
}

impl Look {
    fn new(verdict: Verdict, change: Option<Change>, outcome: Option<Outcome>) -> Self {
        Self { verdict, edited: None, change, outcome }
    }
}
