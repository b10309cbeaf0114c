//! What is told of a running build.
//! Knows nothing of who listens: a terminal, a log or a program.

use std::io;

use serde::Serialize;

use crate::recipe::Change;
use crate::stage::Unit;
use crate::verify::Comparison;
use artifact::Digest;

/// What a person or a program is told while a build runs.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Event<'a> {
    /// A stage was started.
    Started { node: &'a str, stage: &'a str, changes: &'a [Change] },
    /// A stage got so far.
    Progress { node: &'a str, unit: Unit, done: u64, total: u64 },
    /// A stage was run and its artifact stored.
    Built { node: &'a str, stage: &'a str, seconds: f64, bytes: u64, artifact: Digest },
    /// The artifact was taken from the cache.
    Linked { node: &'a str, edited: Option<&'a str>, artifact: Digest },
    /// What a stage made is recorded, and is what the lock says, if it had to be.
    Recorded { node: &'a str, key: Digest },
    /// The artifact is being brought from the remote.
    Fetching { node: &'a str, bytes: u64 },
    /// The artifact was brought from the remote.
    Fetched { node: &'a str, bytes: u64, artifact: Digest },
    /// The artifact is being sent to the remote.
    Sending { node: &'a str },
    /// The artifact is in the remote: what was sent, and what was not, because it was there.
    Sent { node: &'a str, bytes: u64, already_there: u64 },
    /// Something about the remote that the user should know.
    Notice { message: String },
    /// Something was found and put right.
    Warning { node: &'a str, message: String },
    /// A node is being made again.
    Verifying { node: &'a str },
    /// A node was made again and compared.
    Verified {
        node: &'a str,
        #[serde(skip)]
        comparison: &'a Comparison,
    },
    /// A stage failed.
    Failed {
        node: &'a str,
        error: String,
        #[serde(skip)]
        cause: Option<io::ErrorKind>,
    },
    /// A node was not run, because an input failed.
    Skipped { node: &'a str, because: &'a str },
}

/// Is told what happens while something runs: shows it on a terminal, writes a log, or ignores it.
pub trait Observer: Send {
    /// Takes one event.
    fn event(&mut self, event: &Event<'_>);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}
