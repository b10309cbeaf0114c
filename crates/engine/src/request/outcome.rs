//! How an attempt of a worker ended. What was made is in its record; an outcome says where to look, or why there is none.
//! Knows nothing of what was asked for.

use serde::{Deserialize, Serialize};

use crate::error::{Result, fail, require};
use artifact::Digest;

/// How long a message of a worker may be, in bytes.
const LONGEST: usize = 1 << 16;

/// The longest time that a run may have taken, in seconds: a hundred years.
const LONGEST_RUN: f64 = 3.2e9;

/// How the last attempt for a key ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkOutcome {
    /// The key.
    pub key: Digest,
    /// What the attempt is called. The coordinator chooses it.
    pub attempt: String,
    /// The name of the worker's machine.
    pub host: String,
    /// The class of the worker's machine. The record of a measurement is kept under it.
    pub machine: String,
    /// How it ended.
    pub ending: Ending,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is made, and its record is in the remote. It took so many seconds, or was there already.
    Made {
        /// How long it took; `None` if it was there already.
        seconds: Option<f64>,
    },
    /// It cannot be made.
    Failed {
        /// Why.
        error: String,
        /// Whether the reason lies in the machine, so that another may succeed.
        is_of_machine: bool,
    },
}

impl WorkOutcome {
    /// The type of an outcome in its envelope.
    pub const TYPE: &str = "application/vnd.pipeline.outcome+json";

    /// Returns the outcome as JSON. Long messages are cut.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.clone().cut()).expect("BUG: an outcome has a JSON form")
    }

    /// Reads the outcome for `key`.
    ///
    /// # Errors
    /// Fails if the bytes are not an outcome, or one for another key.
    pub fn parse(bytes: &[u8], key: &Digest) -> Result<Self> {
        let outcome: Self = match serde_json::from_slice(bytes) {
            Ok(outcome) => outcome,
            Err(error) => fail!(Source, "it is not an outcome: {}", text::shown(&error.to_string())),
        };
        require!(outcome.key == *key, Source, "it is the outcome for {}", outcome.key.short());
        let seconds =
            if let Ending::Made { seconds: Some(seconds) } = outcome.ending { seconds } else { 0.0 };
        require!(
            (0.0..=LONGEST_RUN).contains(&seconds),
            Source,
            "it took {seconds} seconds, which cannot be"
        );
        Ok(outcome.cut())
    }

    /// Cuts long messages.
    fn cut(mut self) -> Self {
        if let Ending::Failed { error, .. } = &mut self.ending {
            *error = cut(error);
        }
        self.warnings = self.warnings.iter().take(100).map(|warning| cut(warning)).collect();
        self
    }
}

fn cut(text: &str) -> String {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}
