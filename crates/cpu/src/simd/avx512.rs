//! The sixteen lanes as one 512-bit register.
//! Each method gives the bits of `portable.rs`.
#![expect(
    unsafe_code,
    reason = "every method runs in a function that is compiled for AVX-512, where the processor has it"
)]

use std::arch::x86_64::*;

use super::avx2::sum_of_eight;
use super::{LANES, Lanes, pairs, shifts};

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

impl Lanes for Avx512 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the top of the file.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: a prefetch reads nothing, so any address is good.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        // SAFETY: the array has 16 numbers.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: the array has 16 numbers.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see the top of the file.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see the top of the file.
        let halves =
            unsafe { _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) };
        sum_of_eight(halves)
    }

    #[inline(always)]
    fn from_f32(bytes: &[u8; 4 * LANES]) -> Self {
        // SAFETY: the array has 64 bytes; x86-64 is little-endian.
        Self(unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    fn from_f16(bytes: &[u8; 2 * LANES]) -> Self {
        // SAFETY: the array has 32 bytes.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) })
    }

    #[inline(always)]
    fn from_bf16(bytes: &[u8; 2 * LANES]) -> Self {
        // SAFETY: the array has 32 bytes.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    fn from_codes<const BITS: usize>(bytes: &[u8; LANES]) -> Self {
        // SAFETY: the array has 16 bytes.
        unsafe {
            let all = _mm_loadu_si128(bytes.as_ptr().cast());
            if BITS == 8 {
                return Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(all)));
            }
            let spread = _mm512_shuffle_epi8(
                _mm512_broadcast_i32x4(all),
                _mm512_loadu_si512(const { pairs::<64>(BITS, 0) }.as_ptr().cast()),
            );
            let shifted = _mm512_srlv_epi32(
                spread,
                _mm512_loadu_si512(const { shifts::<LANES>(BITS) }.as_ptr().cast()),
            );
            Self(_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32((1 << BITS) - 1))))
        }
    }

    #[inline(always)]
    fn lookup(bytes: &[u8; LANES], table: &[f32; 256]) -> Self {
        // SAFETY: a byte is an index into the table.
        unsafe {
            let indices = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            Self(_mm512_i32gather_ps::<4>(indices, table.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn affine_nibbles(bytes: &[u8; LANES], scale: f32, bias: f32) -> [Self; 2] {
        const CODES: [f32; LANES] =
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
        // A group has only 16 different weights. They are computed once, then looked up.
        let weights = Self::load(&CODES).mul_add(Self::splat(scale), Self::splat(bias));
        permuted(bytes, weights)
    }

    #[inline(always)]
    fn lookup_nibbles(bytes: &[u8; LANES], table: &[f32; 16], scales: [f32; 2]) -> [Self; 2] {
        // SAFETY: see the top of the file.
        unsafe {
            let (first, second) = (_mm256_set1_ps(scales[0]), _mm256_set1_ps(scales[1]));
            let scales = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(first), second);
            let [low, high] = permuted(bytes, Self::load(table));
            [Self(_mm512_mul_ps(scales, low.0)), Self(_mm512_mul_ps(scales, high.0))]
        }
    }
}

/// Returns the entry of `table` for the low half of each byte, and for the high half.
#[inline(always)]
fn permuted(bytes: &[u8; LANES], table: Avx512) -> [Avx512; 2] {
    // SAFETY: the array has 16 bytes. A permutation reads only the low four bits of an index.
    unsafe {
        let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
        let high = _mm512_srli_epi32::<4>(low);
        [Avx512(_mm512_permutexvar_ps(low, table.0)), Avx512(_mm512_permutexvar_ps(high, table.0))]
    }
}
