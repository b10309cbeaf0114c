//! The decision on one node, and its grounds.
//! Knows nothing of how it was made.

use serde::Serialize;

use crate::graph::NodeId;
use crate::recipe::{Change, Recipe};
use artifact::{Artifact, Digest};

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
    pub source_files: Option<Artifact>,
}

impl Decision {
    /// Makes a decision of which nothing more is known.
    pub(super) fn new(id: NodeId, verdict: Verdict, changes: Vec<Change>) -> Self {
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
            source_files: None,
        }
    }

    /// Whether something must be done for the node, or may have to be.
    pub fn is_stale(&self) -> bool {
        matches!(self.verdict, Verdict::Stale | Verdict::Waits)
    }

    /// Whether nothing is to be done for the node, and it did not fail.
    pub fn is_done(&self) -> bool {
        matches!(self.verdict, Verdict::Fresh | Verdict::Recorded) && self.failure.is_none()
    }

    /// Whether a file of its source on the hub is not here, or was altered.
    pub fn lacks_download(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::NotDownloaded { .. }))
    }
}
