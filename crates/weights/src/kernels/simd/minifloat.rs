//! MLX's small-float modes: mxfp4, mxfp8 and nvfp4.
//! Knows nothing of rows; a block is a sequence of groups.
//!
//! Mirrors `fp_quantize` and `fp_dequantize` in MLX's `ops.cpp` as they run on the CPU. There they are built
//! from array operations, and the result of each operation is rounded to the type of the weight.

use super::pack::{pack, unpack};
use super::{Float, Mode, Packed, Simd, convert};

/// The largest group size of these modes, in weights.
const LARGEST_GROUP: usize = 32;

/// The midpoints between the values of e2m1, which are 0, 0.5, 1, 1.5, 2, 3, 4 and 6. A value on a midpoint
/// goes to the smaller magnitude: of two codes at the same distance, the first is taken.
const MIDDLES: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];

/// From this magnitude on, float32 cannot distinguish all distances from a value to the values of e2m1.
const BLURRED: f32 = 4_194_304.0;

/// Quantizes `values`, which are finite. `float` can represent every value exactly.
#[inline(always)]
pub(super) fn quantize(
    simd: Simd,
    mode: Mode,
    float: Float,
    values: &[f32],
    weight: &mut [u8],
    scales: &mut [u8],
) {
    let (bits, group_size) = (mode.bits()[0], mode.group_sizes()[0]);
    let (mut codes, mut levels) = ([0; LARGEST_GROUP], [0.0; LARGEST_GROUP]);
    let groups = values.chunks_exact(group_size).zip(weight.chunks_exact_mut(group_size / 8 * bits));
    for ((values, packed), scale_out) in groups.zip(scales) {
        let (code, scale) = scale_of(mode, float, values);
        *scale_out = code;
        let group = &mut levels[..group_size];
        for (level, value) in group.iter_mut().zip(values) {
            *level = value / scale;
        }
        convert::round_all(simd, float, group);
        let codes = &mut codes[..group_size];
        match mode {
            Mode::Mxfp8 => encode_all(group, codes, to_e4m3),
            _ if peak_of(group) < BLURRED => encode_all(group, codes, to_e2m1),
            _ => encode_all(group, codes, to_nearest_e2m1),
        }
        pack(bits, codes, packed);
    }
}

#[inline(always)]
fn encode_all(values: &[f32], codes: &mut [u8], encode: impl Fn(f32) -> u8) {
    for (value, code) in values.iter().zip(codes) {
        *code = encode(*value);
    }
}

/// Returns the code of a group's scale, and the scale itself.
#[inline(always)]
fn scale_of(mode: Mode, float: Float, group: &[f32]) -> (u8, f32) {
    let top = if mode == Mode::Mxfp8 { 448.0 } else { 6.0 };
    let mut step = [peak_of(group) / top];
    float.round_all(&mut step);
    if mode == Mode::Nvfp4 {
        let code = to_e4m3(step[0]);
        return (code, from_e4m3(code));
    }
    let exponent = if step[0] == 0.0 { 0 } else { ceil_log2(step[0]) };
    // MLX lets the code wrap around if the exponent is below -127. This needs a group whose weights are all
    // below 1.4e-36.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it wraps, as MLX does")]
    let code = (exponent + 127) as u8;
    (code, power_of_two(exponent))
}

/// Returns the largest magnitude; a NaN is larger than all. Magnitudes are ordered like their bits, and a
/// maximum of integers may be taken in any order.
#[inline(always)]
fn peak_of(group: &[f32]) -> f32 {
    f32::from_bits(group.iter().fold(0, |peak, value| peak.max(value.to_bits() & 0x7fff_ffff)))
}

/// Returns the smallest e with 2^e ≥ `value`, which is positive.
#[inline(always)]
fn ceil_log2(value: f32) -> i32 {
    // A subnormal number has no exponent of its own, so it is multiplied by 2^64 first.
    let (value, shift) =
        if value < f32::MIN_POSITIVE { (value * f32::from_bits((127 + 64) << 23), 64) } else { (value, 0) };
    let bits = value.to_bits();
    let exponent = (bits >> 23).cast_signed() - 127 - shift;
    exponent + i32::from(bits & 0x7f_ffff != 0)
}

/// Returns 2^`exponent`, for exponents from -149 to 127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    #[expect(clippy::cast_sign_loss, reason = "the exponent is in the range that is named")]
    let bits = if exponent >= -126 { ((exponent + 127) as u32) << 23 } else { 1 << (exponent + 149) as u32 };
    f32::from_bits(bits)
}

/// Returns the code of the nearest e2m1 value. The sign of a zero is lost.
#[inline(always)]
fn to_e2m1(value: f32) -> u8 {
    let magnitude = value.abs();
    let index = MIDDLES.iter().fold(0, |index, middle| index + u8::from(magnitude > *middle));
    index | if value < 0.0 && index > 0 { 8 } else { 0 }
}

/// Returns the first e2m1 code with the smallest distance, computed in float32. An infinity or a NaN gives
/// code 0.
fn to_nearest_e2m1(value: f32) -> u8 {
    let mut nearest = (0, f32::INFINITY);
    for code in 0..16u8 {
        let distance = (value - from_e2m1(code)).abs();
        if distance < nearest.1 {
            nearest = (code, distance);
        }
    }
    nearest.0
}

/// Rounds to e4m3, half to even; a magnitude above 448 becomes 448. Mirrors `ToFP8` in MLX's `unary_ops.h`.
#[inline(always)]
fn to_e4m3(value: f32) -> u8 {
    let sign = value.to_bits() & 0x8000_0000;
    let magnitude = value.to_bits() ^ sign;
    // Subnormal numbers: the last place of 2^14 is that of a subnormal e4m3, so the addition rounds.
    let subnormal = (f32::from_bits(magnitude) + 16384.0).to_bits().wrapping_sub(141 << 23);
    let odd = (magnitude >> 20) & 1;
    let normal = magnitude.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + odd) >> 20;
    let finite = if magnitude < 121 << 23 { subnormal } else { normal };
    let code = if magnitude >= 543 << 21 { 0x7e } else { finite };
    #[expect(clippy::cast_possible_truncation, reason = "seven bits, and the sign")]
    let code = (code | (sign >> 24)) as u8;
    code
}

#[inline(always)]
fn from_e4m3(code: u8) -> f32 {
    let magnitude = u32::from(code & 127);
    // The exponent is rebiased from e4m3's bias, 7, to float32's, 127. A subnormal code counts units of 2^-9.
    let normal = f32::from_bits((magnitude << 20) + ((127 - 7) << 23));
    let value = if magnitude < 8 { magnitude as f32 * power_of_two(-9) } else { normal };
    if code & 128 == 0 { value } else { -value }
}

#[inline(always)]
fn from_e2m1(code: u8) -> f32 {
    let magnitude = u32::from(code & 7);
    // As in `from_e4m3`, but the bias is 1 and the only subnormal code stands for 0.5.
    let normal = f32::from_bits((magnitude << 22) + ((127 - 1) << 23));
    let value = if magnitude < 2 { magnitude as f32 * 0.5 } else { normal };
    if code & 8 == 0 { value } else { -value }
}

#[inline(always)]
fn from_scale(mode: Mode, scale: u8) -> f32 {
    match mode {
        Mode::Nvfp4 => from_e4m3(scale),
        // Code 255 stands for infinity here, and code 0 for 2^-127.
        _ if scale == 255 => f32::INFINITY,
        _ => power_of_two(i32::from(scale) - 127),
    }
}

/// Returns the value of each code of a mode of small floats, unscaled.
pub(in super::super) fn code_values(mode: Mode) -> [f32; 256] {
    tabulated(|code| if mode == Mode::Mxfp8 { from_e4m3(code) } else { from_e2m1(code & 15) })
}

/// Returns the value of each code of a scale.
pub(in super::super) fn scale_values(mode: Mode) -> [f32; 256] {
    tabulated(|code| from_scale(mode, code))
}

fn tabulated(value: impl Fn(u8) -> f32) -> [f32; 256] {
    let mut table = [0.0; 256];
    for (entry, code) in table.iter_mut().zip(0..=u8::MAX) {
        *entry = value(code);
    }
    table
}

/// Returns the sum of the squared steps, one step for each weight. The step at a code is the spacing of the
/// codes with the same exponent, times the scale.
pub(super) fn steps(packed: Packed<'_>) -> f64 {
    let Packed { spec, weight, scales, .. } = packed;
    let squares: [f64; 256] = std::array::from_fn(|code| f64::from(step_at(spec.mode, code)).powi(2));
    let mut codes = [0; LARGEST_GROUP];
    let codes = &mut codes[..spec.group_size];
    let mut sum = 0.0;
    for (packed, scale) in weight.chunks_exact(spec.group_size / 8 * spec.bits).zip(scales) {
        unpack(spec.bits, packed, codes);
        let scale = f64::from(from_scale(spec.mode, *scale));
        sum += scale * scale * codes.iter().map(|code| squares[usize::from(*code)]).sum::<f64>();
    }
    sum
}

/// Returns the spacing of the codes with the exponent of `code`: the distance from the first of them to the
/// next.
fn step_at(mode: Mode, code: usize) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a code has eight bits at most")]
    let magnitude = |mask: usize| (code & mask) as u8;
    match mode {
        Mode::Mxfp8 => from_e4m3(magnitude(0x78) + 1) - from_e4m3(magnitude(0x78)),
        _ => from_e2m1(magnitude(6) + 1) - from_e2m1(magnitude(6)),
    }
}

/// Dequantizes into `values`. The scale, and then its product with each code, are rounded to the weight's
/// type.
#[inline(always)]
pub(super) fn dequantize(simd: Simd, packed: Packed<'_>, values: &mut [f32]) {
    let Packed { spec, float, weight, scales, .. } = packed;
    let mut codes = [0; LARGEST_GROUP];
    let codes = &mut codes[..spec.group_size];
    let groups = values.chunks_exact_mut(spec.group_size);
    for ((group, packed), scale) in
        groups.zip(weight.chunks_exact(spec.group_size / 8 * spec.bits)).zip(scales)
    {
        unpack(spec.bits, packed, codes);
        let mut step = [from_scale(spec.mode, *scale)];
        float.round_all(&mut step);
        let codes = group.iter_mut().zip(codes.iter());
        match spec.mode {
            Mode::Mxfp8 => codes.for_each(|(value, code)| *value = from_e4m3(*code) * step[0]),
            _ => codes.for_each(|(value, code)| *value = from_e2m1(*code) * step[0]),
        }
    }
    convert::round_all(simd, float, values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn powers_of_two_by_hand() {
        assert_eq!(
            [ceil_log2(1.0), ceil_log2(1.5), ceil_log2(0.75), ceil_log2(f32::from_bits(1))],
            [0, 1, 0, -149]
        );
        assert_eq!([power_of_two(3), power_of_two(-127)], [8.0, f32::MIN_POSITIVE / 2.0]);
    }

    #[test]
    fn every_code_comes_back() {
        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(from_e2m1), values);
        assert!((9..16).all(|code| to_e2m1(from_e2m1(code)) == code));
        for code in (0..=255u8).filter(|code| code & 127 != 127) {
            assert_eq!(to_e4m3(from_e4m3(code)), code);
        }
        // Halfway between 1 and 1.125, beyond the largest value, and the largest negative magnitude.
        assert_eq!([to_e4m3(1.0625), to_e4m3(1e9), to_e4m3(-448.0)], [to_e4m3(1.0), 0x7e, 0xfe]);
    }

    proptest! {
        #[test]
        fn thresholds_find_the_nearest(bits in any::<u32>(), eighths in -64i32..64) {
            let near = f32::from_bits(bits & 0x00ff_ffff | 0x4000_0000) - 4.0;
            for value in [near, eighths as f32 / 8.0] {
                prop_assert_eq!(to_e2m1(value), to_nearest_e2m1(value), "{}", value);
            }
        }
    }
}
