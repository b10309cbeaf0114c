//! What a worker says over its connection while it works: one line of JSON each.
//! Knows nothing of who listens.

use serde::{Deserialize, Serialize};

use crate::stage::Measuring;

/// One line of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// It is there.
    Alive,
    /// It goes on without its connection.
    Detached,
    /// It waits, for a reason.
    Waits(String),
    /// It works now.
    Begins,
    /// The stage made progress.
    Progress {
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// A benchmark made progress.
    Measuring(Measuring),
    /// A command wrote a line.
    Said(String),
}
