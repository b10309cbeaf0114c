//! The sixteen lanes as an array, for every processor; the compiler makes NEON of it on aarch64.
//! This is the definition that the other sets are tested against.

use weights::kernels::Float;

use super::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Lanes for Portable {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self.0;
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(factor.0[lane], addend.0[lane])))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|lane| self.0[lane] + self.0[lane + 8]);
        let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn from_f32(bytes: &[u8; 4 * LANES]) -> Self {
        let mut values = [0.0; LANES];
        Float::F32.decode(bytes, &mut values);
        Self(values)
    }

    #[inline(always)]
    fn from_f16(bytes: &[u8; 2 * LANES]) -> Self {
        let mut values = [0.0; LANES];
        Float::F16.decode(bytes, &mut values);
        Self(values)
    }

    #[inline(always)]
    fn from_bf16(bytes: &[u8; 2 * LANES]) -> Self {
        let mut values = [0.0; LANES];
        Float::Bf16.decode(bytes, &mut values);
        Self(values)
    }

    #[inline(always)]
    fn from_codes<const BITS: usize>(bytes: &[u8; LANES]) -> Self {
        // A code of 8 bits at most lies in two neighbouring bytes.
        let byte = |index: usize| bytes.get(index).map_or(0, |byte| u32::from(*byte));
        Self(std::array::from_fn(|lane| {
            let first = lane * BITS / 8;
            let pair = byte(first) | byte(first + 1) << 8;
            (pair >> (lane * BITS % 8) & ((1 << BITS) - 1)) as f32
        }))
    }

    #[inline(always)]
    fn lookup(bytes: &[u8; LANES], table: &[f32; 256]) -> Self {
        Self(bytes.map(|byte| table[usize::from(byte)]))
    }

    #[inline(always)]
    fn affine_nibbles(bytes: &[u8; LANES], scale: f32, bias: f32) -> [Self; 2] {
        let weight = |code: u8| scale.mul_add(f32::from(code), bias);
        [Self(bytes.map(|byte| weight(byte & 15))), Self(bytes.map(|byte| weight(byte >> 4)))]
    }

    #[inline(always)]
    fn lookup_nibbles(bytes: &[u8; LANES], table: &[f32; 16], scales: [f32; 2]) -> [Self; 2] {
        // A byte holds two neighbouring codes, so half of the bytes hold the first 16.
        let weight = |lane: usize, code: u8| scales[lane / (LANES / 2)] * table[usize::from(code & 15)];
        [0, 4].map(|shift| Self(std::array::from_fn(|lane| weight(lane, bytes[lane] >> shift))))
    }
}
