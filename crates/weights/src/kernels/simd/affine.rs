//! MLX's affine mode: integer codes with a float scale and a float bias for each group.
//! Knows nothing of rows; a block is a sequence of groups.

use super::pack::{pack, unpack};
use super::{Float, Packed, PackedMut, QuantSpec, Simd, convert};
use crate::kernels::float::round_to_brain;

/// The smallest step, as in MLX's `quantize`. It prevents a division by zero in a constant group.
const SMALLEST_STEP: f32 = 1e-7;

/// Adding this to a value from 0 to 2^22 rounds the value, half to even, and leaves it in the lowest bits of
/// the mantissa.
pub(super) const ROUNDING: f32 = 12_582_912.0;

/// How many running minima and maxima are kept side by side. The result does not depend on it.
const LANES: usize = 16;

/// The largest group size of this mode, in weights.
const LARGEST_GROUP: usize = 128;

/// How many groups form a batch. The scales and biases of a batch are converted in one pass.
const BATCH: usize = 32;

/// Mirrors `quantize` in MLX's `backend/cpu/quantized.cpp`. Each batch of groups takes three steps: ranges,
/// then scales and biases, then codes. The second step has divisions that wait for each other, so it is
/// computed for many groups at once.
#[inline(always)]
pub(super) fn quantize(simd: Simd, float: Float, values: &[f32], spec: QuantSpec, out: PackedMut<'_>) {
    let QuantSpec { bits, group_size, .. } = spec;
    let levels = levels(bits);
    let mut codes = [0; LARGEST_GROUP];
    let (mut scales, mut biases) = ([0.0; BATCH], [0.0; BATCH]);
    let side = float.size() * BATCH;
    let batches = values.chunks(group_size * BATCH).zip(out.weight.chunks_mut(group_size * BATCH / 8 * bits));
    for ((values, weight), sides) in batches.zip(out.scales.chunks_mut(side).zip(out.biases.chunks_mut(side)))
    {
        for (group, (low, high)) in values.chunks_exact(group_size).zip(scales.iter_mut().zip(&mut biases)) {
            (*low, *high) = range(group);
        }
        for (low, high) in scales.iter_mut().zip(&mut biases) {
            (*low, *high) = step(*low, *high, levels);
        }
        let groups = values.chunks_exact(group_size).zip(weight.chunks_exact_mut(group_size / 8 * bits));
        let count = groups.len();
        for ((group, packed), (scale, bias)) in groups.zip(scales.iter().zip(&biases)) {
            if bits == 8 {
                encode_group(group, *scale, *bias, levels, packed);
            } else {
                encode_group(group, *scale, *bias, levels, &mut codes[..group_size]);
                pack(bits, &codes[..group_size], packed);
            }
        }
        convert::encode(simd, float, &scales[..count], sides.0);
        convert::encode(simd, float, &biases[..count], sides.1);
    }
}

#[inline(always)]
fn encode_group(group: &[f32], scale: f32, bias: f32, levels: f32, codes: &mut [u8]) {
    for (value, code) in group.iter().zip(codes) {
        // Clamping before rounding gives the same result as clamping after it.
        let level = (value - bias) / scale;
        let level = if level > 0.0 { level } else { 0.0 };
        let level = if level < levels { level } else { levels };
        #[expect(clippy::cast_possible_truncation, reason = "a level has eight bits at most")]
        let low = (level + ROUNDING).to_bits() as u8;
        *code = low;
    }
}

fn levels(bits: usize) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// Returns the scale and the bias of a group with this range. The end with the larger magnitude becomes a
/// grid point, and the step is stretched so that zero becomes one too.
#[inline(always)]
fn step(low: f32, high: f32, levels: f32) -> (f32, f32) {
    let step = (high - low) / levels;
    let step = if step > SMALLEST_STEP { step } else { SMALLEST_STEP };
    let is_low = low.abs() > high.abs();
    let (step, edge) = (if is_low { step } else { -step }, if is_low { low } else { high });
    let edge_level = round(edge / step);
    let stretched = edge_level != 0.0;
    (if stretched { edge / edge_level } else { step }, if stretched { edge } else { 0.0 })
}

/// Rounds half to even, as `round_ties_even` does, but only with operations that every instruction set has
/// for vectors.
#[inline(always)]
pub(super) fn round(value: f32) -> f32 {
    // From 2^23 on every float is an integer, so the sum has no bits left for a fraction.
    let magnitude = value.abs();
    let rounded = (magnitude + 8_388_608.0) - 8_388_608.0;
    let rounded = if magnitude < 8_388_608.0 { rounded } else { magnitude };
    rounded.copysign(value)
}

/// Returns the minimum and the maximum. They take two loops, because in one loop the compiler mixes both into
/// each vector.
#[inline(always)]
fn range(group: &[f32]) -> (f32, f32) {
    (extreme::<false>(group), extreme::<true>(group))
}

/// Returns the largest value of a group, or the smallest. There is no NaN, so the order of the comparisons
/// does not matter.
#[inline(always)]
fn extreme<const LARGEST: bool>(group: &[f32]) -> f32 {
    let chunks = group.as_chunks::<LANES>().0;
    let mut best = chunks.first().copied().unwrap_or_default();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = pick::<LARGEST>(chunk[lane], best[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            best[lane] = pick::<LARGEST>(best[lane], best[lane + width]);
        }
        width /= 2;
    }
    best[0]
}

#[inline(always)]
fn pick<const LARGEST: bool>(a: f32, b: f32) -> f32 {
    let beyond = if LARGEST { a > b } else { a < b };
    if beyond { a } else { b }
}

/// Mirrors `affine_dequantize` in MLX's `ops.cpp`: the product and the sum are each rounded to the weight's
/// type.
#[inline(always)]
pub(super) fn dequantize(simd: Simd, packed: Packed<'_>, values: &mut [f32]) {
    let Packed { spec: QuantSpec { bits, group_size, .. }, float, weight, scales, biases, .. } = packed;
    let (mut codes, mut steps, mut offsets) = ([0; LARGEST_GROUP], [0.0; BATCH], [0.0; BATCH]);
    let side = float.size() * BATCH;
    let batches = values.chunks_mut(group_size * BATCH).zip(weight.chunks(group_size * BATCH / 8 * bits));
    for ((values, weight), sides) in batches.zip(scales.chunks(side).zip(biases.chunks(side))) {
        convert::decode(simd, float, sides.0, &mut steps);
        convert::decode(simd, float, sides.1, &mut offsets);
        let groups = values.chunks_exact_mut(group_size).zip(weight.chunks_exact(group_size / 8 * bits));
        for ((group, packed), (step, offset)) in groups.zip(steps.iter().zip(&offsets)) {
            unpack(bits, packed, &mut codes[..group_size]);
            on_grid((simd, float, bits), *step, *offset, &codes, group);
        }
    }
}

/// Writes the values of the codes of a group: the product and the sum are each rounded. With few bits, the values
/// of all codes are computed once and looked up.
#[inline(always)]
pub(super) fn on_grid(
    (simd, float, bits): (Simd, Float, usize),
    step: f32,
    offset: f32,
    codes: &[u8],
    values: &mut [f32],
) {
    if bits <= 4 {
        let mut table = [0.0; 16];
        grid(simd, float, step, offset, &ALL_CODES, &mut table);
        convert::look_up(simd, &table, codes, values);
    } else {
        grid(simd, float, step, offset, codes, values);
    }
}

/// The codes of 4 bits.
const ALL_CODES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[inline(always)]
fn grid(simd: Simd, float: Float, step: f32, offset: f32, codes: &[u8], values: &mut [f32]) {
    match float {
        Float::F16 => convert::half_grid(simd, step, offset, codes, values),
        Float::Bf16 => grid_of(round_to_brain, step, offset, codes, values),
        Float::F32 => grid_of(|value| value, step, offset, codes, values),
    }
}

/// One loop for all steps, so that a value stays in its register.
#[inline(always)]
fn grid_of(round: impl Fn(f32) -> f32, step: f32, offset: f32, codes: &[u8], values: &mut [f32]) {
    for (value, code) in values.iter_mut().zip(codes) {
        *value = round(round(f32::from(*code) * step) + offset);
    }
}

/// Returns the sum of the squared steps, one step for each weight.
pub(super) fn steps(packed: Packed<'_>) -> f64 {
    let Packed { spec, float, scales, .. } = packed;
    let (mut steps, mut sum) = ([0.0; BATCH], 0.0);
    for scales in scales.chunks(float.size() * BATCH) {
        float.decode(scales, &mut steps);
        let count = scales.len() / float.size();
        sum += steps.iter().take(count).map(|step| f64::from(*step).powi(2)).sum::<f64>();
    }
    sum * spec.group_size as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizes_by_hand() {
        // The range is -1 to 2, in 2 bits. The end with the larger magnitude, 2, is level -2 with a step of
        // -1. So the scale is -1 and the bias is 2.
        let mut group = [0.0; 16];
        group[..4].copy_from_slice(&[-1.0, 0.0, 0.6, 2.0]);
        let (low, high) = range(&group);
        assert_eq!(step(low, high, levels(2)), (-1.0, 2.0));
    }

    #[test]
    fn rounds_half_to_even() {
        for value in [0.0, -0.0, 0.5, 1.5, -2.5, 0.49999997, 8_388_607.5, 1e30, -7.3] {
            assert_eq!(round(value).to_bits(), f32::round_ties_even(value).to_bits(), "{value}");
        }
    }
}
