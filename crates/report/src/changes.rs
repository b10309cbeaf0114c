//! What changed since the last run of a benchmark: figures that moved beyond their noise, and answers that flipped.
//! Knows nothing of where the last run is kept.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::noise::Measured;
use super::{AllTimings, Answer, Quantity, Results};

/// What changed since the last run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// When the last run was, if it is known.
    pub since: Option<String>,
    /// The configurations that the last run did not have.
    pub added: Vec<String>,
    /// The configurations that only the last run had.
    pub gone: Vec<String>,
    /// The figures that moved beyond their noise.
    pub figures: Vec<Moved>,
    /// The answers that became right or wrong.
    pub flips: Vec<Flip>,
}

/// A figure that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The configuration.
    pub config: String,
    /// The quantity.
    pub quantity: Quantity,
    /// What it was, for people.
    pub was: String,
    /// What it is, for people.
    pub now: String,
}

/// An answer that became right or wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// The configuration.
    pub config: String,
    /// What was asked.
    pub prompt: String,
    /// Whether it is right now.
    pub pass: bool,
}

impl Changes {
    /// Compares two runs of one benchmark; `None` if nothing changed.
    pub fn between(old: (&Results, &AllTimings), new: (&Results, &AllTimings)) -> Option<Self> {
        let names = |results: &Results, other: &Results| {
            let names = results.configs.keys().filter(|name| !other.configs.contains_key(*name));
            names.cloned().collect::<Vec<_>>()
        };
        let mut changes = Self {
            since: old.1.run.as_ref().map(|run| run.date.clone()),
            added: names(new.0, old.0),
            gone: names(old.0, new.0),
            ..Self::default()
        };
        for (config, results) in &new.0.configs {
            let Some(before) = old.0.configs.get(config) else { continue };
            for (_, quantity) in Quantity::WORDS {
                let was = Measured::of(quantity, None, before, old.1.configs.get(config));
                let now = Measured::of(quantity, None, results, new.1.configs.get(config));
                if let (Some(was), Some(now)) = (was, now)
                    && now.differs_from(&was, quantity)
                {
                    let config = config.clone();
                    changes.figures.push(Moved { config, quantity, was: was.shown, now: now.shown });
                }
            }
            changes.flips.extend(flips(config, &before.answers, &results.answers));
        }
        (Self { since: changes.since.clone(), ..Self::default() } != changes).then_some(changes)
    }
}

/// Returns the answers that became right or wrong. The nth query with a prompt is compared with the nth before; what was
/// not scored is left out.
fn flips(config: &str, before: &[Answer], now: &[Answer]) -> Vec<Flip> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut flips = Vec::new();
    for answer in now {
        let number = seen.entry(&answer.prompt).or_default();
        let was = before.iter().filter(|old| old.prompt == answer.prompt).nth(*number);
        *number += 1;
        let Some(was) = was.filter(|was| was.not_scored.is_none() && answer.not_scored.is_none()) else {
            continue;
        };
        if was.pass != answer.pass {
            flips.push(Flip { config: config.to_owned(), prompt: answer.prompt.clone(), pass: answer.pass });
        }
    }
    flips
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn only_what_moved_beyond_its_noise_is_said() {
        let (old, mut new) = (sample::rich(), sample::rich());
        let between = |new: &sample::Sample| {
            Changes::between((&old.results, &old.timings), (&new.results, &new.timings))
        };
        assert_eq!(between(&new), None);
        // The spread of 2.1 % in three repeats covers 1 %, and does not cover 20 %.
        new.timings.configs["8bit"].decode_tokens_per_second *= 1.01;
        assert_eq!(between(&new), None);
        new.timings.configs["8bit"].decode_tokens_per_second *= 1.2;
        new.results.configs["8bit"].disk_bytes += 1000;
        let answer = &mut new.results.configs["6bit"].answers[1];
        answer.pass = !answer.pass;
        let timings = new.timings.configs.shift_remove("base").unwrap();
        let results = new.results.configs.shift_remove("base").unwrap();
        new.results.configs.insert("new".to_owned(), results);
        new.timings.configs.insert("new".to_owned(), timings);
        let changes = between(&new).unwrap();
        assert_eq!((changes.added, changes.gone), (vec!["new".to_owned()], vec!["base".to_owned()]));
        let moved: Vec<_> =
            changes.figures.iter().map(|moved| (moved.config.as_str(), moved.quantity)).collect();
        assert_eq!(moved, [("8bit", Quantity::Disk), ("8bit", Quantity::Speed)]);
        assert_eq!((changes.flips.len(), changes.flips[0].config.as_str()), (1, "6bit"));
    }
}
