//! What to try next, if a configuration is not good enough.
//! Knows nothing of how the criteria were decided.

use super::{ConfigResults, Finding, Quantity, Results};
use text::units::bytes;
use weights::kernels::{Mode, QuantSpec};
use weights::survival::Survival;

/// Says what to try next. It depends on which criteria failed, on how the model is quantized, and on what was measured
/// beside it.
pub(super) fn advice(all: &Results, config: &str, findings: &[Finding]) -> Vec<String> {
    let Some(results) = all.configs.get(config) else { return Vec::new() };
    let missed = |is_kind: &dyn Fn(Quantity) -> bool| {
        findings.iter().any(|finding| !finding.pass && finding.value.is_some() && is_kind(finding.quantity))
    };
    let is_cost =
        |quantity| matches!(quantity, Quantity::Disk | Quantity::Memory | Quantity::Load | Quantity::Speed);
    let sweep = Sweep { all, config };
    let mut advice = Vec::new();
    if missed(&|quantity| !is_cost(quantity)) {
        advice.extend(better(results, &sweep));
    }
    if missed(&is_cost) {
        advice.extend(smaller(results, &sweep));
    }
    advice
}

/// The other configurations of the benchmark.
struct Sweep<'a> {
    all: &'a Results,
    config: &'a str,
}

impl Sweep<'_> {
    /// Returns a remedy, or what came of it if a configuration of the sweep has it already.
    fn in_place_of(&self, remedy: String, quantization: QuantSpec) -> String {
        let others = || self.all.configs.iter().filter(|(name, _)| *name != self.config);
        let found = match remedy.split_once(':') {
            Some((what, rest)) if rest.contains("`rounding: keep`") => others()
                .find(|(_, it)| is_kept(it) && it.quantization == Some(quantization))
                .map(|it| (what, it)),
            Some((what, rest)) if rest.contains("`bits: auto`") => {
                others().find(|(_, it)| has_several_bits(it)).map(|it| (what, it))
            }
            _ => None,
        };
        let known = found.map(|(what, (name, other))| format!("{what}: {}", came_of(name, other)));
        known.unwrap_or(remedy)
    }

    /// Returns what came of a configuration that is quantized like this, if there is one: `` `6bit` has 95.8% right and
    /// 113.1 MB ``.
    fn measured(&self, quantization: QuantSpec) -> Option<String> {
        let is_it = |(name, other): &(&String, &ConfigResults)| {
            *name != self.config
                && other.quantization == Some(quantization)
                && !is_mixed(other)
                && !is_kept(other)
        };
        self.all.configs.iter().find(is_it).map(|(name, other)| came_of(name, other))
    }
}

fn came_of(name: &str, other: &ConfigResults) -> String {
    let size = bytes(other.disk_bytes);
    match (other.total, other.perplexity) {
        (0, Some(perplexity)) => format!("`{name}` has a perplexity of {:.2} and {size}", perplexity.value),
        (0, None) => format!("`{name}` has {size}"),
        _ => format!("`{name}` has {} right and {size}", Quantity::Accuracy.show(other.accuracy)),
    }
}

/// Returns what would make a model more like the one it was quantized from.
fn better(results: &ConfigResults, sweep: &Sweep<'_>) -> Vec<String> {
    let Some(quantization) = &results.quantization else {
        return vec!["it is not quantized: what it lacks was lost before, or never learned".to_owned()];
    };
    let (bits, group_size) = (quantization.bits, quantization.group_size);
    let mut advice = Vec::new();
    if let Some(survival) = &results.survival {
        advice.extend(survival.cause.clone());
        let remedies = survival.remedies(results.disk_bytes, results.bits_per_weight).into_iter();
        advice.extend(remedies.map(|remedy| sweep.in_place_of(remedy, *quantization)));
    }
    if is_mixed(results) {
        return advice;
    }
    if let Some(more) = [3, 4, 5, 6, 8].into_iter().find(|more| (2..*more).contains(&bits)) {
        let finer = f64::from((1_u32 << more) - 1) / f64::from((1_u32 << bits) - 1);
        advice.push(match sweep.measured(QuantSpec { bits: more, ..*quantization }) {
            Some(known) => format!("more bits: {known}"),
            None => format!("more bits: with `bits: {more}` the steps are {finer:.1} times as fine"),
        });
    }
    // Other groups, and the layers of a recipe with fewer bits, are not on the grid of the base.
    if is_kept(results) {
        return advice;
    }
    if quantization.mode == Mode::Affine && group_size > 32 {
        let smaller = group_size / 2;
        advice.push(match sweep.measured(QuantSpec { group_size: smaller, ..*quantization }) {
            Some(known) => format!("smaller groups: {known}"),
            None => format!("smaller groups: `group_size: {smaller}` follows the weights more closely"),
        });
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

/// Whether the layers that were trained have different bits, as `bits: auto` chooses them.
fn has_several_bits(results: &ConfigResults) -> bool {
    results.survival.as_ref().is_some_and(|survival| survival.overall.bits.is_none())
}

fn is_kept(results: &ConfigResults) -> bool {
    results.survival.as_ref().is_some_and(Survival::is_kept)
}

/// Returns what would make a model smaller and faster.
fn smaller(results: &ConfigResults, sweep: &Sweep<'_>) -> Vec<String> {
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
        advice.push(match sweep.measured(QuantSpec { bits: fewer, ..*quantization }) {
            Some(known) => format!("fewer bits: {known}"),
            None => format!("fewer bits: `bits: {fewer}`"),
        });
    }
    if quantization.mode == Mode::Affine && quantization.group_size < 128 && !is_kept(results) {
        let larger = quantization.group_size * 2;
        advice.push(match sweep.measured(QuantSpec { group_size: larger, ..*quantization }) {
            Some(known) => format!("larger groups: {known}"),
            None => format!("larger groups: `group_size: {larger}`"),
        });
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use weights::kernels::Rounding;
    use weights::survival::Figures;

    fn config(disk_bytes: u64, bits: usize) -> ConfigResults {
        ConfigResults {
            total: 5,
            accuracy: 0.6,
            disk_bytes,
            bits_per_weight: bits as f64 + 0.5,
            quantization: Some(QuantSpec { bits, group_size: 64, mode: Mode::Affine }),
            ..ConfigResults::default()
        }
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
            let results = ConfigResults { survival: Some(survival), ..config(60, 4) };
            let (all, config) = (&Results::default(), "");
            let sweep = Sweep { all, config };
            (better(&results, &sweep), smaller(&results, &sweep))
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
    fn what_the_sweep_has_measured_is_not_suggested() {
        let all = Results {
            configs: [("4bit".to_owned(), config(60, 4)), ("5bit".to_owned(), config(70, 5))].into(),
            ..Results::default()
        };
        let sweep = Sweep { all: &all, config: "4bit" };
        assert_eq!(better(&all.configs["4bit"], &sweep)[0], "more bits: `5bit` has 60.0% right and 70 B");
        let sweep = Sweep { all: &all, config: "5bit" };
        assert_eq!(smaller(&all.configs["5bit"], &sweep)[0], "fewer bits: `4bit` has 60.0% right and 60 B");
    }
}
