//! How far a benchmark is, and how long it will still take.
//! Knows nothing of how it is shown.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use protocol::Step;

/// How far a benchmark is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measuring {
    /// The configuration that is measured.
    pub config: String,
    /// Its number, from 1.
    pub config_number: usize,
    /// How many configurations there are.
    pub configs: usize,
    /// What it does.
    #[serde(flatten)]
    pub doing: Doing,
    /// How far that is.
    pub step: Option<Step>,
    /// How many tokens a second are read or written now.
    pub tokens_per_second: Option<f64>,
    /// How many seconds all configurations will still take; `None` before two answers are known.
    pub seconds_left: Option<f64>,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "doing", rename_all = "snake_case")]
pub enum Doing {
    /// It is loaded.
    Loading,
    /// It answers a question.
    Question {
        /// The number of the question, from 1.
        number: usize,
        /// How many questions there are.
        count: usize,
    },
    /// It reads a text.
    Text {
        /// The number of the text, from 1.
        number: usize,
        /// How many texts there are.
        count: usize,
    },
}

/// Answers and texts that were not known when the benchmark began.
#[derive(Debug)]
pub(super) struct Pace {
    pending: usize,
    done: usize,
    seconds: f64,
}

impl Pace {
    /// Sets how many are to be measured.
    pub(super) fn new(pending: usize) -> Self {
        Self { pending, done: 0, seconds: 0.0 }
    }

    /// Notes that one was measured, in so many seconds.
    pub(super) fn measured(&mut self, seconds: f64) {
        self.done += 1;
        self.seconds += seconds;
    }

    /// Returns how many seconds the rest will take, if it takes as long as the first ones.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let left = self.pending.saturating_sub(self.done);
        (self.done >= 2).then(|| self.seconds / self.done as f64 * left as f64)
    }
}

/// How fast a model reads or writes now.
#[derive(Debug, Default)]
pub(super) struct Speed {
    phase: Option<(bool, usize, Instant)>,
}

impl Speed {
    /// Returns the tokens per second since the model began to read, or to write.
    pub(super) fn after(&mut self, step: Step) -> Option<f64> {
        let (writes, done) = match step {
            Step::Reading(done, _) => (false, done),
            Step::Writing(done, _) => (true, done),
        };
        match self.phase {
            Some((same, first, start)) if same == writes && done > first => {
                Some((done - first) as f64 / start.elapsed().as_secs_f64())
            }
            Some((same, ..)) if same == writes => None,
            _ => {
                self.phase = Some((writes, done, Instant::now()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_estimated_from_one_answer() {
        let mut pace = Pace::new(10);
        pace.measured(30.0);
        assert_eq!(pace.seconds_left(), None);
        pace.measured(10.0);
        assert_eq!(pace.seconds_left(), Some(160.0));
    }
}
