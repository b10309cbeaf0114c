//! What was measured of a configuration: each answer, each text and each load, by what was asked.
//! Knows nothing of suites, nor of where it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use artifact::Digest;
use protocol::{Answered, Question, Reading, Run, Text};
use report::Load;

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// The model was loaded.
    Load(Load),
    /// A question was answered once.
    Answer {
        /// The digest of the question.
        question: Digest,
        /// What came of it.
        answered: Answered,
        /// How long it took; `None` if it was not asked.
        run: Option<Run>,
    },
    /// A text was read.
    Reading {
        /// The digest of the text, and of the reference.
        text: Digest,
        /// What was measured at each token.
        reading: Reading,
    },
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What came of it.
    pub answered: Answered,
    /// How long it took, each time.
    pub runs: Vec<Run>,
}

/// Everything that was measured of one configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    loads: Vec<Load>,
    turns: BTreeMap<Digest, Turn>,
    readings: BTreeMap<Digest, Reading>,
}

/// Returns the digest of a question.
pub(super) fn question_key(question: &Question) -> Digest {
    Digest::of_json(question)
}

/// Returns the digest of a text. `reference` is the file that it is compared with; its path does not count.
pub(super) fn text_key(text: &Text, reference: Option<&Digest>) -> Digest {
    Digest::of_json(&(&text.text, text.context, text.tokens, reference))
}

impl Measured {
    /// Adds what was measured. An answer that differs from an earlier one replaces it with its times.
    pub fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Load(load) if self.loads.contains(&load) => {}
            Entry::Load(load) => self.loads.push(load),
            Entry::Answer { question, answered, run } => {
                let turn = Turn { answered, runs: run.into_iter().collect() };
                match self.turns.get_mut(&question).filter(|known| known.answered == turn.answered) {
                    // A journal that was recorded, but not removed any more, has the same runs again.
                    Some(known) => {
                        let new = turn.runs.into_iter().filter(|run| !known.runs.contains(run));
                        let new: Vec<_> = new.collect();
                        known.runs.extend(new);
                    }
                    None => drop(self.turns.insert(question, turn)),
                }
            }
            Entry::Reading { text, reading } => drop(self.readings.insert(text, reading)),
        }
    }

    /// Adds what `other` has and this has not. Of one answer, the one that was timed more often counts.
    pub fn merge(&mut self, other: Self) {
        if self.loads.is_empty() {
            self.loads = other.loads;
        }
        for (question, turn) in other.turns {
            let known = self.turns.get(&question).map_or(0, |known| known.runs.len() + 1);
            if turn.runs.len() + 1 > known {
                self.turns.insert(question, turn);
            }
        }
        for (text, reading) in other.readings {
            self.readings.entry(text).or_insert(reading);
        }
    }

    /// Adds the questions and texts that this does not have at all.
    pub fn fill(&mut self, other: Self) {
        for (question, turn) in other.turns {
            self.turns.entry(question).or_insert(turn);
        }
        for (text, reading) in other.readings {
            self.readings.entry(text).or_insert(reading);
        }
        if self.loads.is_empty() {
            self.loads = other.loads;
        }
    }

    /// Returns everything as entries, in a fixed order.
    pub fn entries(&self) -> Vec<Entry> {
        let loads = self.loads.iter().cloned().map(Entry::Load);
        let answers = self.turns.iter().flat_map(|(question, Turn { answered, runs })| {
            let runs: Vec<_> =
                if runs.is_empty() { vec![None] } else { runs.iter().copied().map(Some).collect() };
            let answer = |run| Entry::Answer { question: *question, answered: answered.clone(), run };
            runs.into_iter().map(answer)
        });
        let readings = self.readings.iter();
        let readings =
            readings.map(|(text, reading)| Entry::Reading { text: *text, reading: reading.clone() });
        loads.chain(answers).chain(readings).collect()
    }

    /// Returns the times of loading.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// Returns the answer to a question.
    pub fn turn(&self, question: &Digest) -> Option<&Turn> {
        self.turns.get(question)
    }

    /// Returns what was measured of a text.
    pub fn reading(&self, text: &Digest) -> Option<&Reading> {
        self.readings.get(text)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.loads.is_empty() && self.turns.is_empty() && self.readings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Spoken;

    fn answer(name: &str, text: &str, seconds: f64) -> Entry {
        let run = Run {
            prompt_tokens: 1,
            prefill_seconds: seconds,
            new_tokens: 1,
            decode_seconds: 0.0,
            peak_memory_bytes: 1,
        };
        let answered = Answered::Text(Spoken { text: text.to_owned(), ..Spoken::default() });
        Entry::Answer { question: Digest::of(name.as_bytes()), answered, run: Some(run) }
    }

    fn measured(entries: &[Entry]) -> Measured {
        let mut measured = Measured::default();
        entries.iter().cloned().for_each(|entry| measured.add(entry));
        measured
    }

    #[test]
    fn repeats_are_kept_and_another_answer_replaces() {
        let twice = measured(&[answer("q", "yes", 1.0), answer("q", "yes", 2.0)]);
        assert_eq!(twice.turn(&Digest::of(b"q")).unwrap().runs.len(), 2);
        let other = measured(&[answer("q", "yes", 1.0), answer("q", "no", 2.0)]);
        assert_eq!(other.turn(&Digest::of(b"q")).unwrap().runs.len(), 1);
        assert_eq!(measured(&twice.entries()), twice);
        // The same lines again, and a forced measurement that is recorded over an older one.
        assert_eq!(measured(&[twice.entries(), twice.entries()].concat()), twice);
        let mut forced = measured(&[answer("q", "no", 5.0)]);
        forced.fill(twice);
        assert_eq!(forced.turn(&Digest::of(b"q")).unwrap().runs.len(), 1);
    }

    #[test]
    fn what_is_known_twice_is_known_once() {
        let mut ours = measured(&[answer("q", "yes", 1.0), answer("r", "yes", 1.0), answer("r", "yes", 3.0)]);
        let theirs = measured(&[answer("q", "yes", 1.0), answer("q", "yes", 2.0), answer("s", "yes", 1.0)]);
        ours.merge(theirs.clone());
        ours.merge(theirs);
        let runs = |name: &str| ours.turn(&Digest::of(name.as_bytes())).unwrap().runs.len();
        assert_eq!([runs("q"), runs("r"), runs("s")], [2, 2, 1]);
    }
}
