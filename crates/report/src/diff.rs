//! Two configurations side by side: every figure that both have, and the answers that differ.
//! Knows nothing of whether the two come from one run or from two.

use serde::Serialize;

use super::{ConfigResults, Quantity};
use crate::Timings;

/// One of the two configurations that are compared.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is the same on every run.
    pub results: &'a ConfigResults,
    /// What differs from run to run, if it was measured.
    pub timings: Option<&'a Timings>,
}

/// The differences between two configurations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// The names of the two.
    pub names: [String; 2],
    /// Every figure that both have.
    pub figures: Vec<Row>,
    /// The queries where the two answers have different texts, or where only one answer is right.
    pub answers: Vec<Changed>,
    /// How many answers are right only in the first, and only in the second.
    pub right_in_one: [usize; 2],
    /// The two-sided p-value of McNemar's exact test on `right_in_one`: the probability of a split that is at
    /// least as uneven if both are equally good.
    pub p_value: f64,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The two values for people.
    pub shown: [String; 2],
    /// The two values as numbers.
    pub values: [f64; 2],
}

/// One query that the two answered differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// What was asked.
    pub prompt: String,
    /// The two answers.
    pub texts: [String; 2],
    /// Whether each is right.
    pub pass: [bool; 2],
}

impl Diff {
    /// Compares two configurations that answered the same queries. Answers are paired by their position;
    /// pairs with different prompts are skipped.
    pub fn of(a: Side<'_>, b: Side<'_>) -> Self {
        let pairs = a.results.answers.iter().zip(&b.results.answers);
        let answers: Vec<_> = pairs
            .filter(|(a, b)| a.prompt == b.prompt && a.not_scored.is_none() && b.not_scored.is_none())
            .filter(|(a, b)| a.text != b.text || a.pass != b.pass)
            .map(|(a, b)| Changed {
                prompt: a.prompt.clone(),
                texts: [a.text.clone(), b.text.clone()],
                pass: [a.pass, b.pass],
            })
            .collect();
        let only = |pass: [bool; 2]| answers.iter().filter(|answer| answer.pass == pass).count();
        let right_in_one = [only([true, false]), only([false, true])];
        Self {
            names: [a.name.to_owned(), b.name.to_owned()],
            figures: figures(a, b),
            answers,
            right_in_one,
            p_value: mcnemar(right_in_one),
        }
    }

    /// Whether nothing differs, apart from figures that vary from run to run (memory, load, prefill, decode).
    pub fn is_empty(&self) -> bool {
        let timed = ["memory", "load", "prefill", "decode"];
        let differs = |row: &Row| !timed.contains(&row.name) && row.values[0] != row.values[1];
        self.answers.is_empty() && !self.figures.iter().any(differs)
    }
}

fn figures(a: Side<'_>, b: Side<'_>) -> Vec<Row> {
    type Figure = (&'static str, fn(&Side<'_>) -> Option<f64>, fn(f64) -> String);
    const FIGURES: [Figure; 12] = [
        ("accuracy", |side| some(side.results.total, side.results.accuracy), |v| Quantity::Accuracy.show(v)),
        ("exact", |side| some(side.results.exact_total, side.results.exact as f64), |v| format!("{v}")),
        ("perplexity", |side| side.results.perplexity.map(|it| it.value), |v| Quantity::Perplexity.show(v)),
        ("kl", |side| side.results.divergence.map(|it| it.mean_kl), |v| Quantity::Kl.show(v)),
        (
            "top-1 agreement",
            |side| side.results.divergence.map(|it| it.top1_agreement),
            |v| Quantity::Accuracy.show(v),
        ),
        (
            "survival",
            |side| Some(side.results.survival.as_ref()?.overall.survival),
            |v| Quantity::Survival.show(v),
        ),
        ("disk", |side| Some(side.results.disk_bytes as f64), |v| Quantity::Disk.show(v)),
        ("bits/weight", |side| Some(side.results.bits_per_weight), |v| format!("{v:.2}")),
        ("memory", |side| Some(side.timings?.peak_memory_bytes as f64), |v| Quantity::Memory.show(v)),
        ("load", |side| Some(side.timings?.load_seconds), |v| Quantity::Load.show(v)),
        ("prefill", |side| Some(side.timings?.prefill_tokens_per_second), |v| Quantity::Speed.show(v)),
        ("decode", |side| Some(side.timings?.decode_tokens_per_second), |v| Quantity::Speed.show(v)),
    ];
    let row = |(name, value, show): &Figure| {
        let values = [value(&a)?, value(&b)?];
        Some(Row { name, shown: values.map(show), values })
    };
    FIGURES.iter().filter_map(row).collect()
}

fn some(count: usize, value: f64) -> Option<f64> {
    (count > 0).then_some(value)
}

/// Returns the two-sided p-value of McNemar's exact test (McNemar 1947, Psychometrika 12:153).
///
/// `a` answers are right only in the first, and `b` only in the second. If both are equally good, each of
/// these `n = a + b` answers is as likely to be right in the first as in the second. So the split is binomial
/// with probability 1/2.
pub(crate) fn mcnemar([a, b]: [usize; 2]) -> f64 {
    let (n, few) = (a + b, a.min(b));
    // The terms of the binomial are logarithms: with some thousand queries, 2^-n is too small for a float.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = term.exp();
    for k in 1..=few {
        term += ((n - k + 1) as f64 / k as f64).ln();
        tail += term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
    #[test]
    fn agrees_with_statsmodels() {
        let rounded = |split| (mcnemar(split) * 1e6).round() / 1e6;
        assert_eq!(rounded([0, 0]), 1.0);
        assert_eq!(rounded([5, 0]), 0.0625);
        assert_eq!(rounded([1, 9]), 0.021484);
        assert_eq!(rounded([6, 6]), 1.0);
        assert!(mcnemar([3000, 1000]) < 1e-200);
    }
}
