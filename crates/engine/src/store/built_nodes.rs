//! The result of the last build of each node on this machine.
//! Knows nothing of why a node is stale, nor of where this is kept between two runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use artifact::{Artifact, Digest};

/// The result of the last build of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltNode {
    /// The key of the recipe. `why` compares the present recipe with this one.
    pub key: Digest,
    /// The artifact.
    pub artifact: Artifact,
    /// Why the node fails although the artifact was made.
    pub failure: Option<String>,
}

/// The nodes by name.
#[derive(Default)]
pub struct BuiltNodes {
    nodes: BTreeMap<String, BuiltNode>,
    is_changed: bool,
}

impl BuiltNodes {
    pub(super) fn new(nodes: BTreeMap<String, BuiltNode>) -> Self {
        Self { nodes, is_changed: false }
    }

    pub(super) fn nodes(&self) -> &BTreeMap<String, BuiltNode> {
        &self.nodes
    }

    /// Returns whether a node was changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns the result of the last build of `node`.
    pub fn get(&self, node: &str) -> Option<&BuiltNode> {
        self.nodes.get(node)
    }

    /// Returns all nodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BuiltNode)> {
        self.nodes.iter().map(|(name, built)| (name.as_str(), built))
    }

    /// Remembers the result of a build of `node`.
    pub fn set(&mut self, node: &str, key: Digest, artifact: &Artifact, failure: Option<&str>) {
        let same = |built: &BuiltNode| {
            built.key == key && built.artifact == *artifact && built.failure.as_deref() == failure
        };
        if !self.nodes.get(node).is_some_and(same) {
            let built = BuiltNode { key, artifact: artifact.clone(), failure: failure.map(str::to_owned) };
            self.nodes.insert(node.to_owned(), built);
            self.is_changed = true;
        }
    }
}
