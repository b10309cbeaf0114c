//! `verdicts.json`: each criterion with the measured value, the conclusions, and what to try next.
//! Knows nothing of how it is shown.

use serde::{Deserialize, Serialize};

use super::advice::advice;
use super::noise::{Measured, Noise};
use super::{AllTimings, Changes, Criterion, Gate, Quantity, Results, Verdict};

/// What was decided from results and timings. Timings differ from run to run, so decisions may differ too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The gates, in the order of the pipeline file.
    pub gates: Vec<GateOutcome>,
    /// The verdicts, in the order of the pipeline file.
    pub verdicts: Vec<VerdictOutcome>,
    /// What changed since the last run; `None` if nothing did, or if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
}

/// One criterion and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The quantity that was measured.
    pub quantity: Quantity,
    /// The criterion for people, such as `disk <= 0.7x`.
    pub wanted: String,
    /// The measured value, or its factor on the other configuration's value if the bound is relative; `None`
    /// if it could not be measured.
    pub value: Option<f64>,
    /// The same for people, such as `0.78x (28.1 MB)`, or why there is no value.
    pub found: String,
    /// Whether the measured value is on the right side of the bound. A criterion that could not be measured does not
    /// hold.
    pub pass: bool,
    /// Whether the bound is within the error of what was measured. Then the criterion has neither passed nor failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub within_error: bool,
    /// The p-value of McNemar's test, for a factor on another accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// What would decide, if it is within the error: `about 40 more queries would decide`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

/// Whether a criterion, or a gate, holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Holds,
    Fails,
    WithinError,
}

impl Finding {
    pub(crate) fn state(&self) -> State {
        match (self.within_error, self.pass) {
            (true, _) => State::WithinError,
            (false, true) => State::Holds,
            (false, false) => State::Fails,
        }
    }

    /// Says what was wanted and what was found, and if the bound is within the error, what would decide.
    pub(crate) fn words(&self) -> String {
        let Self { wanted, found, p_value, needs, .. } = self;
        match self.state() {
            State::Holds => format!("{wanted}, and it is {found}"),
            State::Fails => format!("{wanted}, but it is {found}"),
            State::WithinError => {
                let p_value = p_value.map_or_else(String::new, |p| format!(", p = {p:.2}"));
                let needs = needs.as_ref().map_or_else(String::new, |needs| format!("; {needs}"));
                format!("{wanted} is within the error of {found}{p_value}{needs}")
            }
        }
    }
}

impl GateOutcome {
    pub(crate) fn state(&self) -> State {
        let is_unsure = self.criteria.iter().any(|finding| finding.within_error);
        match (self.pass, is_unsure) {
            (false, _) => State::Fails,
            (true, true) => State::WithinError,
            (true, false) => State::Holds,
        }
    }
}

/// A gate and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// The configuration that was tested.
    pub config: String,
    /// Whether no criterion failed. One that is within the error has not failed.
    pub pass: bool,
    /// The criteria and their results.
    pub criteria: Vec<Finding>,
    /// What to try next, if it failed.
    pub advice: Vec<String>,
}

/// Which criteria of a verdict hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    /// All criteria for the best choice hold.
    Optimal,
    /// All criteria for good enough hold, but not all for the best choice.
    Minimum,
    /// Neither.
    Otherwise,
}

/// A verdict and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictOutcome {
    /// The configuration that was judged.
    pub config: String,
    /// The configuration that factors compare with.
    pub against: Option<String>,
    /// What was concluded.
    pub conclusion: Conclusion,
    /// What to do if it is neither, as the pipeline file says.
    pub otherwise: Option<String>,
    /// The criteria for the best choice and their results.
    pub optimal: Vec<Finding>,
    /// The criteria for good enough and their results.
    pub minimum: Vec<Finding>,
    /// What to try next, if it is neither.
    pub advice: Vec<String>,
}

/// Decides the gates and verdicts from the results and timings.
pub fn judge(gates: &[Gate], verdicts: &[Verdict], results: &Results, timings: &AllTimings) -> Judgement {
    let bench = Bench { results, timings };
    Judgement {
        gates: gates.iter().map(|gate| bench.gate(gate)).collect(),
        verdicts: verdicts.iter().map(|verdict| bench.verdict(verdict)).collect(),
        changes: None,
    }
}

impl Judgement {
    /// Says which gates failed and why; `None` if no gate failed.
    pub fn failure(&self) -> Option<String> {
        let failed = self.gates.iter().filter(|gate| !gate.pass).map(|gate| {
            let wrong = gate.criteria.iter().filter(|finding| finding.state() == State::Fails);
            let wrong: Vec<_> = wrong.map(Finding::words).collect();
            format!("`{}` must have {}", gate.config, wrong.join("; "))
        });
        let failed: Vec<_> = failed.collect();
        let word = if failed.len() == 1 { "the gate" } else { "the gates" };
        (!failed.is_empty()).then(|| format!("{word} failed: {}", failed.join("; ")))
    }
}

impl Judgement {
    /// Says which gates are undecided: a bound is within the error of what was measured.
    pub fn undecided(&self) -> Vec<String> {
        let gate = |gate: &GateOutcome| {
            let unsure = gate.criteria.iter().filter(|finding| finding.within_error);
            let unsure = unsure.map(Finding::words).collect::<Vec<_>>().join(", ");
            (gate.state() == State::WithinError)
                .then(|| format!("the gate of `{}` neither holds nor fails: {unsure}", gate.config))
        };
        self.gates.iter().filter_map(gate).collect()
    }
}

struct Bench<'a> {
    results: &'a Results,
    timings: &'a AllTimings,
}

impl Bench<'_> {
    fn gate(&self, gate: &Gate) -> GateOutcome {
        let criteria = self.findings(&gate.criteria, &gate.config, gate.against.as_deref());
        let pass = !criteria.iter().any(|finding| finding.state() == State::Fails);
        let advice = if pass { Vec::new() } else { advice(self.results, &gate.config, &criteria) };
        GateOutcome { config: gate.config.clone(), pass, criteria, advice }
    }

    fn verdict(&self, verdict: &Verdict) -> VerdictOutcome {
        let Verdict { against, config, .. } = verdict;
        let findings = |criteria: &[Criterion]| self.findings(criteria, config, against.as_deref());
        let (optimal, minimum) = (findings(&verdict.optimal), findings(&verdict.minimum));
        let met = |findings: &[Finding]| !findings.is_empty() && findings.iter().all(|finding| finding.pass);
        let conclusion = match (met(&optimal), met(&minimum)) {
            (true, _) => Conclusion::Optimal,
            (false, true) => Conclusion::Minimum,
            (false, false) => Conclusion::Otherwise,
        };
        let failed = if minimum.is_empty() { &optimal } else { &minimum };
        let advice = match conclusion {
            Conclusion::Otherwise => advice(self.results, config, failed),
            _ => Vec::new(),
        };
        VerdictOutcome {
            config: config.clone(),
            against: against.clone(),
            conclusion,
            otherwise: verdict.otherwise.clone(),
            optimal,
            minimum,
            advice,
        }
    }

    fn findings(&self, criteria: &[Criterion], config: &str, against: Option<&str>) -> Vec<Finding> {
        criteria.iter().map(|criterion| self.find(criterion, config, against)).collect()
    }

    fn find(&self, criterion: &Criterion, config: &str, against: Option<&str>) -> Finding {
        let Criterion { bound, quantity, category } = criterion;
        let measured = |config: &str| {
            let results = self.results.configs.get(config)?;
            Measured::of(*quantity, category.as_deref(), results, self.timings.configs.get(config))
        };
        let (own, other) = (measured(config), against.and_then(measured));
        let (value, found) = match (&own, &other) {
            (None, _) => (None, "not measured".to_owned()),
            (Some(own), _) if !bound.relative => (Some(own.value), own.shown.clone()),
            // There is no factor if the other value is 0.
            (Some(own), Some(other)) if other.value > 0.0 => {
                let factor = own.value / other.value;
                (Some(factor), format!("{factor:.2}x ({})", quantity.show(own.value)))
            }
            _ => (None, "not measured of what it is compared with".to_owned()),
        };
        let configs = |name: &str| self.results.configs.get(name);
        let pair = (configs(config), against.and_then(configs));
        let noise = match (value, &own, &other) {
            (Some(_), Some(own), _) if !bound.relative => Noise::of_value(bound, own),
            (Some(factor), Some(own), Some(other)) => {
                Noise::of_factor(bound, factor, (*quantity, category.as_deref()), [own, other], pair)
            }
            _ => Noise::default(),
        };
        let pass = value.is_some_and(|value| bound.holds(value));
        let Noise { within_error, p_value, needs } = noise;
        Finding {
            quantity: *quantity,
            wanted: criterion.to_string(),
            value,
            found,
            pass,
            within_error,
            p_value,
            needs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bound, ConfigResults, Machine, wilson};
    use super::*;
    use weights::kernels::{Mode, QuantSpec};

    fn config(correct: usize, disk_bytes: u64, bits: usize) -> ConfigResults {
        ConfigResults {
            correct,
            total: 5,
            accuracy: correct as f64 / 5.0,
            accuracy_interval: wilson(correct, 5),
            disk_bytes,
            bits_per_weight: bits as f64 + 0.5,
            quantization: Some(QuantSpec { bits, group_size: 64, mode: Mode::Affine }),
            ..ConfigResults::default()
        }
    }

    fn criteria(texts: &[(Quantity, &str)]) -> Vec<Criterion> {
        let read = |(quantity, text): &(Quantity, &str)| Criterion {
            bound: Bound::parse(*quantity, text).unwrap(),
            category: None,
            quantity: *quantity,
        };
        texts.iter().map(read).collect()
    }

    /// Judges a 4-bit model (60 bytes, 3 of 5 right) against an 8-bit model (100 bytes, 5 of 5 right).
    fn verdict(optimal: &[(Quantity, &str)], minimum: &[(Quantity, &str)]) -> VerdictOutcome {
        let configs = [("8bit".to_owned(), config(5, 100, 8)), ("4bit".to_owned(), config(3, 60, 4))];
        let results = Results { suite: "s".into(), reference: None, configs: configs.into_iter().collect() };
        let machine = Machine {
            system: "linux".into(),
            processor: "x86_64".into(),
            chip: None,
            threads: 2,
            backend: "mlx".into(),
            pipeline: "0".into(),
        };
        let timings = AllTimings { machine, run: None, configs: indexmap::IndexMap::new() };
        let verdict = Verdict {
            against: Some("8bit".to_owned()),
            config: "4bit".to_owned(),
            minimum: criteria(minimum),
            optimal: criteria(optimal),
            otherwise: None,
        };
        judge(&[], &[verdict], &results, &timings).verdicts.remove(0)
    }

    #[test]
    fn the_best_that_holds_is_concluded() {
        let small = (Quantity::Disk, "<= 0.6x");
        assert_eq!(verdict(&[small], &[]).conclusion, Conclusion::Optimal);
        assert_eq!(verdict(&[(Quantity::Accuracy, ">= 1")], &[small]).conclusion, Conclusion::Minimum);
        let neither = verdict(&[(Quantity::Accuracy, ">= 1")], &[(Quantity::Accuracy, ">= 0.8")]);
        assert_eq!(neither.conclusion, Conclusion::Otherwise);
        assert_eq!(neither.minimum[0].found, "60.0% (3/5, 95%: 23 to 88%)");
        assert_eq!(
            neither.advice,
            [
                "more bits: with `bits: 5` the steps are 2.1 times as fine",
                "smaller groups: `group_size: 32` follows the weights more closely",
                "a mixed recipe: `recipe: mixed_4_6` gives the layers that need it 6 bits",
            ]
        );
    }

    #[test]
    fn what_is_not_known_does_not_hold() {
        let unknown = verdict(&[(Quantity::Speed, ">= 1x"), (Quantity::Kl, "<= 9")], &[]);
        assert_eq!(unknown.conclusion, Conclusion::Otherwise);
        assert!(unknown.optimal.iter().all(|finding| !finding.pass && finding.value.is_none()));
        assert_eq!(unknown.advice, Vec::<String>::new());
    }
}
