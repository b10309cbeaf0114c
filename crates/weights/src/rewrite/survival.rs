//! Reports how much of a fine-tuning survives quantizing: figures from sums, the cause if little survives,
//! and `survival.json`.
//! Knows nothing of how the sums are computed; `docs/evaluation.md` has the formulas.

use std::collections::BTreeMap;

use super::run::{Count, Counts};
use crate::checkpoint::WeightKind;
use crate::error::Result;
use crate::kernels::{QuantSpec, Rounding, UpdateStats};
use crate::survival::{Figures, SURVIVAL_FILE, Survival};
use crate::tensor::to_pretty_json;
use artifact::Output;

/// Writes `survival.json` if a fine-tuning was measured, and warns if it is not intact. The warning says what
/// would keep it in a model that takes so many bytes and has so many weights.
pub(super) fn report(counts: &Counts, bytes: u64, weights: u64, output: &Output) -> Result<()> {
    let Some(survival) = survival(counts) else { return Ok(()) };
    output.write(SURVIVAL_FILE, &to_pretty_json(serde_json::to_value(&survival)?))?;
    if !survival.is_intact() {
        let left = 100.0 * survival.overall.survival;
        let remedies = survival.remedies(bytes, bytes as f64 * 8.0 / weights.max(1) as f64);
        let words: Vec<_> = survival.cause.iter().chain(&remedies).map(String::as_str).collect();
        output.warn(format!("of the fine-tuning, {left:.0} % survived quantizing: {}", words.join("; ")));
    }
    Ok(())
}

/// Computes the figures and the cause. Returns `None` if the fine-tuning changed no weight.
fn survival(counts: &Counts) -> Option<Survival> {
    let (mut sum, mut on_steps) = (UpdateStats::default(), UpdateStats::default());
    for Count { stats, .. } in counts.values() {
        sum.add(stats);
        if stats.steps > 0.0 {
            on_steps.add(stats);
        }
    }
    let overall = Figures {
        bits: common(counts.values().map(bits)),
        delta_per_step: per_step(&on_steps),
        rounding: common(
            counts.values().filter(|count| bits(count).is_some()).map(|count| Some(count.rounding)),
        ),
        ..figures(&sum)
    };
    let of_tensor = |count: &Count| Figures {
        bits: bits(count),
        rounding: bits(count).map(|_| count.rounding),
        ..figures(&count.stats)
    };
    let tensors = counts.iter().map(|(name, count)| (name.clone(), of_tensor(count))).collect();
    let can_be_kept = |count: &Count| count.rounding == Rounding::Nearest && count.may_be_kept();
    let can_keep = counts.values().any(can_be_kept);
    let mut survival = Survival { can_keep, overall, cause: None, tensors };
    if !survival.is_intact() {
        survival.cause = Some(cause(counts, &overall));
    }
    (!counts.is_empty()).then_some(survival)
}

fn bits(count: &Count) -> Option<usize> {
    count.made.spec().map(|spec| spec.bits)
}

/// Returns the value that all have, or `None` if they differ.
fn common<T: PartialEq>(mut values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

fn figures(stats: &UpdateStats) -> Figures {
    let moved = stats.square + 2.0 * stats.product + stats.noise;
    let cosine = (stats.square + stats.product) / (stats.square * moved).sqrt();
    Figures {
        bits: None,
        cosine: if moved > 0.0 { cosine } else { 0.0 },
        rounding: None,
        survival: 1.0 + stats.product / stats.square,
        noise_to_signal: (stats.noise / stats.square).sqrt(),
        reverted: stats.reverted as f64 / stats.changed as f64,
        delta_per_step: per_step(stats),
        weights: stats.weights,
    }
}

fn per_step(stats: &UpdateStats) -> Option<f64> {
    (stats.steps > 0.0).then(|| (stats.square / stats.steps).sqrt())
}

/// Says in one sentence why little is left.
fn cause(counts: &Counts, overall: &Figures) -> String {
    let noise_to_signal = overall.noise_to_signal;
    let (Some(delta), Some(made)) = (overall.delta_per_step, usual(counts, |count| count.made)) else {
        return format!(
            "rounding to another type moved the weights {noise_to_signal:.1} times as far as the update"
        );
    };
    let update = format!("the update is {} of a step (root mean square)", short(delta));
    if overall.rounding == Some(Rounding::Keep) {
        // The draws are independent, so this is the standard deviation of the survival that they leave.
        let spread = noise_to_signal / (overall.weights as f64).sqrt();
        let why = if 1.0 - overall.survival > 4.0 * spread {
            "part of it leads beyond the ends of the base's grid, or gave way to the directions of the probe"
        } else {
            "so small an update is lost among the errors of rounding by a draw"
        };
        return format!("{update}; {why}");
    }
    if usual(counts, |count| count.base) != Some(made) {
        return format!(
            "{update} of {made}, and rounding moved the weights {noise_to_signal:.1} times as far as the update"
        );
    }
    let mut alike = UpdateStats::default();
    let both =
        counts.values().filter(|count| count.base.spec() == Some(made) && count.made.spec() == Some(made));
    both.for_each(|count| alike.add(&count.stats));
    // Rounded down, so that 100 % is said only if all weights returned.
    let share = 100 * alike.returned / alike.changed.max(1);
    let less = if delta < 0.5 { ", less than the half that takes a weight to the next" } else { "" };
    format!(
        "the base lies on the same grid, {made}, each weight in the middle of what rounds to it; {update}{less}; rounding \
         returned {share} % of the weights to where they came from"
    )
}

/// Returns how most of the quantized weights are quantized, or `None` if none are.
fn usual(counts: &Counts, kind: impl Fn(&Count) -> WeightKind) -> Option<QuantSpec> {
    let mut weights: BTreeMap<String, (u64, QuantSpec)> = BTreeMap::new();
    for count in counts.values() {
        if let Some(spec) = kind(count).spec() {
            weights.entry(spec.to_string()).or_insert((0, spec)).0 += count.stats.weights;
        }
    }
    weights.into_values().max_by_key(|(weights, _)| *weights).map(|(_, spec)| spec)
}

/// Formats a ratio with about two significant digits.
fn short(ratio: f64) -> String {
    match ratio {
        ..0.001 => format!("{ratio:.1e}"),
        ..0.1 => format!("{ratio:.3}"),
        _ => format!("{ratio:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Float, Mode, Rounding};

    fn spec(bits: usize) -> WeightKind {
        WeightKind::Quantized(QuantSpec { mode: Mode::Affine, bits, group_size: 64 }, Float::F16)
    }

    fn count(product: f64, base: WeightKind, made: WeightKind) -> Count {
        let steps = if matches!(made, WeightKind::Float(_)) { 0.0 } else { 100.0 };
        let stats = UpdateStats {
            weights: 64,
            changed: 50,
            reverted: 40,
            returned: 45,
            square: 4.0,
            product,
            noise: 9.0,
            steps,
        };
        Count { stats, base, made, rounding: Rounding::Nearest, nesting: None }
    }

    fn of(counts: &[(&str, Count)]) -> Survival {
        survival(&counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()).unwrap()
    }

    #[test]
    fn figures_by_hand() {
        let float = WeightKind::Float(Float::F16);
        let found = of(&[("a", count(-3.0, spec(4), spec(4))), ("b", count(0.0, float, float))]);
        let a = Figures {
            bits: Some(4),
            cosine: 1.0 / 28f64.sqrt(),
            rounding: Some(Rounding::Nearest),
            survival: 0.25,
            noise_to_signal: 1.5,
            reverted: 0.8,
            delta_per_step: Some(0.2),
            weights: 64,
        };
        assert_eq!(found.tensors["a"], a);
        let b = Figures {
            bits: None,
            cosine: 4.0 / 52f64.sqrt(),
            rounding: None,
            survival: 1.0,
            delta_per_step: None,
            ..a
        };
        assert_eq!(found.tensors["b"], b);
        // Only weights that have a step count for the overall `delta_per_step`.
        let cosine = 5.0 / (8f64 * 20.0).sqrt();
        let all = Figures { bits: None, cosine, survival: 0.625, weights: 128, ..a };
        assert_eq!(found.overall, all);
        assert_eq!(survival(&Counts::new()), None);
    }

    #[test]
    fn says_the_cause() {
        let cause = |base, made| of(&[("a", count(-3.0, base, made))]).cause.unwrap();
        assert_eq!(
            cause(spec(4), spec(4)),
            "the base lies on the same grid, 4 bits in groups of 64, each weight in the middle of what rounds to it; the \
             update is 0.20 of a step (root mean square), less than the half that takes a weight to the next; rounding \
             returned 90 % of the weights to where they came from"
        );
        assert_eq!(
            cause(spec(4), spec(3)),
            "the update is 0.20 of a step (root mean square) of 3 bits in groups of 64, and rounding moved the weights 1.5 \
             times as far as the update"
        );
        let float = WeightKind::Float(Float::Bf16);
        assert_eq!(
            cause(float, float),
            "rounding to another type moved the weights 1.5 times as far as the update"
        );
        assert_eq!(of(&[("a", count(0.0, spec(4), spec(8)))]).cause, None);
    }
}
