//! The three float types of weights, and rounding between them.
//! Knows nothing of matrices. The loops work on plain bits, so that the compiler can vectorize them.

/// An element type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are IEEE's and the field's")]
pub enum Float {
    F16,
    Bf16,
    F32,
}

impl Float {
    /// Returns the size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Rounds every value to this type, half to even, and widens it to float32 again.
    #[inline(always)]
    pub fn round_all(self, values: &mut [f32]) {
        match self {
            Self::F16 => values.iter_mut().for_each(|value| *value = round_to_half(*value)),
            Self::Bf16 => values.iter_mut().for_each(|value| *value = round_to_brain(*value)),
            Self::F32 => {}
        }
    }

    /// Reads little-endian elements of this type into `values`, which has one place for each element.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F16 => read(bytes, values, |bytes| from_half(u16::from_le_bytes(bytes))),
            Self::Bf16 => read(bytes, values, |bytes| from_brain(u16::from_le_bytes(bytes))),
            Self::F32 => read(bytes, values, f32::from_le_bytes),
        }
    }

    /// Rounds `values` to this type, half to even, and writes them little-endian into `bytes`, which has room
    /// for all of them.
    #[inline(always)]
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        match self {
            Self::F16 => write(values, bytes, |value| to_half(value).to_le_bytes()),
            Self::Bf16 => write(values, bytes, |value| to_brain(value).to_le_bytes()),
            Self::F32 => write(values, bytes, f32::to_le_bytes),
        }
    }
}

#[inline(always)]
fn read<const N: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = convert(*bytes);
    }
}

#[inline(always)]
fn write<const N: usize>(values: &[f32], bytes: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = convert(*value);
    }
}

/// The bit that makes a NaN a quiet one. Conversions set it, as IEEE 754 has it and as processors do.
const QUIET: u32 = 0x0040_0000;

/// Widens a float16 to float32. It takes no branches and makes no float32 subnormals, which are slow on many
/// processors. An addition rebiases the exponent. A subnormal float16 is widened as if it had the exponent of
/// 2^-14, and 2^-14 is subtracted afterwards.
#[inline(always)]
fn from_half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // Adding 112 to the exponent changes float16's bias, 15, to float32's, 127. Infinity and NaN have the
    // largest exponent in both types, so 112 is added once more.
    let special = if magnitude >= 0x7c00 << 13 { 112 << 23 } else { 0 };
    let quiet = if magnitude > 0x7c00 << 13 { QUIET } else { 0 };
    let normal = (magnitude + (112 << 23) + special) | quiet;
    let subnormal = (f32::from_bits(magnitude + (113 << 23)) - f32::from_bits(113 << 23)).to_bits();
    let widened = if magnitude < 0x0400 << 13 { subnormal } else { normal };
    f32::from_bits(widened | (u32::from(bits & 0x8000) << 16))
}

/// Rounds to float16, half to even, without branches. A subnormal result is rounded by a float addition, as
/// in Fabian Giesen's `float_to_half_fast3_rtne`: the last place of the addend is the last place of the
/// result.
#[inline(always)]
fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal numbers: the exponent is rebiased and 13 bits are rounded off.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Subnormal numbers: the last place of 0.5 is 2^-24, which is also that of a subnormal float16.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let special = if magnitude > 0x7f80_0000 { 0x7e00 | ((magnitude >> 13) & 0x3ff) } else { 0x7c00 };
    // 65520 and above round to infinity.
    let rounded = if magnitude >= 0x477f_f000 { special } else { finite };
    #[expect(clippy::cast_possible_truncation, reason = "at most 15 bits are set, and the sign")]
    let half = (rounded | ((bits >> 16) & 0x8000)) as u16;
    half
}

/// Rounds to float16 and widens again, in fewer steps than `to_half` and `from_half` take together.
#[inline(always)]
pub(super) fn round_to_half(value: f32) -> f32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_add(0xfff + odd) & !0x1fff;
    let subnormal = ((f32::from_bits(magnitude) + 0.5) - 0.5).to_bits();
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let special = if magnitude > 0x7f80_0000 { (magnitude & !0x1fff) | QUIET } else { 0x7f80_0000 };
    let rounded = if magnitude >= 0x477f_f000 { special } else { finite };
    f32::from_bits(rounded | (bits & 0x8000_0000))
}

/// Rounds to bfloat16 and widens again.
#[inline(always)]
pub(super) fn round_to_brain(value: f32) -> f32 {
    from_brain(to_brain(value))
}

#[inline(always)]
fn from_brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to bfloat16, half to even; a NaN stays a NaN.
#[inline(always)]
fn to_brain(value: f32) -> u16 {
    let bits = value.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd);
    let kept = if bits & 0x7fff_ffff > 0x7f80_0000 { bits | 0x40_0000 } else { rounded };
    (kept >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    #[test]
    fn every_half_is_widened_as_in_the_half_crate() {
        for bits in 0..=u16::MAX {
            assert_eq!(from_half(bits).is_nan(), f16::from_bits(bits).is_nan());
            if !f16::from_bits(bits).is_nan() {
                assert_eq!(from_half(bits).to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:04x}");
                assert_eq!(to_half(from_half(bits)), bits);
            }
            if !bf16::from_bits(bits).is_nan() {
                assert_eq!(to_brain(from_brain(bits)), bits);
            }
        }
    }

    #[test]
    fn rounds_as_the_half_crate_at_every_border() {
        // The midpoint between any two neighbours, and the floats next to it.
        for bits in 0..0x7c00u16 {
            let middle = (from_half(bits) + from_half(bits + 1)) / 2.0;
            let middle = if bits == 0x7bff { 65520.0 } else { middle };
            for value in [middle, middle.next_down(), middle.next_up(), -middle] {
                assert_eq!(to_half(value), f16::from_f32(value).to_bits(), "{value}");
                assert_eq!(round_to_half(value).to_bits(), from_half(to_half(value)).to_bits(), "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn rounds_as_the_half_crate(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assert_eq!(to_half(value), f16::from_f32(value).to_bits());
            prop_assert_eq!(to_brain(value), bf16::from_f32(value).to_bits());
            let both = from_half(to_half(value));
            prop_assert!(round_to_half(value).to_bits() == both.to_bits() || value.is_nan());
        }
    }
}
