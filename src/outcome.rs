//! How a command ended, and the exit code that says so.
//! Knows nothing of the commands.

use std::process::ExitCode;

use engine::schedule::Summary;

/// How a command ended, if it returned no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Success,
    /// A node or a check failed, and the command said which.
    Failure,
    /// Something is stale, and the user asked for an exit code that says so.
    Stale,
    /// Ctrl-C interrupted it.
    Interrupted,
}

impl Outcome {
    /// Returns the outcome of a command that ran nodes.
    pub(crate) fn of(summary: &Summary) -> Self {
        match summary {
            Summary { interrupted: true, .. } => Self::Interrupted,
            Summary { failed, .. } if !failed.is_empty() => Self::Failure,
            _ => Self::Success,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Failure => Self::from(1),
            Outcome::Stale => Self::from(3),
            // The exit code with which a shell reports a program that SIGINT ended.
            Outcome::Interrupted => Self::from(130),
        }
    }
}
