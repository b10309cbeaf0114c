//! How many answers are right: of all queries, or of those of a category.
//! Knows nothing of how an answer is scored.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::interval::wilson_of_share;

/// How many answers are right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// How many answers are right.
    pub correct: usize,
    /// How many queries were scored.
    pub total: usize,
    /// The share of right answers, by weight; of a query with samples, the share of right samples.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy, by [`wilson`](super::wilson). With weights, the number of queries in it is the
    /// effective one, `(Σ w)² / Σ w²` (Kish 1965, *Survey Sampling*, 11.2).
    pub accuracy_interval: [f64; 2],
    /// The mean share of what was wanted that the answers have, by weight; `None` if every answer has all or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<f64>,
}

/// How often at least one of `k` samples is right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassAtK {
    /// How many samples are drawn: the fewest that a query has.
    pub k: usize,
    /// How many queries have samples.
    pub queries: usize,
    /// The mean over the queries of `1 - C(n-c, k) / C(n, k)`, for `c` right samples of `n` (Chen et al. 2021,
    /// arXiv:2107.03374).
    pub value: f64,
    /// Its 95 % interval, by [`wilson`](super::wilson) over the queries.
    pub interval: [f64; 2],
}

impl Tally {
    /// Counts the answers that were scored.
    pub fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Self {
        let scored: Vec<_> = answers.filter(|answer| answer.not_scored.is_none()).collect();
        let weights = || scored.iter().map(|answer| answer.weight.unwrap_or(1.0));
        let sum: f64 = weights().sum();
        let mean = |of: &dyn Fn(&Answer) -> f64| {
            let weighted: f64 =
                scored.iter().zip(weights()).map(|(answer, weight)| of(answer) * weight).sum();
            if sum > 0.0 { weighted / sum } else { 0.0 }
        };
        let accuracy = mean(&right_share);
        let effective = Self::effective(scored.iter().copied());
        let is_partial = scored.iter().any(|answer| answer.credit.is_some());
        Self {
            correct: scored.iter().filter(|answer| answer.pass).count(),
            total: scored.len(),
            accuracy,
            accuracy_interval: wilson_of_share(accuracy * effective, effective),
            credit: is_partial.then(|| mean(&|answer| answer.credit.unwrap_or_else(|| right_share(answer)))),
        }
    }

    /// Returns the effective number of queries that were scored: `(Σ w)² / Σ w²`.
    pub(crate) fn effective<'a>(answers: impl Iterator<Item = &'a Answer>) -> f64 {
        let scored = answers.filter(|answer| answer.not_scored.is_none());
        let (mut sum, mut squares) = (0.0, 0.0);
        for weight in scored.map(|answer| answer.weight.unwrap_or(1.0)) {
            sum += weight;
            squares += weight * weight;
        }
        if squares > 0.0 { sum * sum / squares } else { 0.0 }
    }

    /// Counts the answers of each category, in the order of the first query of each.
    pub fn by_category(answers: &[Answer]) -> IndexMap<String, Self> {
        let names = answers.iter().filter_map(|answer| answer.category.clone());
        let names: indexmap::IndexSet<_> = names.collect();
        let of = |name: String| {
            let tally = Self::of(answers.iter().filter(|answer| answer.category.as_ref() == Some(&name)));
            (name, tally)
        };
        names.into_iter().map(of).collect()
    }
}

/// Returns 1 for a right answer and 0 for a wrong one; of samples, the share of right ones.
fn right_share(answer: &Answer) -> f64 {
    match answer.samples.len() {
        0 => f64::from(u8::from(answer.pass)),
        count => answer.samples.iter().filter(|sample| sample.pass).count() as f64 / count as f64,
    }
}

impl PassAtK {
    /// Returns the figure of the queries with samples; `None` if there are none.
    pub fn of(answers: &[Answer]) -> Option<Self> {
        let sampled: Vec<_> = answers
            .iter()
            .filter(|answer| answer.not_scored.is_none() && !answer.samples.is_empty())
            .collect();
        let k = sampled.iter().map(|answer| answer.samples.len()).min()?;
        let one = |answer: &&Answer| {
            let wrong = answer.samples.iter().filter(|sample| !sample.pass).count();
            // C(wrong, k) / C(n, k), factor by factor.
            let all_wrong: f64 = (0..k)
                .map(|drawn| wrong.saturating_sub(drawn) as f64 / (answer.samples.len() - drawn) as f64)
                .product();
            1.0 - all_wrong
        };
        let (right, queries): (f64, _) = (sampled.iter().map(one).sum(), sampled.len());
        let interval = wilson_of_share(right, queries as f64);
        Some(Self { k, queries, value: right / queries as f64, interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sample, sample, wilson};

    fn answers(of: &[(bool, Option<f64>, &str)]) -> Vec<Answer> {
        let first = sample::plain().results.configs[0].answers[0].clone();
        let answer = |(pass, weight, category): &(bool, Option<f64>, &str)| Answer {
            pass: *pass,
            weight: *weight,
            category: (!category.is_empty()).then(|| (*category).to_owned()),
            ..first.clone()
        };
        of.iter().map(answer).collect()
    }

    #[test]
    fn weights_and_categories_count() {
        let answers = answers(&[
            (true, None, "git"),
            (false, Some(3.0), "git"),
            (true, None, ""),
            (true, None, "math"),
        ]);
        let all = Tally::of(answers.iter());
        assert_eq!((all.correct, all.total, all.accuracy, all.credit), (3, 4, 0.5, None));
        // The effective number of queries is 36 / 12.
        assert_eq!(all.accuracy_interval, wilson_of_share(1.5, 3.0));
        let categories = Tally::by_category(&answers);
        assert_eq!(categories.keys().collect::<Vec<_>>(), ["git", "math"]);
        assert_eq!((categories["git"].accuracy, categories["math"].accuracy_interval), (0.25, wilson(1, 1)));
    }

    #[test]
    fn one_of_k_samples_is_enough() {
        let mut answers = answers(&[(true, None, ""), (false, None, "")]);
        let samples = |right: usize, of: usize| {
            (0..of).map(|number| Sample { text: String::new(), pass: number < right }).collect::<Vec<_>>()
        };
        assert_eq!(PassAtK::of(&answers), None);
        answers[0].samples = samples(1, 4);
        answers[1].samples = samples(0, 4);
        let pass = PassAtK::of(&answers).unwrap();
        assert_eq!((pass.k, pass.queries, pass.value, pass.interval), (4, 2, 0.5, wilson(1, 2)));
        assert_eq!(Tally::of(answers.iter()).accuracy, 0.125);
        // With more samples than k, the estimator is 1 - C(3, 2) / C(4, 2).
        answers[1].samples = samples(0, 2);
        assert_eq!(PassAtK::of(&answers).unwrap().value, 0.25);
    }
}
