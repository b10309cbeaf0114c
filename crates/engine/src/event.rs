//! The events of a build, a transfer or a verification, and the trait that receives them.
//! Knows nothing of who listens: a terminal, a log or a program.

use serde::Serialize;

use crate::recipe::Change;
use crate::stage::{Measuring, Unit};
use crate::verify::Comparison;
use artifact::Digest;

/// Something that happens while a build, a transfer or a verification runs.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Event<'a> {
    /// A stage starts.
    Started { node: &'a str, stage: &'a str, changes: &'a [Change] },
    /// A node is given to a worker.
    Submitted { node: &'a str, worker: &'a str, stage: &'a str, changes: &'a [Change] },
    /// A node waits at its worker.
    Waiting { node: &'a str, worker: &'a str, reason: &'a str },
    /// A node runs on a host of its worker.
    Running { node: &'a str, worker: &'a str, host: &'a str },
    /// A worker made a node: in so many seconds, or it was there already.
    Made { node: &'a str, worker: &'a str, host: &'a str, seconds: Option<f64> },
    /// A stage or a transfer made progress.
    Progress { node: &'a str, unit: Unit, done: u64, total: u64 },
    /// A benchmark made progress.
    Measuring {
        node: &'a str,
        #[serde(flatten)]
        measuring: &'a Measuring,
    },
    /// A command wrote this line.
    Said { node: &'a str, line: String },
    /// A stage ran, and its artifact was stored.
    Built { node: &'a str, stage: &'a str, seconds: f64, bytes: u64, artifact: Digest },
    /// The artifact was taken from the cache. If a file of the node was changed by hand, `edited` is its
    /// path.
    Linked { node: &'a str, edited: Option<&'a str>, artifact: Digest },
    /// The artifact of a stage was recorded. If artifacts must match the lock, this one does.
    Recorded { node: &'a str, key: Digest },
    /// The download of the artifact from the remote starts.
    Fetching { node: &'a str, bytes: u64 },
    /// The artifact was downloaded from the remote.
    Fetched { node: &'a str, bytes: u64, artifact: Digest },
    /// The upload of the artifact to the remote starts.
    Sending { node: &'a str },
    /// The artifact is in the remote: `bytes` were uploaded, `already_there` bytes were there before.
    Sent { node: &'a str, bytes: u64, already_there: u64 },
    /// The files of a temporary node were removed, because no node needs them any more.
    Released { node: &'a str, bytes: u64 },
    /// What is not current was removed from the cache, because it had more than `max_size`.
    Collected { records: usize, bytes: u64 },
    /// Something about the remote that the user should know.
    Notice { message: String },
    /// Something about a node that the user should know.
    Warning { node: &'a str, message: String },
    /// A node is built again, to be compared.
    Verifying { node: &'a str },
    /// A node was built again and compared.
    Verified {
        node: &'a str,
        #[serde(skip)]
        comparison: &'a Comparison,
    },
    /// A node failed.
    Failed {
        node: &'a str,
        error: String,
        #[serde(skip)]
        hint: Option<&'static str>,
    },
    /// A node is not run: it depends on the node `because`, which failed.
    Skipped { node: &'a str, because: &'a str },
}

/// Receives the events: shows them on a terminal, writes a log, or ignores them.
pub trait Observer: Send {
    /// Receives one event.
    fn event(&mut self, event: &Event<'_>);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}
