//! The notes on the jobs of workers: a later build finds them, and `status` shows them.
//! Knows nothing of how jobs end.

use serde::{Deserialize, Serialize};

use super::{BATCH, DIGITS, Driver};
use crate::executor::Attempt;
use crate::manifest::is_host;
use artifact::{Digest, in_one_line};

/// The note on a job, which a later build reads.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) worker: String,
    pub(crate) node: String,
    pub(crate) attempt: Attempt,
    /// What was last heard of it, for `status`.
    pub(crate) place: String,
}

impl Note {
    /// Reads a note. What lies in a cache is not believed: a name of a batch must be one of ours, because it becomes part of
    /// commands.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let note: Self = serde_json::from_slice(bytes).ok()?;
        let digits = note.attempt.batch.strip_prefix(BATCH)?;
        let is_ours = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_ours && note.attempt.host.as_ref().is_none_or(|host| is_host(host))).then_some(note)
    }
}

impl Driver<'_> {
    /// Writes the note on a job.
    pub(super) fn note(&self, key: &Digest, node: &str, attempt: &Attempt, place: &str) {
        let (worker, place) = (self.name.to_owned(), place.to_owned());
        let note = Note { worker, node: node.to_owned(), attempt: attempt.clone(), place };
        let note = serde_json::to_vec(&note).expect("BUG: a note has a JSON form");
        if let Err(error) = self.store.put_job_note(key, &note) {
            self.notice(format!("a later build will not find the job of `{node}`: {}", in_one_line(&error)));
        }
    }
}
