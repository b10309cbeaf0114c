//! The decision on one node, and the reasons for it.
//! Knows nothing of how it was made.

use serde::Serialize;

use crate::graph::NodeId;
use crate::recipe::{Change, Recipe};
use artifact::{Artifact, Digest};

/// What a build does for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing: its artifact is in place.
    Fresh,
    /// It is linked from the cache: its link in `artifacts/` is missing or old, or a file was edited.
    Cached,
    /// Nothing: its artifact is on record. Its files are not here, and no node needs them.
    Recorded,
    /// Its files are fetched from the remote, which has a record of it.
    Remote,
    /// It must run.
    Stale,
    /// An input must run first. Its output decides whether this node must run.
    Waits,
}

/// The decision on one node, and the reasons for it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The node.
    pub id: NodeId,
    /// What a build does for it.
    pub verdict: Verdict,
    /// What changed since it was last built here. For a node that waits, only what is known so far.
    pub changes: Vec<Change>,
    /// The inputs that it waits for.
    pub waits_for: Vec<NodeId>,
    /// A file of its artifact that was changed by hand, relative to the artifact.
    pub edited: Option<String>,
    /// Its recipe, unless it waits or its source is not resolved.
    pub recipe: Option<Recipe>,
    /// The key of the recipe.
    pub key: Option<Digest>,
    /// Its artifact, if that is known.
    pub artifact: Option<Artifact>,
    /// Why it fails although the artifact was made.
    pub failure: Option<String>,
    /// The files of its source, if it has one that is not on the hub.
    pub source_files: Option<Artifact>,
}

impl Decision {
    /// Makes a decision with nothing else known.
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

    /// Whether the node must run, or may have to.
    pub fn is_stale(&self) -> bool {
        matches!(self.verdict, Verdict::Stale | Verdict::Waits)
    }

    /// Whether nothing must be done for the node, and it did not fail.
    pub fn is_done(&self) -> bool {
        matches!(self.verdict, Verdict::Fresh | Verdict::Recorded) && self.failure.is_none()
    }

    /// Whether its source on disk is not there. Then the artifact is known from the lock and its record, or not
    /// at all.
    pub fn lacks_source(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::SourceMissing { .. }))
    }

    /// Whether a file of its source on the hub is not here, or was altered.
    pub fn lacks_download(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::NotDownloaded { .. }))
    }
}
