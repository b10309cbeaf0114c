//! The answers to each query; equal answers are grouped.
//! Knows nothing of how they are shown.

use super::{Answer, Report};

/// One query with its answers.
pub(super) struct Query<'a> {
    /// What was asked.
    pub(super) prompt: &'a str,
    /// Each configuration and whether it passed, in the order of the results; `None` if it was not scored.
    pub(super) passes: Vec<(&'a str, Option<bool>)>,
    /// The different answers, in the order of the first configuration that gave each.
    pub(super) answers: Vec<Same<'a>>,
}

/// One answer, and the configurations that gave it.
pub(super) struct Same<'a> {
    pub(super) configs: Vec<&'a str>,
    pub(super) answer: &'a Answer,
}

/// Whether an answer is right.
pub(super) enum Score<'a> {
    Pass,
    /// The scorers that it did not pass.
    Fail(Vec<&'a str>),
    /// Why it was not scored.
    None(&'a str),
}

impl Query<'_> {
    /// How many configurations passed.
    pub(super) fn passed(&self) -> usize {
        self.passes.iter().filter(|(_, pass)| *pass == Some(true)).count()
    }

    /// How many configurations were scored.
    pub(super) fn scored(&self) -> usize {
        self.passes.iter().filter(|(_, pass)| pass.is_some()).count()
    }

    /// Whether some passed and some did not.
    pub(super) fn is_split(&self) -> bool {
        (1..self.scored()).contains(&self.passed())
    }
}

impl<'a> Report<'a> {
    /// Returns every query, in the order of the suite.
    pub(super) fn queries(&self) -> Vec<Query<'a>> {
        let configs = &self.results.configs;
        let count = configs.values().map(|results| results.answers.len()).max().unwrap_or(0);
        let query = |index: usize| {
            let given = configs.iter().filter_map(|(name, results)| {
                results.answers.get(index).map(|answer| (name.as_str(), answer))
            });
            let mut query = Query { prompt: "", passes: Vec::new(), answers: Vec::<Same<'a>>::new() };
            for (name, answer) in given {
                query.prompt = &answer.prompt;
                query.passes.push((name, answer.not_scored.is_none().then_some(answer.pass)));
                match query.answers.iter_mut().find(|same| same.answer == answer) {
                    Some(same) => same.configs.push(name),
                    None => query.answers.push(Same { configs: vec![name], answer }),
                }
            }
            query
        };
        (0..count).map(query).collect()
    }
}

impl Answer {
    /// Returns the verdict on the answer in words: `pass`, `fail` with the scorers that it did not pass, or why
    /// it was not scored.
    pub(super) fn verdict(&self) -> Score<'_> {
        match (&self.not_scored, self.pass) {
            (Some(reason), _) => Score::None(reason),
            (None, true) => Score::Pass,
            (None, false) => Score::Fail(self.failed()),
        }
    }

    /// Says how much the model thought before it answered, and why there is no answer; `None` if it did not think.
    pub(super) fn thought_note(&self) -> Option<String> {
        let thought = || match self.thought_tokens {
            0 => None,
            1 => Some("thought for 1 token".to_owned()),
            tokens => Some(format!("thought for {tokens} tokens")),
        };
        match &self.no_answer {
            Some(why) => Some(thought().map_or_else(|| why.clone(), |thought| format!("{thought}, {why}"))),
            None => thought(),
        }
    }

    /// Whether it is the exact text that the query gives, apart from white space around it.
    pub fn is_exact(&self) -> bool {
        self.scores.get("answer") == Some(&true)
    }

    /// Returns the scorers that the answer did not pass.
    pub(super) fn failed(&self) -> Vec<&str> {
        self.scores.iter().filter(|(_, pass)| !**pass).map(|(scorer, _)| scorer.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn the_same_answer_is_shown_once() {
        let sample = sample::plain();
        let queries = sample.report().queries();
        assert_eq!(queries.len(), 5);
        let last = &queries[4];
        let groups: Vec<_> = last.answers.iter().map(|same| same.configs.as_slice()).collect();
        assert_eq!(groups, [&["base", "4bit"][..], &["adapter", "fused-f16", "8bit", "6bit"]]);
        assert_eq!((last.passed(), last.is_split()), (4, true));
        assert_eq!(last.answers[0].answer.failed(), ["expect"]);
        assert!(!queries[0].is_split());
    }
}
