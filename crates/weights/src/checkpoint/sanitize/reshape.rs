//! Turns, reshapes and scales each weight of a checkpoint on its own.
//! Reads no numbers: what is computed is noted at the weight.

use serde_json::{Map, Value};

use super::super::view::View;
use super::super::weight::{Change, Weight, WeightKind};
use super::{Sanitize, misfit, viewed};
use crate::arch::{Channels, Factor, Number, Step, find, find_any};
use crate::error::{Result, fail};
use crate::kernels::Float;

impl Sanitize<'_> {
    /// Follows a step that changes each weight on its own.
    pub(super) fn reshape(&mut self, step: &Step) -> Result<()> {
        let fold = if let Step::Fold(_, key) = step { self.number(key) } else { None };
        for (name, weight) in self.weights.iter_mut().filter(|(_, weight)| !weight.is_tower) {
            let is = |patterns: &[&str]| find_any(patterns, name).is_some();
            let rank = weight.shape.len();
            match *step {
                Step::Transpose(patterns) if is(patterns) && rank > 1 => {
                    turn(name, weight, |view| view.swap(0, 1))?;
                }
                Step::ChannelsLast(patterns, channels)
                    if is(patterns) && channels_first(weight, channels) =>
                {
                    turn(name, weight, |view| view.swap(0, 1))?;
                }
                Step::Squeeze(patterns) if is(patterns) => {
                    let shape: Vec<_> = weight.shape.iter().copied().filter(|size| *size != 1).collect();
                    turn(name, weight, |view| view.reshape(&shape))?;
                }
                Step::Flatten(patterns) if is(patterns) && rank > 1 => {
                    let size = weight.shape.iter().product();
                    turn(name, weight, |view| view.reshape(&[size]))?;
                }
                Step::Fold(patterns, _) if is(patterns) && rank != 2 => {
                    let size: usize = weight.shape.iter().product();
                    let shape = fold.and_then(|inner| Some([size.checked_div(inner)?, inner]));
                    turn(name, weight, |view| view.reshape(&shape?))?;
                }
                Step::AddOne(patterns) if is(patterns) && rank == 1 => change(weight, Change::AddOne),
                Step::NormalizeRows(patterns) if is(patterns) => change(weight, Change::NormalizeRows),
                _ => {}
            }
        }
        Ok(())
    }

    /// Multiplies numbers of the configuration into matrices.
    pub(super) fn multiply(&mut self, factors: &[(&str, Factor)]) -> Result<()> {
        let config = self.config;
        for (name, weight) in self.weights.iter_mut().filter(|(_, weight)| !weight.is_tower) {
            let Some((_, factor)) = factors.iter().find(|(end, _)| find(end, name).is_some()) else {
                continue;
            };
            let WeightKind::Float(float) = weight.kind else {
                fail!(
                    Unsupported,
                    "`{name}` is not of floats, and mlx-lm multiplies it; take the model that was not quantized"
                );
            };
            let whole = rounded(float, factor.whole.iter().map(|number| value(config, *number)).product());
            let rows = |sizes: &[Number]| sizes.iter().map(|size| value(config, *size)).product::<f64>();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "`as` keeps it in range"
            )]
            let part = |(sizes, number): &(&[Number], Number)| {
                let own = rounded(float, value(config, *number));
                (rows(sizes) as usize, rounded(float, f64::from(own * whole)))
            };
            let parts: Vec<_> = factor.parts.iter().map(part).collect();
            let sum = parts.iter().try_fold(0usize, |sum, (rows, _)| sum.checked_add(*rows));
            if !parts.is_empty() && sum != Some(weight.rows()) {
                return Err(misfit(name, &weight.shape));
            }
            let parts = if parts.is_empty() { vec![(usize::MAX, whole)] } else { parts };
            weight.change = Some(Change::Multiply(parts.into()));
        }
        Ok(())
    }
}

/// Replaces a weight with another view of its tensor.
pub(super) fn turn(name: &str, weight: &mut Weight, cut: impl Fn(View) -> Option<View>) -> Result<()> {
    *weight = viewed(name, weight, cut)?;
    Ok(())
}

fn change(weight: &mut Weight, change: Change) {
    if matches!(weight.kind, WeightKind::Float(_)) {
        weight.change = Some(change);
    }
}

pub(super) fn channels_first(weight: &Weight, channels: Channels) -> bool {
    let [_, middle, last] = *weight.shape else { return false };
    match channels {
        Channels::LastNotOne => last != 1,
        Channels::LastLarger => last > middle,
        Channels::MiddleOne => middle == 1,
        Channels::All => true,
    }
}

/// Returns a number of the configuration, or what it is if nothing is said.
fn value(config: &Map<String, Value>, Number(key, index, usual): Number) -> f64 {
    let value = config.get(key).and_then(|value| index.map_or(Some(value), |index| value.get(index)));
    value.and_then(Value::as_f64).unwrap_or(usual)
}

/// Returns a number as MLX makes it of one in Python: float32, then the type of the weight.
#[expect(clippy::cast_possible_truncation, reason = "float32 is what MLX makes of it")]
fn rounded(float: Float, number: f64) -> f32 {
    let mut value = [number as f32];
    float.round_all(&mut value);
    value[0]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Towers;
    use super::super::tests::{sanitized, shapes};
    use super::*;

    #[test]
    fn matrices_are_turned_and_vectors_folded() {
        let gpt2 = shapes(
            "gpt2",
            &json!({}),
            &[("h.0.attn.c_attn.weight", &[4, 12]), ("h.0.attn.bias", &[1, 1, 8, 8])],
        );
        assert_eq!(gpt2, [("model.h.0.attn.c_attn.weight".to_owned(), vec![12, 4])]);
        let written = shapes("gpt2", &json!({}), &[("model.h.0.attn.c_attn.weight", &[12, 4])]);
        assert_eq!(written[0].1, [12, 4]);
        let conv =
            shapes("lfm2", &json!({}), &[("a.conv.weight", &[8, 1, 3]), ("b.conv.weight", &[8, 3, 1])]);
        assert_eq!(conv.into_iter().map(|(_, shape)| shape).collect::<Vec<_>>(), [[8, 3, 1], [8, 3, 1]]);
        let folded = shapes("rwkv7", &json!({"head_dim": 4}), &[("a.k_k", &[12])]);
        assert_eq!(folded[0].1, [3, 4]);
        let squeezed = shapes("apertus", &json!({}), &[("a.alpha_p", &[1])]);
        assert_eq!(squeezed[0].1, [] as [usize; 0]);
    }

    #[test]
    fn numbers_of_the_configuration_are_multiplied_in() {
        let config = json!({"mamba_d_ssm": 2, "mamba_n_groups": 1, "mamba_d_state": 1, "mamba_n_heads": 1,
            "ssm_in_multiplier": 2.0, "ssm_multipliers": [0.5, 1.0, 2.0, 3.0, 4.0]});
        let tensors = [("l.0.mamba.conv1d.weight", &[8, 1, 4][..]), ("l.0.mamba.in_proj.weight", &[7, 2])];
        let (weights, _) = sanitized("falcon_h1", &config, &tensors, Towers::Drop).unwrap();
        let wrong = [("l.0.mamba.conv1d.weight", &[8, 1, 4][..]), ("l.0.mamba.in_proj.weight", &[8, 2])];
        let refused = sanitized("falcon_h1", &config, &wrong, Towers::Drop).unwrap_err().to_string();
        assert!(refused.contains("is [8, 2], which does not fit config.json"), "{refused}");
        let change = weights["l.0.mamba.in_proj.weight"].change().unwrap();
        assert_eq!(*change, Change::Multiply([(2, 1.0), (2, 2.0), (1, 4.0), (1, 6.0), (1, 8.0)].into()));
        let mut ones = [1.0_f32; 14].map(f32::to_le_bytes).concat();
        change.apply(Float::F32, 2, 0, &mut ones);
        let mut values = [0.0; 14];
        Float::F32.decode(&ones, &mut values);
        assert_eq!(values, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0]);
    }
}
