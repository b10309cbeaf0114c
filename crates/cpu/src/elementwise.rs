//! Operations on each number or each row of activations.
//! Knows nothing of layers or threads. The loops are plain; the compiler makes vectors of them, with the same bits.

use crate::math::{exp, gelu, rounded, sigmoid, silu, tanh};
use crate::simd::{LANES, Lanes, for_each_set};

for_each_set! {
    /// Replaces each `gate` by `silu(gate) * x`.
    fn swiglu(gate: &mut [f32], x: &[f32]) -> () => swiglu_body
}

for_each_set! {
    /// Replaces each `gate` by `gelu(gate) * x`.
    fn geglu(gate: &mut [f32], x: &[f32]) -> () => geglu_body
}

for_each_set! {
    /// Replaces each `gate` by `silu(gate) * x` as gpt-oss has it: of limited numbers, and of one more than `x`.
    fn clamped_swiglu(gate: &mut [f32], x: &[f32]) -> () => clamped_swiglu_body
}

for_each_set! {
    /// Replaces each `gate` by `max(gate, 0)² * x`.
    fn squared_reglu(gate: &mut [f32], x: &[f32]) -> () => squared_reglu_body
}

/// Replaces each `gate` by `gelu(gate) * x`, where GELU has the error function.
pub(crate) fn exact_geglu(gate: &mut [f32], x: &[f32]) {
    for (gate, x) in gate.iter_mut().zip(x) {
        *gate = *gate * 0.5 * (1.0 + libm::erff(*gate * std::f32::consts::FRAC_1_SQRT_2)) * x;
    }
}

for_each_set! {
    /// Replaces each `x` by `cap * tanh(x / cap)`.
    fn softcap(row: &mut [f32], cap: f32) -> () => softcap_body
}

for_each_set! {
    /// Gives a row the mean 0 and the variance 1.
    fn layer_norm(row: &mut [f32], eps: f32) -> () => layer_norm_body
}

for_each_set! {
    /// Replaces a row by its product with `weight`, divided by the row's root mean square.
    fn rms_norm(row: &mut [f32], weight: &[f32], eps: f32) -> () => rms_norm_body
}

for_each_set! {
    /// Replaces each number of a row by `e^(scale * (x - largest))`, and returns their sum.
    fn exponentials(row: &mut [f32], scale: f32) -> f32 => exponentials_body
}

for_each_set! {
    /// Returns `ln(sum(e^x))` of a row.
    fn log_sum_exp(row: &[f32]) -> f32 => log_sum_exp_body
}

for_each_set! {
    /// Returns `sum(p * ln(p / q))` for two rows of log probabilities.
    fn divergence(p: &[f32], q: &[f32]) -> f64 => divergence_body
}

#[inline(always)]
fn swiglu_body<L: Lanes>(gate: &mut [f32], x: &[f32]) {
    for (gate, x) in gate.iter_mut().zip(x) {
        *gate = silu(*gate) * x;
    }
}

#[inline(always)]
fn geglu_body<L: Lanes>(gate: &mut [f32], x: &[f32]) {
    for (gate, x) in gate.iter_mut().zip(x) {
        *gate = gelu(*gate) * x;
    }
}

/// The slope and the limit of gpt-oss: `swiglu_oai` in mlx-lm's `activations.py`.
const SLOPE: f32 = 1.702;
const LIMIT: f32 = 7.0;

#[inline(always)]
fn clamped_swiglu_body<L: Lanes>(gate: &mut [f32], x: &[f32]) {
    for (gate, x) in gate.iter_mut().zip(x) {
        let limited = gate.min(LIMIT);
        *gate = (x.clamp(-LIMIT, LIMIT) + 1.0) * (limited * sigmoid(SLOPE * limited));
    }
}

#[inline(always)]
fn squared_reglu_body<L: Lanes>(gate: &mut [f32], x: &[f32]) {
    for (gate, x) in gate.iter_mut().zip(x) {
        let positive = if *gate > 0.0 { *gate } else { 0.0 };
        *gate = positive * positive * x;
    }
}

#[inline(always)]
fn softcap_body<L: Lanes>(row: &mut [f32], cap: f32) {
    row.iter_mut().for_each(|value| *value = cap * tanh(*value / cap));
}

#[inline(always)]
fn layer_norm_body<L: Lanes>(row: &mut [f32], eps: f32) {
    let mut sums = [0.0_f32; LANES];
    for chunk in row.chunks(LANES) {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    let mean = L::load(&sums).sum() / row.len() as f32;
    let mut squares = [0.0_f32; LANES];
    for chunk in row.chunks_mut(LANES) {
        for (sum, value) in squares.iter_mut().zip(chunk) {
            *value -= mean;
            *sum = value.mul_add(*value, *sum);
        }
    }
    let factor = 1.0 / (L::load(&squares).sum() / row.len() as f32 + eps).sqrt();
    row.iter_mut().for_each(|value| *value *= factor);
}

#[inline(always)]
fn rms_norm_body<L: Lanes>(row: &mut [f32], weight: &[f32], eps: f32) {
    let mut sums = [0.0_f32; LANES];
    for chunk in row.chunks(LANES) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = value.mul_add(*value, *sum);
        }
    }
    let mean = L::load(&sums).sum() / row.len() as f32;
    let factor = 1.0 / (mean + eps).sqrt();
    for (value, weight) in row.iter_mut().zip(weight) {
        *value = *value * factor * weight;
    }
}

/// Returns the largest number of a row. The order of a maximum does not matter.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn exponentials_body<L: Lanes>(row: &mut [f32], scale: f32) -> f32 {
    let largest = largest(row);
    let mut sums = [0.0_f32; LANES];
    for chunk in row.chunks_mut(LANES) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = exp((*value - largest) * scale);
            *sum += *value;
        }
    }
    L::load(&sums).sum()
}

#[inline(always)]
fn log_sum_exp_body<L: Lanes>(row: &[f32]) -> f32 {
    let largest = largest(row);
    let mut sums = [0.0_f64; LANES];
    for chunk in row.chunks(LANES) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(exp(*value - largest));
        }
    }
    rounded(f64::from(largest) + libm::log(sum_of(sums)))
}

#[inline(always)]
fn divergence_body<L: Lanes>(p: &[f32], q: &[f32]) -> f64 {
    let mut sums = [0.0_f64; LANES];
    for (p, q) in p.chunks(LANES).zip(q.chunks(LANES)) {
        for (sum, (p, q)) in sums.iter_mut().zip(p.iter().zip(q)) {
            *sum += f64::from(exp(*p)) * f64::from(p - q);
        }
    }
    sum_of(sums)
}

/// Sums in the order of [`Lanes::sum`].
#[inline(always)]
fn sum_of(mut sums: [f64; LANES]) -> f64 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// Returns the place of the largest number; of several, the first.
pub(crate) fn place_of_largest(row: &[f32]) -> usize {
    let largest = largest(row);
    row.iter().position(|value| *value == largest).unwrap_or(0)
}
