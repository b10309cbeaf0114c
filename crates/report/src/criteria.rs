//! The questions of an experiment, written down before it runs: criteria, gates and verdicts.
//! Knows nothing of the answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use text::units::{SIZES, size, speed};

/// What a criterion measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// The share of right answers.
    Accuracy,
    /// The share of answers that are exactly the expected text.
    Exact,
    /// The size of the model's folder and of the adapter's, in bytes.
    Disk,
    /// The peak memory in bytes.
    Memory,
    /// Seconds until every weight is in memory.
    Load,
    /// Decoded tokens per second.
    Speed,
    /// The perplexity of the suite's texts.
    Perplexity,
    /// The mean Kullback-Leibler divergence from the reference, in nats per token.
    Kl,
    /// How much of the fine-tuning is left after quantizing: 1 if it is intact, 0 if nothing is left.
    Survival,
    /// The mean share of what was wanted that the answers have.
    Credit,
    /// How often at least one of the samples is right.
    #[serde(rename = "pass_at_k")]
    PassAtK,
    /// The median divergence from the reference, in nats.
    #[serde(rename = "kl_median")]
    KlMedian,
    /// The divergence that 99 % of the tokens do not exceed, in nats.
    #[serde(rename = "kl_p99")]
    KlP99,
    /// The divergence that 99.9 % of the tokens do not exceed, in nats.
    #[serde(rename = "kl_p99_9")]
    KlP999,
    /// The largest divergence, in nats.
    #[serde(rename = "kl_max")]
    KlMax,
    /// The mean change of the probability of the text's tokens, from -1 to 1.
    #[serde(rename = "delta_p")]
    DeltaP,
    /// The share of tokens where another next token is most likely.
    Flips,
}

impl Quantity {
    /// The name of each quantity in `pipeline.yaml`.
    pub const WORDS: [(&'static str, Self); 17] = [
        ("accuracy", Self::Accuracy),
        ("exact", Self::Exact),
        ("disk", Self::Disk),
        ("memory", Self::Memory),
        ("load", Self::Load),
        ("speed", Self::Speed),
        ("perplexity", Self::Perplexity),
        ("kl", Self::Kl),
        ("survival", Self::Survival),
        ("credit", Self::Credit),
        ("pass_at_k", Self::PassAtK),
        ("kl_median", Self::KlMedian),
        ("kl_p99", Self::KlP99),
        ("kl_p99_9", Self::KlP999),
        ("kl_max", Self::KlMax),
        ("delta_p", Self::DeltaP),
        ("flips", Self::Flips),
    ];

    /// Whether it has a figure for each category of queries.
    pub fn has_categories(self) -> bool {
        matches!(self, Self::Accuracy | Self::Credit)
    }

    /// Whether it is measured against the reference.
    pub fn is_divergence(self) -> bool {
        use Quantity::{DeltaP, Flips, Kl, KlMax, KlMedian, KlP99, KlP999};
        matches!(self, Kl | KlMedian | KlP99 | KlP999 | KlMax | DeltaP | Flips)
    }

    /// Returns its name in `pipeline.yaml`.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, quantity)| *quantity == self).map_or("", |(word, _)| word)
    }

    /// Writes a value for people, with its unit if it has one.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Accuracy | Self::Exact | Self::Credit | Self::PassAtK | Self::Flips => {
                format!("{:.1}%", value * 100.0)
            }
            Self::DeltaP => format!("{:.2}%", value * 100.0),
            Self::Disk | Self::Memory => size(value),
            Self::Load => format!("{value:.2} s"),
            Self::Speed => speed(value),
            Self::Perplexity => format!("{value:.3}"),
            Self::Kl | Self::KlMedian | Self::KlP99 | Self::KlP999 | Self::KlMax => format!("{value:.4}"),
            Self::Survival => format!("{value:.2}"),
        }
    }

    /// Returns the units that a bound may have, each with its factor to the quantity's own unit. An empty
    /// unit means that a plain number is allowed.
    fn units(self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Accuracy | Self::Exact | Self::Credit | Self::PassAtK | Self::Flips | Self::DeltaP => {
                vec![("", 1.0), ("%", 0.01)]
            }
            Self::Disk | Self::Memory => SIZES.map(|(unit, bytes)| (unit, bytes as f64)).to_vec(),
            Self::Load => vec![("s", 1.0), ("ms", 1e-3)],
            Self::Speed => vec![("t/s", 1.0), ("", 1.0)],
            Self::Perplexity | Self::Survival => vec![("", 1.0)],
            Self::Kl | Self::KlMedian | Self::KlP99 | Self::KlP999 | Self::KlMax => vec![("", 1.0)],
        }
    }
}

/// A finite number that can be part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(f64);

// Never NaN: every number comes from `Bound::parse`, which refuses NaN.
impl Eq for Number {}

/// How a value is compared with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// No less than.
    #[serde(rename = ">=")]
    AtLeast,
    /// No more than.
    #[serde(rename = "<=")]
    AtMost,
    /// More than.
    #[serde(rename = ">")]
    Above,
    /// Less than.
    #[serde(rename = "<")]
    Below,
}

impl Comparison {
    /// The longer signs come first, because the shorter ones are prefixes of them.
    const SIGNS: [(&'static str, Self); 4] =
        [(">=", Self::AtLeast), ("<=", Self::AtMost), (">", Self::Above), ("<", Self::Below)];

    fn sign(self) -> &'static str {
        Self::SIGNS.iter().find(|(_, comparison)| *comparison == self).map_or("", |(sign, _)| sign)
    }
}

/// What a quantity must be: `>= 1.0`, `<= 500 MB`, or, against another configuration, `<= 0.70x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// How a value is compared with the bound.
    pub comparison: Comparison,
    /// Whether `value` is a factor on the value of another configuration.
    pub relative: bool,
    /// A factor if `relative`; otherwise in the quantity's own unit: a share, bytes, seconds, tokens per
    /// second.
    pub value: Number,
}

impl Bound {
    /// Reads a bound on `quantity`, such as `<= 500 MB`.
    ///
    /// # Errors
    /// Fails when `text` does not begin with a comparison sign, has no finite number, or does not have a unit
    /// of
    /// `quantity`. The message says which.
    pub fn parse(quantity: Quantity, text: &str) -> Result<Self, String> {
        let example =
            if quantity.units().iter().any(|(unit, _)| unit.is_empty()) { ">= 0.9" } else { "<= 500 MB" };
        let text = text.trim();
        let found = Comparison::SIGNS
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
        let (comparison, rest) = found.ok_or_else(|| {
            format!("`{text}` must begin with one of >=, <=, > and <, such as \"{example}\"")
        })?;
        let rest = rest.trim();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+' | '_'))
            .unwrap_or(rest.len());
        let (digits, unit) = rest.split_at(end);
        let number = digits.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| format!("`{text}` has no number, such as \"{example}\" has"))?;
        let unit = unit.trim();
        if unit == "x" {
            return Ok(Self { comparison, relative: true, value: Number(number) });
        }
        let units = quantity.units();
        let Some((_, worth)) = units.iter().find(|(known, _)| *known == unit) else {
            let units: Vec<_> =
                quantity.units().iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
            let units = [units.as_slice(), &["x"]].concat().join(", ");
            let what = if unit.is_empty() { "no unit".to_owned() } else { format!("the unit `{unit}`") };
            return Err(format!("`{text}` has {what}, but `{}` is in {units}", quantity.word()));
        };
        Ok(Self { comparison, relative: false, value: Number(number * worth) })
    }

    /// Returns the bound as a number.
    pub(crate) fn number(&self) -> f64 {
        self.value.0
    }

    /// Whether `value` satisfies the bound. For a relative bound, `value` is the factor.
    pub fn holds(&self, value: f64) -> bool {
        let bound = self.value.0;
        match self.comparison {
            Comparison::AtLeast => value >= bound,
            Comparison::AtMost => value <= bound,
            Comparison::Above => value > bound,
            Comparison::Below => value < bound,
        }
    }
}

/// A quantity and the bound that it must satisfy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criterion {
    /// The bound that the quantity must satisfy.
    pub bound: Bound,
    /// The category of queries that counts; all queries if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The quantity that is measured.
    pub quantity: Quantity,
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bound { comparison, relative, value } = self.bound;
        let value = if relative { format!("{}x", value.0) } else { self.quantity.show(value.0) };
        let category = self.category.as_ref().map_or_else(String::new, |category| format!("[{category}]"));
        write!(f, "{}{category} {} {value}", self.quantity.word(), comparison.sign())
    }
}

/// What must be true of a configuration for the node to succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The configuration that relative bounds compare with.
    pub against: Option<String>,
    /// The configuration that is tested.
    pub config: String,
    /// The criteria; all of them must hold.
    pub criteria: Vec<Criterion>,
}

/// What decides whether a configuration is good enough, or the best choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The configuration that relative bounds compare with.
    pub against: Option<String>,
    /// The configuration that is judged.
    pub config: String,
    /// The criteria that make it good enough.
    pub minimum: Vec<Criterion>,
    /// The criteria that make it the best choice.
    pub optimal: Vec<Criterion>,
    /// What to do if it is neither.
    pub otherwise: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(quantity: Quantity, text: &str) -> Result<String, String> {
        Bound::parse(quantity, text).map(|bound| Criterion { bound, category: None, quantity }.to_string())
    }

    #[test]
    fn bounds_are_read_with_their_units() {
        assert_eq!(show(Quantity::Accuracy, ">= 1.0").unwrap(), "accuracy >= 100.0%");
        assert_eq!(show(Quantity::Accuracy, ">80 %").unwrap(), "accuracy > 80.0%");
        assert_eq!(show(Quantity::Disk, "<= 0.70x").unwrap(), "disk <= 0.7x");
        assert_eq!(show(Quantity::Memory, "< 1.5 GB").unwrap(), "memory < 1.5 GB");
        assert_eq!(show(Quantity::Load, "<= 250ms").unwrap(), "load <= 0.25 s");
        assert_eq!(show(Quantity::Speed, ">= 100 t/s").unwrap(), "speed >= 100 t/s");
        assert_eq!(show(Quantity::Kl, "<= 0.01").unwrap(), "kl <= 0.0100");
    }

    #[test]
    fn a_bound_that_says_nothing_is_refused() {
        let wrong = |quantity, text| show(quantity, text).unwrap_err();
        assert_eq!(
            wrong(Quantity::Accuracy, "1.0"),
            "`1.0` must begin with one of >=, <=, > and <, such as \">= 0.9\""
        );
        assert_eq!(wrong(Quantity::Survival, ">= much"), "`>= much` has no number, such as \">= 0.9\" has");
        assert_eq!(
            wrong(Quantity::Disk, "<= 500"),
            "`<= 500` has no unit, but `disk` is in B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, x"
        );
        assert_eq!(wrong(Quantity::Load, "<= 1 h"), "`<= 1 h` has the unit `h`, but `load` is in s, ms, x");
        assert!(show(Quantity::Kl, "<= 1e999").is_err());
    }
}
