//! The arithmetic on one row of a matrix: quantize, dequantize, merge.
//! Knows nothing of threads. Written once as plain loops and compiled for several instruction sets: the order of
//! operations is the source's, and Rust never fuses a multiply with an add, so every path gives the same bits.

use super::{Float, Grid};

/// The smallest step, as in MLX's `affine_quantize`; it keeps a constant group from a division by zero.
const SMALLEST_STEP: f32 = 1e-7;

/// Adding this to a value of 0 to 2^22 leaves it rounded, half to even, in the lowest bits of the mantissa.
const ROUNDING: f32 = 12_582_912.0;

/// How many running minima and maxima are kept side by side; the outcome does not depend on it.
const LANES: usize = 16;

/// The instruction sets that a row can be computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simd {
    /// What every processor of the architecture has.
    Baseline,
    /// 256-bit vectors on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// Returns the sets that this processor has, the best last.
    pub(super) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut sets = vec![Self::Baseline];
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                sets.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                    sets.push(Self::Avx512);
                }
            }
            sets
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Baseline]
    }

    /// Returns the best set that this processor has.
    pub(super) fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Baseline)
    }
}

/// Defines a function that runs its body compiled for the instruction set of its first argument.
macro_rules! for_each_set {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) => $body:ident) => {
        $(#[$doc])*
        pub(super) fn $name(simd: Simd, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($argument: $type),*) {
                    $body($($argument),*);
                }
                #[target_feature(enable = "avx2,f16c,avx512f,avx512bw")]
                fn avx512($($argument: $type),*) {
                    $body($($argument),*);
                }
                match simd {
                    Simd::Baseline => $body($($argument),*),
                    #[expect(unsafe_code, reason = "`Simd::available` found these features on this processor")]
                    Simd::Avx2 => unsafe { avx2($($argument),*) },
                    #[expect(unsafe_code, reason = "`Simd::available` found these features on this processor")]
                    Simd::Avx512 => unsafe { avx512($($argument),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            match simd {
                Simd::Baseline => $body($($argument),*),
            }
        }
    };
}

/// A row being quantized and where its parts go.
pub(super) struct QuantizedRow<'a> {
    pub packed: &'a mut [u8],
    pub scales: &'a mut [u8],
    pub biases: &'a mut [u8],
}

for_each_set! {
    /// Quantizes `row`; `values` has a place for each element.
    fn quantize_row(float: Float, row: &[u8], grid: Grid, out: &mut QuantizedRow<'_>, values: &mut [f32]) => quantize_body
}

for_each_set! {
    /// Dequantizes `packed` into `row`; `values` has a place for each element.
    fn dequantize_row(float: Float, parts: [&[u8]; 3], grid: Grid, row: &mut [u8], values: &mut [f32]) => dequantize_body
}

for_each_set! {
    /// Adds an update to `row`: `factors` has `scale·B[k, o]` for each k, `a` has k rows as long as `row`.
    fn merge_row(float: Float, row: &mut [u8], a: &[f32], factors: &[f32], values: &mut [f32], delta: &mut [f32]) => merge_body
}

#[inline(always)]
fn quantize_body(float: Float, row: &[u8], grid: Grid, out: &mut QuantizedRow<'_>, values: &mut [f32]) {
    float.decode(row, values);
    let sides = out.scales.chunks_exact_mut(float.size()).zip(out.biases.chunks_exact_mut(float.size()));
    for (group, (scale_out, bias_out)) in values.chunks_exact_mut(grid.group_size).zip(sides) {
        let (scale, bias) = step(group, grid.bits);
        let levels = levels(grid.bits);
        for value in group {
            // Clamped first, which is the same as after rounding, and takes a NaN to 0 as MLX does on x86.
            let level = (*value - bias) / scale;
            let level = if level > 0.0 { level } else { 0.0 };
            *value = if level < levels { level } else { levels } + ROUNDING;
        }
        float.encode(&[scale], scale_out);
        float.encode(&[bias], bias_out);
    }
    match grid.bits {
        2 => pack::<2>(values, out.packed),
        3 => pack::<3>(values, out.packed),
        4 => pack::<4>(values, out.packed),
        5 => pack::<5>(values, out.packed),
        6 => pack::<6>(values, out.packed),
        _ => pack::<8>(values, out.packed),
    }
}

fn levels(bits: usize) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// Returns scale and bias of a group. Mirrors `quantize` in MLX's `backend/cpu/quantized.cpp`: the larger end of
/// the range falls on a grid point, and the step is stretched so that zero does too.
#[inline(always)]
fn step(group: &[f32], bits: usize) -> (f32, f32) {
    let (low, high) = range(group);
    let step = ((high - low) / levels(bits)).max(SMALLEST_STEP);
    let (step, edge) = if low.abs() > high.abs() { (step, low) } else { (-step, high) };
    let edge_level = (edge / step).round_ties_even();
    if edge_level == 0.0 { (step, 0.0) } else { (edge / edge_level, edge) }
}

/// Returns minimum and maximum, passing over NaN.
#[inline(always)]
fn range(group: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for chunk in group.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// Packs levels, as [`ROUNDING`] left them in the lowest bits, as one little-endian bit stream: eight values make
/// `BITS` bytes.
#[inline(always)]
fn pack<const BITS: usize>(values: &[f32], packed: &mut [u8]) {
    for (eight, bytes) in values.as_chunks::<8>().0.iter().zip(packed.as_chunks_mut::<BITS>().0) {
        let mut word = 0u64;
        for (position, value) in eight.iter().enumerate() {
            word |= u64::from(value.to_bits() & ((1 << BITS) - 1)) << (position * BITS);
        }
        bytes.copy_from_slice(&word.to_le_bytes()[..BITS]);
    }
}

/// Unpacks what [`pack`] packed.
#[inline(always)]
fn unpack<const BITS: usize>(packed: &[u8], values: &mut [f32]) {
    for (bytes, eight) in packed.as_chunks::<BITS>().0.iter().zip(values.as_chunks_mut::<8>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        for (position, value) in eight.iter_mut().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "the mask leaves at most eight bits")]
            let level = (word >> (position * BITS)) as u32 & ((1 << BITS) - 1);
            *value = level as f32;
        }
    }
}

#[inline(always)]
fn dequantize_body(float: Float, parts: [&[u8]; 3], grid: Grid, row: &mut [u8], values: &mut [f32]) {
    let [packed, scales, biases] = parts;
    match grid.bits {
        2 => unpack::<2>(packed, values),
        3 => unpack::<3>(packed, values),
        4 => unpack::<4>(packed, values),
        5 => unpack::<5>(packed, values),
        6 => unpack::<6>(packed, values),
        _ => unpack::<8>(packed, values),
    }
    let sides = scales.chunks_exact(float.size()).zip(biases.chunks_exact(float.size()));
    for (group, (scale_in, bias_in)) in values.chunks_exact_mut(grid.group_size).zip(sides) {
        let (mut scale, mut bias) = ([0.0], [0.0]);
        float.decode(scale_in, &mut scale);
        float.decode(bias_in, &mut bias);
        for value in group.iter_mut() {
            *value *= scale[0];
        }
        float.round_all(group);
        for value in group {
            *value += bias[0];
        }
    }
    float.encode(values, row);
}

#[inline(always)]
fn merge_body(
    float: Float,
    row: &mut [u8],
    a: &[f32],
    factors: &[f32],
    values: &mut [f32],
    delta: &mut [f32],
) {
    delta.fill(0.0);
    for (a, factor) in a.chunks_exact(delta.len()).zip(factors) {
        for (sum, a) in delta.iter_mut().zip(a) {
            *sum += factor * a;
        }
    }
    float.round_all(delta);
    float.decode(row, values);
    for (value, delta) in values.iter_mut().zip(delta) {
        *value += *delta;
    }
    float.encode(values, row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantizes_by_hand() {
        // Range -1..2 in 2 bits: the larger end, 2, is level -2 of a step of -1, so scale -1 and bias 2.
        let mut group = [0.0; 16];
        group[..4].copy_from_slice(&[-1.0, 0.0, 0.6, 2.0]);
        assert_eq!(step(&group, 2), (-1.0, 2.0));
    }

    proptest! {
        #[test]
        fn packing_is_lossless(levels in prop::collection::vec(0u8..4, 32)) {
            let values: Vec<f32> = levels.iter().map(|level| f32::from(*level)).collect();
            let rounded: Vec<f32> = values.iter().map(|value| value + ROUNDING).collect();
            let (mut two, mut three, mut five) = ([0; 8], [0; 12], [0; 20]);
            pack::<2>(&rounded, &mut two);
            pack::<3>(&rounded, &mut three);
            pack::<5>(&rounded, &mut five);
            let mut back = [[0.0; 32]; 3];
            unpack::<2>(&two, &mut back[0]);
            unpack::<3>(&three, &mut back[1]);
            unpack::<5>(&five, &mut back[2]);
            for back in back {
                prop_assert_eq!(&back[..], &values[..]);
            }
        }

        #[test]
        fn every_instruction_set_gives_the_same_bits(bits in prop::collection::vec(any::<u32>(), 64), wide in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8])) {
            let grid = Grid { bits: wide, group_size: 32 };
            for float in [Float::F16, Float::Bf16, Float::F32] {
                let row: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()[..float.size()].to_vec()).collect();
                let outcomes: Vec<_> = Simd::available().into_iter().map(|simd| {
                    let (mut packed, mut scales, mut biases) = (vec![0; 8 * wide], vec![0; 2 * float.size()], vec![0; 2 * float.size()]);
                    let mut out = QuantizedRow { packed: &mut packed, scales: &mut scales, biases: &mut biases };
                    quantize_row(simd, float, &row, grid, &mut out, &mut [0.0; 64]);
                    let mut back = vec![0; row.len()];
                    dequantize_row(simd, float, [&packed, &scales, &biases], grid, &mut back, &mut [0.0; 64]);
                    // Which NaN a NaN becomes is the processor's affair.
                    let mut values = [0.0; 64];
                    float.decode(&back, &mut values);
                    (packed, values.map(|value| if value.is_nan() { 0 } else { value.to_bits() }))
                }).collect();
                prop_assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]));
            }
        }
    }
}
