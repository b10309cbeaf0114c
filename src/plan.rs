//! The verdict on each node: in place, in the cache, stale and why, or waiting for an input.
//! Knows nothing of threads and runs nothing. `build`, `build -n`, `status` and `why` all read these decisions.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::artifact::Artifact;
use crate::backend::BackendKind;
use crate::digest::Digest;
use crate::graph::{Graph, NodeId};
use crate::manifest::Node;
use crate::recipe::{Change, Recipe};
use crate::store::{Action, LocalStore, Memo, Shelf, ShelfState, take_stock};

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
    /// Its recipe, unless it waits.
    pub recipe: Option<Recipe>,
    /// The key of the recipe.
    pub key: Option<Digest>,
    /// What it made, if that is known.
    pub artifact: Option<Artifact>,
    /// The files of its source, if it has one.
    pub stock: Option<Artifact>,
}

impl Decision {
    /// Whether something must be done for the node, or may have to be.
    pub fn is_stale(&self) -> bool {
        matches!(self.verdict, Verdict::Stale | Verdict::Waits)
    }
}

/// Decides, from the graph, the disk and the memory of both.
pub struct Planner<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The folder of the pipeline file.
    pub root: &'a Path,
    /// The cache.
    pub store: &'a LocalStore,
    /// `artifacts/`.
    pub shelf: &'a Shelf,
    /// What is remembered of both.
    pub memo: &'a mut Memo,
    /// What weights are computed with.
    pub backend: BackendKind,
    /// Nodes that run whether they are stale or not.
    pub forced: HashSet<NodeId>,
}

impl Planner<'_> {
    /// Decides on `ids`, each after its inputs, without running anything.
    pub fn plan(&mut self, ids: &[NodeId]) -> anyhow::Result<Vec<Decision>> {
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
        let stock = self.stock(node)?;
        let mut inputs = BTreeMap::new();
        let mut waits_for = Vec::new();
        for (role, input) in self.graph.inputs(id) {
            match made(input) {
                Some(digest) => drop(inputs.insert(role.to_owned(), digest)),
                None => waits_for.push(input),
            }
        }
        if let Some(stock) = &stock {
            inputs.insert("source".to_owned(), stock.digest());
        }
        let recipe = Recipe::new(node.stage.clone(), node.stage.backend(self.backend), inputs);
        if waits_for.is_empty() {
            return self.judge(id, recipe, stock);
        }
        waits_for.dedup();
        let changes = self.own_changes(id, &recipe, stock.as_ref());
        let verdict = Verdict::Waits;
        Ok(Decision {
            id,
            verdict,
            changes,
            waits_for,
            edited: None,
            recipe: None,
            key: None,
            artifact: None,
            stock,
        })
    }

    fn stock(&mut self, node: &Node) -> anyhow::Result<Option<Artifact>> {
        let Some(source) = &node.source else { return Ok(None) };
        let stock = take_stock(&self.root.join(&source.path), self.memo);
        stock.map(Some).with_context(|| format!("node `{}`", node.name))
    }

    /// Decides on a node whose recipe is known.
    fn judge(&mut self, id: NodeId, recipe: Recipe, stock: Option<Artifact>) -> anyhow::Result<Decision> {
        let name = &self.graph.node(id).name;
        let key = recipe.key();
        let known = self.memo.node(name).filter(|known| known.key == key);
        let unchanged = known.is_some();
        let artifact = match known {
            Some(known) => Some(known.artifact.clone()),
            None => self.store.action(&key).map(|action| action.artifact),
        };
        let (verdict, edited, damage) = match &artifact {
            _ if self.forced.contains(&id) => (Verdict::Stale, None, Some(Change::Forced)),
            None => (Verdict::Stale, None, None),
            Some(artifact) => self.look(id, artifact),
        };
        let mut changes: Vec<_> = damage.into_iter().collect();
        if changes.is_empty() && verdict != Verdict::Fresh && (!unchanged || artifact.is_none()) {
            changes = self.changes(id, &recipe, stock.as_ref());
            if verdict == Verdict::Cached {
                changes.retain(|change| *change != Change::NeverBuilt);
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
            stock,
        })
    }

    /// Looks whether a known artifact is in place, and if not, whether the cache has it whole.
    fn look(&mut self, id: NodeId, artifact: &Artifact) -> (Verdict, Option<String>, Option<Change>) {
        let node = self.graph.node(id);
        if let Some(target) = reference_target(node, self.root) {
            let there = self.shelf.points_at(&node.name, &target);
            return (if there { Verdict::Fresh } else { Verdict::Cached }, None, None);
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

    /// Returns what changed since the node was last built here.
    fn changes(&self, id: NodeId, recipe: &Recipe, stock: Option<&Artifact>) -> Vec<Change> {
        let Some((old, action)) = self.last(id) else { return vec![Change::NeverBuilt] };
        let node = self.graph.node(id);
        let node_of =
            |role: &str| node.inputs.iter().find(|input| input.role == role).map(|input| input.node.clone());
        let mut changes = recipe.changes(&old, &node_of);
        if node.stage.is_reference()
            && let Some(stock) = stock
        {
            changes.retain(|change| !matches!(change, Change::Input { role, .. } if role == "source"));
            changes.extend(file_changes(&action.artifact, stock));
        }
        changes
    }

    /// Returns what changed of a node itself, leaving out the inputs that are not known yet.
    fn own_changes(&self, id: NodeId, recipe: &Recipe, stock: Option<&Artifact>) -> Vec<Change> {
        let mut changes = self.changes(id, recipe, stock);
        changes.retain(|change| !matches!(change, Change::Input { new: None, .. }));
        changes
    }

    fn last(&self, id: NodeId) -> Option<(Recipe, Action)> {
        let key = self.memo.node(&self.graph.node(id).name)?.key;
        let action = self.store.action(&key)?;
        let recipe = serde_json::from_value(action.recipe.clone()).ok()?;
        Some((recipe, action))
    }
}

/// Returns what `artifacts/NAME` points at for a node that is its source; none for other nodes.
pub fn reference_target(node: &Node, root: &Path) -> Option<PathBuf> {
    let source = node.source.as_ref().filter(|_| node.stage.is_reference())?;
    // `artifacts/` lies in the root, so a relative source is one level up from it.
    let path = Path::new(&source.path);
    Some(if path.is_absolute() { root.join(path) } else { Path::new("..").join(path) })
}

fn file_changes(old: &Artifact, new: &Artifact) -> Vec<Change> {
    let mut changes = Vec::new();
    for file in new.files() {
        let before = old.file(&file.path).map(|file| file.digest);
        if before != Some(file.digest) {
            changes.push(Change::File { path: file.path.clone(), old: before, new: Some(file.digest) });
        }
    }
    let gone = old.files().iter().filter(|file| new.file(&file.path).is_none());
    changes.extend(gone.map(|file| Change::File {
        path: file.path.clone(),
        old: Some(file.digest),
        new: None,
    }));
    changes
}
