//! Executors: what starts `pipeline exec` on another machine, says where it runs, and ends it.
//! Knows nothing of nodes or of the store. Whether something was made is in the remote; an executor only knows processes.

mod command;
mod foreground;
mod heard;
mod slurm;
mod ssh;

pub use foreground::Foreground;
pub use heard::Heard;
pub use slurm::Slurm;
pub use ssh::{DETACH, PULSE, Ssh};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use artifact::Digest;

/// One attempt to make something: its place in the batch that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The name of the batch, which no other batch has.
    pub batch: String,
    /// The number in the batch, from 0 on.
    pub index: usize,
    /// The host that it went to, if the executor chose one.
    pub host: Option<String>,
}

impl Attempt {
    /// Returns the name of the attempt.
    pub fn name(&self) -> String {
        format!("{}-{}", self.batch, self.index)
    }
}

/// What a worker is started for.
#[derive(Clone, Debug)]
pub struct Job {
    /// The key of what it makes.
    pub key: Digest,
    /// The name of the node.
    pub node: String,
    /// The attempt.
    pub attempt: Attempt,
}

/// Where an attempt is.
#[derive(Debug)]
pub enum Condition {
    /// It has not begun, for a reason in the executor's words.
    Waits(String),
    /// It runs.
    Runs {
        /// Where.
        host: String,
        /// What it said since it was asked last.
        heard: Vec<Heard>,
    },
    /// The executor has no process of it any more, or never had one.
    Gone {
        /// How it ended, if the executor knows it.
        how: Option<String>,
        /// Whether another attempt on another host may succeed.
        is_lost: bool,
    },
}

/// Starts and ends jobs. All calls may wait for a program, but none waits for a job.
pub trait Executor: Send + Sync {
    /// Returns how many jobs it takes at once.
    fn slots(&self) -> usize;

    /// Returns how many jobs may be submitted in one batch.
    ///
    /// # Errors
    /// Fails if the executor cannot be asked.
    fn longest_batch(&self) -> Result<usize>;

    /// Returns how often it is worth to ask where jobs are.
    fn interval(&self) -> Duration;

    /// Starts jobs of one batch, all or none.
    ///
    /// # Errors
    /// Fails if the executor refuses them.
    fn submit(&self, jobs: &[Job]) -> Result<()>;

    /// Returns where attempts are, in their order. An attempt may be one of an earlier process.
    ///
    /// # Errors
    /// Fails if the executor does not answer. That says nothing of the jobs.
    fn poll(&self, attempts: &[Attempt]) -> Result<Vec<Condition>>;

    /// Ends attempts, and waits a little until they have ended. Returns why one may still run, in their order.
    fn cancel(&self, attempts: &[Attempt]) -> Vec<Option<String>>;

    /// Lets the attempts go on without this process. Returns whether each does, in their order.
    fn detach(&self, attempts: &[Attempt]) -> Vec<bool>;

    /// Returns how an attempt ended and the last of what it wrote, as far as that can be had.
    fn log(&self, attempt: &Attempt) -> Option<String>;

    /// Removes what attempts that are over have left, such as their logs.
    fn clean(&self, attempts: &[Attempt]);

    /// Returns the host of an attempt that runs or ran, if the executor chose it.
    fn host(&self, attempt: &Attempt) -> Option<String>;
}

/// A worker, and what starts its jobs.
#[derive(Clone)]
pub struct Crew {
    /// The name of the worker.
    pub name: String,
    /// What starts its jobs.
    pub executor: Arc<dyn Executor>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What every job of a worker runs.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The folder on the machine, with a clone of the project.
    pub folder: Option<String>,
    /// The program `pipeline` on the machine.
    pub program: String,
    /// The URL of the remote, as the machine reaches it.
    pub remote: String,
}

impl Invocation {
    /// Returns the line of a shell that makes what a job is for. `more` is added to its arguments.
    fn line(&self, key: &str, attempt: &str, more: &str) -> String {
        let folder = self.folder.as_ref().map(|folder| format!("cd {} && ", quoted_path(folder)));
        let (program, remote) = (quoted_path(&self.program), quoted(&self.remote));
        format!(
            "{}exec {program} exec --key {key} --attempt {attempt} --remote {remote}{more}",
            folder.unwrap_or_default()
        )
    }
}

/// Returns `word` as a word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns a path as a word of a shell. `~/` at its beginning is the home folder on that machine.
fn quoted_path(path: &str) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("\"$HOME\"/{}", quoted(rest)),
        None => quoted(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_safe_from_what_is_in_it() {
        let invocation = Invocation {
            folder: Some("~/my models; rm".to_owned()),
            program: "pipeline".to_owned(),
            remote: "file:///a'b".to_owned(),
        };
        assert_eq!(
            invocation.line("KEY", "p-1", " --attached"),
            r#"cd "$HOME"/'my models; rm' && exec 'pipeline' exec --key KEY --attempt p-1 --remote 'file:///a'\''b' --attached"#
        );
    }
}
