//! Whether a bound is within the error of what was measured, and how much more would have to be measured to decide.
//! Knows nothing of gates, nor of what follows.

use super::diff::mcnemar;
use super::interval::wilson_of_share;
use super::{Bound, ConfigResults, PassAtK, Quantity, Spread, Tally, Timings};

/// The 97.5th percentile of the normal distribution: two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A difference with a larger p-value than this is within the error.
const SIGNIFICANT: f64 = 0.05;

/// How many repeats a speed needs before its spread says anything.
const REPEATS: usize = 3;

/// The most queries that are suggested. More than this is no advice.
const MOST: f64 = 100_000.0;

/// A figure with its error.
pub(super) struct Measured {
    pub(super) value: f64,
    /// For people.
    pub(super) shown: String,
    error: MeasuredError,
}

/// What is known of the error of a figure.
enum MeasuredError {
    /// It has none: the same comes out every time.
    None,
    /// It is a share of so many queries.
    Queries(f64),
    /// It has this standard error, and comes from so many tokens.
    Tokens(f64, usize),
    /// It has this standard deviation over its mean, from so many repeats.
    Repeats(Option<f64>, usize),
}

/// What a bound within the error means for a criterion.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Noise {
    pub(super) within_error: bool,
    pub(super) p_value: Option<f64>,
    pub(super) needs: Option<String>,
}

impl Measured {
    /// Returns a figure of a configuration; `None` if it was not measured.
    pub(super) fn of(
        quantity: Quantity,
        category: Option<&str>,
        results: &ConfigResults,
        timings: Option<&Timings>,
    ) -> Option<Self> {
        let spread = || results.divergence.and_then(|divergence| divergence.spread);
        let tokens = results.divergence.map_or(0, |divergence| divergence.tokens);
        let of_spread = |value: fn(&Spread) -> (f64, f64)| {
            let (value, error) = value(&spread()?);
            Some((value, MeasuredError::Tokens(error, tokens)))
        };
        let timed = |value: fn(&Timings) -> f64, error: fn(&Timings) -> MeasuredError| {
            timings.map(|timings| (value(timings), error(timings)))
        };
        let (value, error) = match quantity {
            Quantity::Accuracy | Quantity::Credit => return Self::of_tally(quantity, category, results),
            Quantity::Exact => {
                let total = results.exact_total as f64;
                (total > 0.0).then(|| (results.exact as f64 / total, MeasuredError::Queries(total)))
            }
            Quantity::PassAtK => results
                .pass_at_k
                .map(|PassAtK { value, queries, .. }| (value, MeasuredError::Queries(queries as f64))),
            Quantity::Disk => Some((results.disk_bytes as f64, MeasuredError::None)),
            Quantity::Survival => {
                let survival = results.survival.as_ref();
                survival.map(|survival| (survival.overall.survival, MeasuredError::None))
            }
            Quantity::Memory => timed(|it| it.peak_memory_bytes as f64, |_| MeasuredError::None),
            Quantity::Load => timed(|it| it.load_seconds, |_| MeasuredError::None),
            Quantity::Speed => {
                timed(|it| it.decode_tokens_per_second, |it| MeasuredError::Repeats(it.spread, it.repeats))
            }
            Quantity::Perplexity => {
                results.perplexity.map(|it| (it.value, MeasuredError::Tokens(it.standard_error, it.tokens)))
            }
            Quantity::Kl => {
                results.divergence.map(|it| (it.mean_kl, MeasuredError::Tokens(it.standard_error, it.tokens)))
            }
            Quantity::KlMedian => of_spread(|it| (it.median, it.errors.median)),
            Quantity::KlP99 => of_spread(|it| (it.p99, it.errors.p99)),
            Quantity::KlP999 => of_spread(|it| (it.p99_9, it.errors.p99_9)),
            Quantity::KlMax => of_spread(|it| (it.max, it.errors.max)),
            Quantity::DeltaP => of_spread(|it| (it.delta_p, it.errors.delta_p)),
            Quantity::Flips => of_spread(|it| (it.flips, it.errors.flips)),
        }?;
        let plain = quantity.show(value);
        let shown = match (&error, timings.and_then(|timings| timings.load_average)) {
            (MeasuredError::Repeats(Some(spread), _), Some(load)) => {
                format!("{plain} ±{:.1}%, load {load:.1}", spread * 100.0)
            }
            (MeasuredError::Repeats(Some(spread), _), None) => format!("{plain} ±{:.1}%", spread * 100.0),
            _ => plain,
        };
        Some(Self { value, shown, error })
    }

    /// Returns a share of queries. It is written with its interval, because 5 of 5 is not certainty.
    fn of_tally(quantity: Quantity, category: Option<&str>, results: &ConfigResults) -> Option<Self> {
        let whole = || Tally {
            correct: results.correct,
            total: results.total,
            accuracy: results.accuracy,
            accuracy_interval: results.accuracy_interval,
            credit: results.credit,
        };
        let tally = category.map_or_else(|| Some(whole()), |name| results.categories.get(name).copied())?;
        if tally.total == 0 {
            return None;
        }
        let Tally { correct, total, accuracy, accuracy_interval, credit } = tally;
        let of_category =
            results.answers.iter().filter(|it| category.is_none() || it.category.as_deref() == category);
        let effective = if results.answers.is_empty() { total as f64 } else { Tally::effective(of_category) };
        let error = MeasuredError::Queries(effective);
        if quantity == Quantity::Credit {
            let value = credit.unwrap_or(accuracy);
            return Some(Self { value, shown: quantity.show(value), error });
        }
        let [low, high] = accuracy_interval.map(|end| end * 100.0);
        let shown = format!("{} ({correct}/{total}, 95%: {low:.0} to {high:.0}%)", quantity.show(accuracy));
        Some(Self { value: accuracy, shown, error })
    }
}

impl Measured {
    /// Whether the figure differs from an earlier one by more than both errors together.
    pub(super) fn differs_from(&self, was: &Self, quantity: Quantity) -> bool {
        let distance = (self.value - was.value).abs();
        let reach = |errors: [f64; 2]| Z * errors[0].hypot(errors[1]);
        match (&self.error, &was.error) {
            (MeasuredError::Tokens(a, _), MeasuredError::Tokens(b, _)) => distance > reach([*a, *b]),
            (MeasuredError::Repeats(Some(a), n), MeasuredError::Repeats(Some(b), m))
                if *n.min(m) >= REPEATS =>
            {
                let error =
                    |spread: f64, value: f64, repeats: usize| spread * value / (repeats as f64).sqrt();
                distance > reach([error(*a, self.value, *n), error(*b, was.value, *m)])
            }
            // Without repeats it is not known how much a speed varies.
            (MeasuredError::Repeats(..), _) | (_, MeasuredError::Repeats(..)) => false,
            (MeasuredError::Queries(n), MeasuredError::Queries(m)) => {
                let error = |share: f64, total: f64| (share * (1.0 - share) / total.max(1.0)).sqrt();
                distance > reach([error(self.value, *n), error(was.value, *m)]).max(f64::EPSILON)
            }
            // What a process takes varies a little from run to run.
            _ if quantity == Quantity::Memory => distance > 0.05 * was.value,
            _ if quantity == Quantity::Load => false,
            _ => distance > 0.0,
        }
    }
}

impl Noise {
    /// Compares a figure with a bound that is no factor.
    pub(super) fn of_value(bound: &Bound, measured: &Measured) -> Self {
        let (value, number) = (measured.value, bound.number());
        match measured.error {
            MeasuredError::None => Self::default(),
            // Whoever asks for all or for none asks about the queries of this suite.
            MeasuredError::Queries(_) if number <= 0.0 || number >= 1.0 => Self::default(),
            MeasuredError::Queries(total) => {
                let reaches = |total: f64| is_within(number, wilson_of_share(value * total, total));
                Self::within(reaches(total), || more_queries(total, &reaches))
            }
            MeasuredError::Tokens(error, tokens) => {
                let reach = Z * error;
                let distance = (value - number).abs();
                Self::within(distance <= reach, || {
                    let more = tokens as f64 * ((reach / distance).powi(2) - 1.0);
                    (more.is_finite() && more < MOST * 1000.0)
                        .then(|| format!("about {} more tokens of text would decide", rounded(more.max(1.0))))
                })
            }
            MeasuredError::Repeats(_, repeats) if repeats < REPEATS => Self::of_few(),
            MeasuredError::Repeats(spread, repeats) => {
                let reach = Z * value * spread.unwrap_or(0.0) / (repeats as f64).sqrt();
                Self::within((value - number).abs() <= reach, || {
                    Some("more `repeats` would decide".to_owned())
                })
            }
        }
    }

    /// Compares the factor between two figures with a bound.
    pub(super) fn of_factor(
        bound: &Bound,
        factor: f64,
        (quantity, category): (Quantity, Option<&str>),
        [own, other]: [&Measured; 2],
        configs: (Option<&ConfigResults>, Option<&ConfigResults>),
    ) -> Self {
        match (&own.error, &other.error) {
            (MeasuredError::Queries(n), MeasuredError::Queries(m)) => match configs {
                (Some(own), Some(other)) if quantity == Quantity::Accuracy => {
                    Self::of_pair(bound, factor, category, own, other)
                }
                _ => {
                    let relative = |it: &Measured, n: f64| (1.0 - it.value) / (it.value * n);
                    let reach = Z * factor * (relative(own, *n) + relative(other, *m)).max(0.0).sqrt();
                    let within = (factor - bound.number()).abs() <= reach;
                    Self::within(within, || Some("more queries would decide".to_owned()))
                }
            },
            (MeasuredError::Tokens(a, tokens), MeasuredError::Tokens(b, _)) => {
                let relative = ((a / own.value).powi(2) + (b / other.value).powi(2)).sqrt();
                let measured = Measured {
                    value: factor,
                    shown: String::new(),
                    error: MeasuredError::Tokens(factor * relative, *tokens),
                };
                Self::of_value(bound, &measured)
            }
            (MeasuredError::Repeats(a, first), MeasuredError::Repeats(b, second)) => {
                if (*first).min(*second) < REPEATS {
                    return Self::of_few();
                }
                let relative =
                    |spread: &Option<f64>, repeats: usize| spread.unwrap_or(0.0).powi(2) / repeats as f64;
                let reach = Z * factor * (relative(a, *first) + relative(b, *second)).sqrt();
                let within = (factor - bound.number()).abs() <= reach;
                Self::within(within, || Some("more `repeats` would decide".to_owned()))
            }
            _ => Self::default(),
        }
    }

    /// Compares the accuracies of two configurations that answered the same queries. If McNemar's test does not tell
    /// them apart, the true factor may as well be 1: then a bound between 1 and the measured factor is within the error.
    fn of_pair(
        bound: &Bound,
        factor: f64,
        category: Option<&str>,
        own: &ConfigResults,
        other: &ConfigResults,
    ) -> Self {
        let pairs = own.answers.iter().zip(&other.answers);
        let scored: Vec<_> = pairs
            .filter(|(a, _)| category.is_none() || a.category.as_deref() == category)
            .filter(|(a, b)| a.prompt == b.prompt && a.not_scored.is_none() && b.not_scored.is_none())
            .map(|(a, b)| [a.pass, b.pass])
            .collect();
        let only = |pass: [bool; 2]| scored.iter().filter(|pair| **pair == pass).count();
        let split = [only([true, false]), only([false, true])];
        let p_value = mcnemar(split);
        let within = p_value > SIGNIFICANT && bound.holds(1.0) != bound.holds(factor);
        let needs = || {
            let is_enough = |scale: usize| mcnemar(split.map(|count| count * scale)) <= SIGNIFICANT;
            // Two that are equal stay equal.
            let mut enough =
                (1..14).map(|power| 1 << power).find(|scale| split[0] != split[1] && is_enough(*scale))?;
            let mut short = enough / 2;
            while enough - short > 1 {
                let middle = usize::midpoint(short, enough);
                if is_enough(middle) { enough = middle } else { short = middle }
            }
            let scale = enough;
            Some(format!("about {} more queries would decide", rounded(((scale - 1) * scored.len()) as f64)))
        };
        Self { p_value: Some(p_value), ..Self::within(within, needs) }
    }

    fn within(within_error: bool, needs: impl FnOnce() -> Option<String>) -> Self {
        Self { within_error, p_value: None, needs: if within_error { needs() } else { None } }
    }

    /// A speed that was measured too few times.
    fn of_few() -> Self {
        let needs = Some(format!("`repeats: {REPEATS}` or more in the suite would tell how much it varies"));
        Self { within_error: true, p_value: None, needs }
    }
}

fn is_within(bound: f64, [low, high]: [f64; 2]) -> bool {
    (low..=high).contains(&bound)
}

/// Says how many more queries would decide, if as many of them were right: `reaches` says whether the error of so many
/// queries reaches the bound.
fn more_queries(total: f64, reaches: &dyn Fn(f64) -> bool) -> Option<String> {
    if reaches(MOST) {
        return None;
    }
    let (mut short, mut enough) = (total, MOST);
    while enough - short > 1.0 {
        let middle = ((short + enough) / 2.0).floor();
        if reaches(middle) { short = middle } else { enough = middle }
    }
    Some(format!("about {} more queries would decide", rounded((enough - total).max(1.0))))
}

/// Writes a number with two digits that count: more would only look exact.
fn rounded(number: f64) -> String {
    let scale = 10_f64.powf((number.log10().floor() - 1.0).max(0.0));
    format!("{:.0}", (number / scale).ceil() * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    fn of_queries(value: f64, total: f64, bound: &str) -> Noise {
        let bound = Bound::parse(Quantity::Accuracy, bound).unwrap();
        Noise::of_value(
            &bound,
            &Measured { value, shown: String::new(), error: MeasuredError::Queries(total) },
        )
    }

    #[test]
    fn a_bound_in_the_interval_is_within_the_error() {
        // 18 of 20 is 70 % to 97 %.
        assert!(of_queries(0.9, 20.0, ">= 0.8").within_error);
        assert!(
            !of_queries(0.9, 20.0, ">= 0.6").within_error && !of_queries(0.9, 20.0, ">= 0.98").within_error
        );
        let needs = of_queries(0.9, 20.0, ">= 0.8").needs.unwrap();
        assert_eq!(needs, "about 42 more queries would decide");
        let low = wilson_of_share(0.9 * 61.0, 61.0)[0];
        assert!(low < 0.8 && wilson_of_share(0.9 * 62.0, 62.0)[0] > 0.8, "{low}");
        // No number of queries tells 80 % from 80 %.
        assert_eq!(of_queries(0.8, 20.0, ">= 0.8").needs, None);
        // Who asks for all asks about these queries.
        assert_eq!(of_queries(1.0, 5.0, ">= 1.0"), Noise::default());
        assert_eq!(of_queries(0.8, 5.0, ">= 100%"), Noise::default());
    }

    #[test]
    fn a_figure_of_texts_has_its_standard_error() {
        let bound = Bound::parse(Quantity::Kl, "<= 0.10").unwrap();
        let noise = |value| {
            let error = MeasuredError::Tokens(0.01, 500);
            Noise::of_value(&bound, &Measured { value, shown: String::new(), error })
        };
        assert!(!noise(0.13).within_error && !noise(0.05).within_error);
        assert_eq!(noise(0.11).needs.unwrap(), "about 1500 more tokens of text would decide");
    }

    #[test]
    fn a_speed_needs_three_repeats() {
        let bound = Bound::parse(Quantity::Speed, ">= 100 t/s").unwrap();
        let noise = |value, spread, repeats| {
            let error = MeasuredError::Repeats(spread, repeats);
            Noise::of_value(&bound, &Measured { value, shown: String::new(), error })
        };
        assert!(noise(150.0, None, 1).needs.unwrap().starts_with("`repeats: 3`"));
        assert!(noise(101.0, Some(0.02), 3).within_error && !noise(110.0, Some(0.02), 3).within_error);
    }

    #[test]
    fn factors_of_accuracy_are_paired() {
        let config = |right: &[bool]| {
            let answers: Vec<_> =
                right.iter().map(|pass| Answer { pass: *pass, ..Answer::default() }).collect();
            ConfigResults { answers, ..ConfigResults::default() }
        };
        let bound = Bound::parse(Quantity::Accuracy, ">= 0.95x").unwrap();
        let all = config(&[true; 20]);
        let few = config(&[&[false; 2][..], &[true; 18]].concat());
        let noise = Noise::of_pair(&bound, 0.9, None, &few, &all);
        assert_eq!((noise.within_error, noise.p_value), (true, Some(0.5)));
        assert_eq!(noise.needs.unwrap(), "about 40 more queries would decide");
        let many = config(&[&[false; 8][..], &[true; 12]].concat());
        let noise = Noise::of_pair(&bound, 0.6, None, &many, &all);
        assert!(!noise.within_error && noise.p_value.unwrap() < 0.01);
        // The measured factor and 1 are on the same side.
        assert!(
            !Noise::of_pair(&Bound::parse(Quantity::Accuracy, ">= 0.8x").unwrap(), 0.9, None, &few, &all)
                .within_error
        );
    }
}
