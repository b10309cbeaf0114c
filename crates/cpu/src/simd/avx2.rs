//! The sixteen lanes as two 256-bit registers.
//! Each method gives the bits of `portable.rs`.
#![expect(
    unsafe_code,
    reason = "every method runs in a function that is compiled for AVX2, FMA and F16C, where the processor has them"
)]

use std::arch::x86_64::*;

use super::{LANES, Lanes, pairs, shifts};

#[derive(Clone, Copy)]
pub(crate) struct Avx2([__m256; 2]);

// Arrays are written out rather than mapped: a closure would be compiled without the instruction set.

/// Converts integers from 0 to 255.
#[inline(always)]
fn from_integers([low, high]: [__m256i; 2]) -> Avx2 {
    // SAFETY: see the top of the file.
    unsafe { Avx2([_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]) }
}

/// Widens 16 bytes to integers.
#[inline(always)]
fn widened(bytes: &[u8; LANES]) -> [__m256i; 2] {
    // SAFETY: the array has 16 bytes.
    unsafe {
        let all = _mm_loadu_si128(bytes.as_ptr().cast());
        [_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(all))]
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the top of the file.
        Self([unsafe { _mm256_set1_ps(value) }; 2])
    }

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: a prefetch reads nothing, so any address is good.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: both halves of the array are read.
        unsafe { Self([_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))]) }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: both halves of the array are written.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the top of the file.
        unsafe {
            Self([
                _mm256_fmadd_ps(self.0[0], factor.0[0], addend.0[0]),
                _mm256_fmadd_ps(self.0[1], factor.0[1], addend.0[1]),
            ])
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see the top of the file.
        sum_of_eight(unsafe { _mm256_add_ps(self.0[0], self.0[1]) })
    }

    #[inline(always)]
    fn from_f32(bytes: &[u8; 4 * LANES]) -> Self {
        // SAFETY: both halves of the array are read; x86-64 is little-endian.
        unsafe {
            Self([_mm256_loadu_ps(bytes.as_ptr().cast()), _mm256_loadu_ps(bytes.as_ptr().add(32).cast())])
        }
    }

    #[inline(always)]
    fn from_f16(bytes: &[u8; 2 * LANES]) -> Self {
        // SAFETY: both halves of the array are read.
        unsafe {
            let (low, high) =
                (_mm_loadu_si128(bytes.as_ptr().cast()), _mm_loadu_si128(bytes.as_ptr().add(16).cast()));
            Self([_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)])
        }
    }

    #[inline(always)]
    fn from_bf16(bytes: &[u8; 2 * LANES]) -> Self {
        // SAFETY: both halves of the array are read.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().add(16).cast()));
            Self([
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ])
        }
    }

    #[inline(always)]
    fn from_codes<const BITS: usize>(bytes: &[u8; LANES]) -> Self {
        if BITS == 8 {
            return from_integers(widened(bytes));
        }
        // SAFETY: all arrays have as many bytes as are read.
        unsafe {
            let all = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
            let low = _mm256_loadu_si256(const { pairs::<32>(BITS, 0) }.as_ptr().cast());
            let high = _mm256_loadu_si256(const { pairs::<32>(BITS, 8) }.as_ptr().cast());
            // Eight codes are `BITS` whole bytes, so they begin alike in both halves.
            let shifts = _mm256_loadu_si256(const { shifts::<8>(BITS) }.as_ptr().cast());
            let mask = _mm256_set1_epi32((1 << BITS) - 1);
            from_integers([
                _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(all, low), shifts), mask),
                _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(all, high), shifts), mask),
            ])
        }
    }

    #[inline(always)]
    fn lookup(bytes: &[u8; LANES], table: &[f32; 256]) -> Self {
        let [low, high] = widened(bytes);
        // SAFETY: a byte is an index into the table.
        unsafe {
            Self([
                _mm256_i32gather_ps::<4>(table.as_ptr(), low),
                _mm256_i32gather_ps::<4>(table.as_ptr(), high),
            ])
        }
    }

    #[inline(always)]
    fn affine_nibbles(bytes: &[u8; LANES], scale: f32, bias: f32) -> [Self; 2] {
        let (scale, bias) = (Self::splat(scale), Self::splat(bias));
        let [low, high] = nibbles(bytes);
        [scale.mul_add(from_integers(low), bias), scale.mul_add(from_integers(high), bias)]
    }

    #[inline(always)]
    fn lookup_nibbles(bytes: &[u8; LANES], table: &[f32; 16], scales: [f32; 2]) -> [Self; 2] {
        // SAFETY: both halves of the table are read.
        unsafe {
            let table = [_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))];
            let [low, high] = nibbles(bytes);
            let scales = [_mm256_set1_ps(scales[0]), _mm256_set1_ps(scales[1])];
            [
                Self([scaled_entry(table, low[0], scales[0]), scaled_entry(table, low[1], scales[1])]),
                Self([scaled_entry(table, high[0], scales[0]), scaled_entry(table, high[1], scales[1])]),
            ]
        }
    }
}

/// Returns the scale times the entry of a table of 16 for each code.
#[inline(always)]
fn scaled_entry([low, high]: [__m256; 2], codes: __m256i, scale: __m256) -> __m256 {
    // SAFETY: see the top of the file.
    unsafe {
        // Bit 3 of a code chooses the half of the table.
        let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
        let (low, high) = (_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes));
        _mm256_mul_ps(scale, _mm256_blendv_ps(low, high, is_high))
    }
}

/// Returns the sum of eight lanes, as the last three steps of [`Lanes::sum`] say.
#[inline(always)]
pub(super) fn sum_of_eight(eight: __m256) -> f32 {
    // SAFETY: see the top of the file.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// Returns the codes in the low halves of the bytes, and those in the high halves.
#[inline(always)]
fn nibbles(bytes: &[u8; LANES]) -> [[__m256i; 2]; 2] {
    let [first, second] = widened(bytes);
    // SAFETY: see the top of the file.
    unsafe {
        let mask = _mm256_set1_epi32(15);
        let low = [_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)];
        [low, [_mm256_srli_epi32::<4>(first), _mm256_srli_epi32::<4>(second)]]
    }
}
