//! `verdicts.json`: each criterion with the measured value, the conclusions, and what to try next.
//! Knows nothing of how it is shown.

use serde::{Deserialize, Serialize};

use super::{AllTimings, ConfigResults, Criterion, Gate, Quantity, Results, Verdict};
use weights::kernels::Mode;
use weights::survival::Survival;

/// What was decided from results and timings. Timings differ from run to run, so decisions may differ too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The gates, in the order of the pipeline file.
    pub gates: Vec<GateOutcome>,
    /// The verdicts, in the order of the pipeline file.
    pub verdicts: Vec<VerdictOutcome>,
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
    /// Whether the criterion holds. A criterion that could not be measured does not hold.
    pub pass: bool,
}

/// A gate and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// The configuration that was tested.
    pub config: String,
    /// Whether all criteria hold.
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
    }
}

impl Judgement {
    /// Says which gates failed and why; `None` if no gate failed.
    pub fn failure(&self) -> Option<String> {
        let failed = self.gates.iter().filter(|gate| !gate.pass).map(|gate| {
            let wrong = gate.criteria.iter().filter(|finding| !finding.pass);
            let wrong: Vec<_> =
                wrong.map(|finding| format!("{}, but it is {}", finding.wanted, finding.found)).collect();
            format!("`{}` must have {}", gate.config, wrong.join("; "))
        });
        let failed: Vec<_> = failed.collect();
        let word = if failed.len() == 1 { "the gate" } else { "the gates" };
        (!failed.is_empty()).then(|| format!("{word} failed: {}", failed.join("; ")))
    }
}

struct Bench<'a> {
    results: &'a Results,
    timings: &'a AllTimings,
}

impl Bench<'_> {
    fn gate(&self, gate: &Gate) -> GateOutcome {
        let criteria = self.findings(&gate.criteria, &gate.config, gate.against.as_deref());
        let pass = criteria.iter().all(|finding| finding.pass);
        let advice = self.advice(&gate.config, &criteria);
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
            Conclusion::Otherwise => self.advice(config, failed),
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
        let Criterion { bound, quantity } = *criterion;
        let own = self.value(quantity, config);
        let other = against.and_then(|against| self.value(quantity, against));
        let (value, found) = match (own, other) {
            (None, _) => (None, "not measured".to_owned()),
            (Some(own), _) if !bound.relative => (Some(own), self.show(quantity, own, config)),
            // There is no factor if the other value is 0.
            (Some(own), Some(other)) if other > 0.0 => {
                let factor = own / other;
                (Some(factor), format!("{factor:.2}x ({})", quantity.show(own)))
            }
            _ => (None, "not measured of what it is compared with".to_owned()),
        };
        let pass = value.is_some_and(|value| bound.holds(value));
        Finding { quantity, wanted: criterion.to_string(), value, found, pass }
    }

    /// Writes a value for people. An accuracy is written with its interval, because 5 of 5 is not certainty.
    fn show(&self, quantity: Quantity, value: f64, config: &str) -> String {
        let shown = quantity.show(value);
        match self.results.configs.get(config).filter(|_| quantity == Quantity::Accuracy) {
            Some(results) => {
                let [low, high] = results.accuracy_interval.map(|end| end * 100.0);
                format!("{shown} ({}/{}, 95%: {low:.0} to {high:.0}%)", results.correct, results.total)
            }
            None => shown,
        }
    }

    fn value(&self, quantity: Quantity, config: &str) -> Option<f64> {
        let results = self.results.configs.get(config)?;
        let timings = self.timings.configs.get(config);
        match quantity {
            Quantity::Accuracy => (results.total > 0).then_some(results.accuracy),
            Quantity::Exact => {
                (results.exact_total > 0).then(|| results.exact as f64 / results.exact_total as f64)
            }
            Quantity::Disk => Some(results.disk_bytes as f64),
            Quantity::Memory => timings.map(|timings| timings.peak_memory_bytes as f64),
            Quantity::Load => timings.map(|timings| timings.load_seconds),
            Quantity::Speed => timings.map(|timings| timings.decode_tokens_per_second),
            Quantity::Perplexity => results.perplexity.map(|perplexity| perplexity.value),
            Quantity::Kl => results.divergence.map(|divergence| divergence.mean_kl),
            Quantity::Survival => results.survival.as_ref().map(|survival| survival.overall.survival),
        }
    }

    /// Says what to try next. It depends on which criteria failed and on how the model is quantized.
    fn advice(&self, config: &str, findings: &[Finding]) -> Vec<String> {
        let Some(results) = self.results.configs.get(config) else { return Vec::new() };
        let missed = |quantities: &[Quantity]| {
            findings.iter().any(|finding| {
                !finding.pass && finding.value.is_some() && quantities.contains(&finding.quantity)
            })
        };
        let quality =
            [Quantity::Accuracy, Quantity::Exact, Quantity::Perplexity, Quantity::Kl, Quantity::Survival];
        let cost = [Quantity::Disk, Quantity::Memory, Quantity::Load, Quantity::Speed];
        let mut advice = Vec::new();
        if missed(&quality) {
            advice.extend(better(results));
        }
        if missed(&cost) {
            advice.extend(smaller(results));
        }
        advice
    }
}

/// Returns what would make a model more like the one it was quantized from.
fn better(results: &ConfigResults) -> Vec<String> {
    let Some(quantization) = &results.quantization else {
        return vec!["it is not quantized: what it lacks was lost before, or never learned".to_owned()];
    };
    let (bits, group_size) = (quantization.bits, quantization.group_size);
    let mut advice = Vec::new();
    if let Some(survival) = &results.survival {
        advice.extend(survival.cause.clone());
        advice.extend(survival.remedies(results.disk_bytes, results.bits_per_weight));
    }
    if is_mixed(results) {
        return advice;
    }
    if let Some(more) = [3, 4, 5, 6, 8].into_iter().find(|more| (2..*more).contains(&bits)) {
        let finer = f64::from((1_u32 << more) - 1) / f64::from((1_u32 << bits) - 1);
        advice.push(format!("more bits: with `bits: {more}` the steps are {finer:.1} times as fine"));
    }
    // Other groups, and the layers of a recipe with fewer bits, are not on the grid of the base.
    if is_kept(results) {
        return advice;
    }
    if quantization.mode == Mode::Affine && group_size > 32 {
        let smaller = group_size / 2;
        advice.push(format!("smaller groups: `group_size: {smaller}` follows the weights more closely"));
    }
    if quantization.mode == Mode::Affine && bits <= 4 {
        let recipe = if bits == 4 { "mixed_4_6" } else { "mixed_3_6" };
        advice.push(format!("a mixed recipe: `recipe: {recipe}` gives the layers that need it 6 bits"));
    }
    advice
}

/// Whether the layers that were trained have other bits than the model's usual ones.
fn is_mixed(results: &ConfigResults) -> bool {
    let usual = results.quantization.map(|quantization| quantization.bits);
    results.survival.as_ref().is_some_and(|survival| survival.overall.bits != usual)
}

fn is_kept(results: &ConfigResults) -> bool {
    results.survival.as_ref().is_some_and(Survival::is_kept)
}

/// Returns what would make a model smaller and faster.
fn smaller(results: &ConfigResults) -> Vec<String> {
    let Some(quantization) = &results.quantization else {
        return vec!["quantize it: `stage: quantize, bits: 8`".to_owned()];
    };
    if is_mixed(results) {
        return vec![
            "fewer bits for some layers: a lower `target_bits`, or lower `bits` in the overrides".to_owned(),
        ];
    }
    let mut advice = Vec::new();
    if let Some(fewer) = [6, 5, 4, 3, 2].into_iter().find(|fewer| *fewer < quantization.bits) {
        advice.push(format!("fewer bits: `bits: {fewer}`"));
    }
    if quantization.mode == Mode::Affine && quantization.group_size < 128 && !is_kept(results) {
        advice.push(format!("larger groups: `group_size: {}`", quantization.group_size * 2));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::{Bound, Machine, wilson};
    use super::*;
    use weights::kernels::{QuantSpec, Rounding};
    use weights::survival::Figures;

    fn config(correct: usize, disk_bytes: u64, bits: usize) -> ConfigResults {
        ConfigResults {
            correct,
            total: 5,
            not_scored: 0,
            accuracy: correct as f64 / 5.0,
            accuracy_interval: wilson(correct, 5),
            exact: 0,
            exact_total: 0,
            disk_bytes,
            bits_per_weight: bits as f64 + 0.5,
            quantization: Some(QuantSpec { bits, group_size: 64, mode: Mode::Affine }),
            code: Vec::new(),
            perplexity: None,
            divergence: None,
            survival: None,
            answers: Vec::new(),
        }
    }

    fn criteria(texts: &[(Quantity, &str)]) -> Vec<Criterion> {
        let read = |(quantity, text): &(Quantity, &str)| Criterion {
            bound: Bound::parse(*quantity, text).unwrap(),
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
        let timings = AllTimings { machine, configs: indexmap::IndexMap::new() };
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
    fn advice_does_not_undo_what_was_kept() {
        let kept = |bits| Figures {
            bits,
            cosine: 0.4,
            rounding: Some(Rounding::Keep),
            survival: 0.98,
            noise_to_signal: 2.0,
            reverted: 0.9,
            delta_per_step: Some(0.1),
            weights: 64,
        };
        let advice = |overall: Figures| {
            let tensors = [("a".to_owned(), overall)].into();
            let survival = Survival { can_keep: false, overall, cause: None, tensors };
            let results = ConfigResults { survival: Some(survival), ..config(3, 60, 4) };
            (better(&results), smaller(&results))
        };
        let auto = "more bits for what was trained: `bits: auto` with `target_bits: 5.0` takes 66 B at most";
        let five = "more bits: with `bits: 5` the steps are 2.1 times as fine";
        assert_eq!(
            advice(kept(Some(4))),
            (vec![auto.into(), five.into()], vec!["fewer bits: `bits: 3`".into()])
        );
        let lower = "fewer bits for some layers: a lower `target_bits`, or lower `bits` in the overrides";
        assert_eq!(advice(kept(None)), (vec![auto.into()], vec![lower.into()]));
    }

    #[test]
    fn what_is_not_known_does_not_hold() {
        let unknown = verdict(&[(Quantity::Speed, ">= 1x"), (Quantity::Kl, "<= 9")], &[]);
        assert_eq!(unknown.conclusion, Conclusion::Otherwise);
        assert!(unknown.optimal.iter().all(|finding| !finding.pass && finding.value.is_none()));
        assert_eq!(unknown.advice, Vec::<String>::new());
    }
}
