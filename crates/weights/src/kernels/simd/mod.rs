//! The arithmetic on a block of rows, compiled for several instruction sets.
//! Knows nothing of threads. Each kernel is written once, as plain loops. The compiler keeps the source's
//! order of operations, and Rust never fuses a multiply with an add. So every instruction set gives the same
//! bits.

mod affine;
mod convert;
mod keep;
mod merge;
pub(super) mod minifloat;
mod pack;
mod settle;
mod sums;

use super::{Directions, Dither, Float, Lora, Mode, Packed, PackedMut, QuantSpec, Rows, UpdateStats};

/// The instruction sets that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simd {
    /// What every processor of the architecture supports; on aarch64 that includes NEON.
    Baseline,
    /// 256-bit vectors on x86-64, with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors on x86-64, with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// All sets, the best first.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Baseline,
    ];

    /// Whether this processor supports the set.
    fn is_there(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_there()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    /// Returns the best set that this processor supports.
    pub(super) fn best() -> Self {
        Self::ALL.iter().copied().find(|set| set.is_there()).unwrap_or(Self::Baseline)
    }
}

/// Defines a function whose first argument is an instruction set. It runs the body that is compiled for that
/// set. The body has the set as its first argument too; it is a constant there.
macro_rules! for_each_set {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? => $body:path) => {
        $(#[$doc])*
        pub(super) fn $name(simd: Simd, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $body(Simd::Avx2, $($argument),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $body(Simd::Avx512, $($argument),*)
                }
                match simd {
                    Simd::Baseline => $body(Simd::Baseline, $($argument),*),
                    #[expect(unsafe_code, reason = "`Simd::is_there` found these features on this processor")]
                    Simd::Avx2 => unsafe { avx2($($argument),*) },
                    #[expect(unsafe_code, reason = "`Simd::is_there` found these features on this processor")]
                    Simd::Avx512 => unsafe { avx512($($argument),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            match simd {
                Simd::Baseline => $body(Simd::Baseline, $($argument),*),
            }
        }
    };
}

for_each_set! {
    /// Reads little-endian elements and widens them to float32.
    fn decode(float: Float, bytes: &[u8], values: &mut [f32]) => convert::decode
}

for_each_set! {
    /// Rounds values to `float` and writes them little-endian.
    fn encode(float: Float, values: &[f32], bytes: &mut [u8]) => convert::encode
}

for_each_set! {
    /// Rounds values to `float` and widens them again.
    fn round_all(float: Float, values: &mut [f32]) => convert::round_all
}

for_each_set! {
    /// Whether `is_in_range` holds for all values.
    fn all_in_range(values: &[f32]) -> bool => all_in_range_body
}

for_each_set! {
    /// Quantizes `values`, which are whole groups. `float` can represent every value exactly.
    fn quantize(float: Float, values: &[f32], spec: QuantSpec, out: PackedMut<'_>) => quantize_body
}

for_each_set! {
    /// Dequantizes into `values`, rounded to the float type of `packed`.
    fn dequantize(packed: Packed<'_>, values: &mut [f32]) => dequantize_body
}

for_each_set! {
    /// Adds an update to `rows`, the first of which is row `first` of the matrix. `delta` is scratch memory
    /// with one place for each column.
    fn merge(rows: &mut Rows, lora: &Lora, first: usize, delta: &mut [f32]) => merge::merge
}

for_each_set! {
    /// Rounds `updated`, the rows of `base` after an update, on the base's grid or a finer one.
    fn keep(
        base: Packed<'_>,
        updated: &[f32],
        dither: Dither,
        how: (QuantSpec, Option<&Directions>),
        out: PackedMut<'_>,
    ) => keep::keep
}

for_each_set! {
    /// Whether `a` and `b` are equal, bit for bit.
    fn same(a: &[f32], b: &[f32]) -> bool => sums::same
}

for_each_set! {
    /// Returns the sum of the squared differences, each multiplied with the weight of its column.
    fn squared_error(a: &[f32], b: &[f32], weights: Option<&[f32]>) -> f64 => sums::squared_error
}

for_each_set! {
    /// Returns the sums over rows before an update (`base`), after it (`updated`) and in the outcome
    /// (`made`).
    fn update_stats(columns: usize, base: &[f32], updated: &[f32], made: &[f32]) -> UpdateStats => sums::stats
}

for_each_set! {
    /// Returns the same sums for an outcome that is stored as codes.
    fn update_stats_packed(packed: Packed<'_>, base: &[f32], updated: &[f32], made: Option<&[f32]>, alike: bool) -> UpdateStats
        => sums::stats_packed
}

/// Returns the sum of the squared quantization steps, one step for each weight.
pub(super) fn steps(packed: Packed<'_>) -> f64 {
    match packed.spec.mode {
        Mode::Affine => affine::steps(packed),
        _ => minifloat::steps(packed),
    }
}

/// Whether a value can be computed with: it is not infinite, not NaN, and its magnitude is below 2^127. So
/// the range of a group, maximum minus minimum, cannot overflow.
#[inline(always)]
pub(super) fn is_in_range(value: f32) -> bool {
    value.to_bits() & 0x7f80_0000 < 0x7f00_0000
}

#[inline(always)]
fn all_in_range_body(_: Simd, values: &[f32]) -> bool {
    values.iter().fold(true, |in_range, value| in_range & is_in_range(*value))
}

#[inline(always)]
fn quantize_body(simd: Simd, float: Float, values: &[f32], spec: QuantSpec, out: PackedMut<'_>) {
    match spec.mode {
        Mode::Affine => affine::quantize(simd, float, values, spec, out),
        mode => minifloat::quantize(simd, mode, float, values, out.weight, out.scales),
    }
}

#[inline(always)]
fn dequantize_body(simd: Simd, packed: Packed<'_>, values: &mut [f32]) {
    match packed.spec.mode {
        Mode::Affine => affine::dequantize(simd, packed, values),
        _ => minifloat::dequantize(simd, packed, values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn specs() -> Vec<QuantSpec> {
        let modes = Mode::WORDS.into_iter().map(|(_, mode)| mode);
        modes
            .flat_map(|mode| mode.bits().iter().map(move |&bits| (mode, bits)))
            .flat_map(|(mode, bits)| {
                mode.group_sizes().iter().map(move |&group_size| QuantSpec { mode, bits, group_size })
            })
            .collect()
    }

    /// Everything that an instruction set computes from these values: codes, scales, biases, the dequantized
    /// values, a merge, and the codes and scales of the merged values on the grid of the others.
    fn outcome(simd: Simd, float: Float, row: &[u8], spec: QuantSpec) -> [Vec<u8>; 7] {
        let mut values = vec![0.0; row.len() / float.size()];
        let count = values.len();
        decode(simd, float, row, &mut values);
        let mut merged = Rows { float, columns: count / 2, values: values.clone() };
        let a = values[..count].iter().map(|value| value * 0.125).collect();
        let lora =
            Lora { a, b: vec![0.5, -3.0, 0.25, 7.0], scale: 2.0, rank: 2, magnitude: Some(vec![2.0, 3.0]) };
        merge(simd, &mut merged, &lora, 0, &mut vec![0.0; count / 2]);
        let mut merged_bytes = vec![0; row.len()];
        encode(simd, float, &merged.values, &mut merged_bytes);

        let mut weight = vec![0; spec.weight_bytes(count)];
        let mut scales = vec![0; spec.scale_bytes(count, float)];
        let mut biases = vec![0; spec.bias_bytes(count, float)];
        let out = PackedMut { weight: &mut weight, scales: &mut scales, biases: &mut biases };
        quantize(simd, float, &values, spec, out);
        let packed =
            Packed { spec, float, columns: count, weight: &weight, scales: &scales, biases: &biases };
        dequantize(simd, packed, &mut values);
        let mut back = vec![0; row.len()];
        encode(simd, float, &values, &mut back);
        let [kept, finer] = kept(simd, packed, &merged.values);
        [weight, scales, biases, back, merged_bytes, kept, finer]
    }

    /// Keeps `updated` in 8 bits. Only the affine mode does that.
    fn kept(simd: Simd, base: Packed<'_>, updated: &[f32]) -> [Vec<u8>; 2] {
        if base.spec.mode != Mode::Affine {
            return Default::default();
        }
        let spec = QuantSpec { bits: 8, ..base.spec };
        let (mut weight, mut scales) = (vec![0; updated.len()], vec![0; base.scales.len()]);
        let mut biases = scales.clone();
        let out = PackedMut { weight: &mut weight, scales: &mut scales, biases: &mut biases };
        let values = updated.iter().cycle().take(2 * base.columns).map(|value| f64::from(*value)).collect();
        let directions = Directions { count: 2, values };
        keep(simd, base, updated, Dither { seed: 14, first_row: 3 }, (spec, Some(&directions)), out);
        [weight, scales]
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(bits in prop::collection::vec(any::<u32>(), 256), spec in prop::sample::select(specs())) {
            for float in [Float::F16, Float::Bf16, Float::F32] {
                // Finite values only: others are refused before they reach the kernels.
                let mut values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(bits & 0xbfff_ffff) * 1000.0).collect();
                float.round_all(&mut values);
                let mut row = vec![0; 256 * float.size()];
                float.encode(&values, &mut row);
                let sets = Simd::ALL.iter().filter(|set| set.is_there());
                let outcomes: Vec<_> = sets.map(|&simd| outcome(simd, float, &row, spec)).collect();
                prop_assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]));
            }
        }
    }
}
