//! Conversions between float32 and the types of weights, and of codes to values, by the processor's own
//! instructions where the instruction set has them: F16C for float16, permutations for tables.
//! Knows nothing of what is converted. The results are those of [`Float`], bit for bit.

use super::{Float, Simd};
use crate::kernels::float::round_to_half;

/// Reads little-endian elements and widens them to float32. `values` has a place for each element, or more.
#[inline(always)]
pub(super) fn decode(simd: Simd, float: Float, bytes: &[u8], values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if float == Float::F16 && simd != Simd::Baseline {
        let (eights, rest) = bytes.as_chunks::<16>();
        let (places, places_rest) = values.split_at_mut(8 * eights.len());
        for (bytes, place) in eights.iter().zip(places.as_chunks_mut().0) {
            #[expect(unsafe_code, reason = "all sets but the baseline have F16C")]
            unsafe {
                eight::widen(bytes, place);
            }
        }
        return float.decode(rest, places_rest);
    }
    let _ = simd;
    float.decode(bytes, values);
}

/// Rounds values to `float`, half to even, and writes them little-endian.
#[inline(always)]
pub(super) fn encode(simd: Simd, float: Float, values: &[f32], bytes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if float == Float::F16 && simd != Simd::Baseline {
        let (eights, rest) = values.as_chunks::<8>();
        let (places, places_rest) = bytes.split_at_mut(16 * eights.len());
        for (values, place) in eights.iter().zip(places.as_chunks_mut().0) {
            #[expect(unsafe_code, reason = "all sets but the baseline have F16C")]
            unsafe {
                eight::narrow(values, place);
            }
        }
        return float.encode(rest, places_rest);
    }
    let _ = simd;
    float.encode(values, bytes);
}

/// Rounds every value to `float`, half to even, and widens it to float32 again.
#[inline(always)]
pub(super) fn round_all(simd: Simd, float: Float, values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if float == Float::F16 && simd != Simd::Baseline {
        let (eights, rest) = values.as_chunks_mut::<8>();
        for eight in eights {
            #[expect(unsafe_code, reason = "all sets but the baseline have F16C")]
            unsafe {
                eight::round(eight);
            }
        }
        return float.round_all(rest);
    }
    let _ = simd;
    float.round_all(values);
}

/// Writes `code * step + offset` for each value; there is a code for each, or more. The product and the sum are each rounded to float16.
#[inline(always)]
pub(super) fn half_grid(simd: Simd, step: f32, offset: f32, codes: &[u8], values: &mut [f32]) {
    let (places, places_rest) = values.as_chunks_mut::<8>();
    let (eights, rest) = codes[..8 * places.len() + places_rest.len()].as_chunks::<8>();
    for (codes, place) in eights.iter().zip(places) {
        match simd {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 | Simd::Avx512 => {
                #[expect(unsafe_code, reason = "these sets have AVX2 and F16C")]
                unsafe {
                    eight::grid(step, offset, codes, place);
                }
            }
            Simd::Baseline => grid(step, offset, codes, place),
        }
    }
    grid(step, offset, rest, places_rest);
}

#[inline(always)]
fn grid(step: f32, offset: f32, codes: &[u8], values: &mut [f32]) {
    for (value, code) in values.iter_mut().zip(codes) {
        *value = round_to_half(round_to_half(f32::from(*code) * step) + offset);
    }
}

/// Writes the value in the table for each value's code, which is below 16; there is a code for each, or more.
#[inline(always)]
pub(super) fn look_up(simd: Simd, table: &[f32; 16], codes: &[u8], values: &mut [f32]) {
    let (places, places_rest) = values.as_chunks_mut::<8>();
    let (eights, rest) = codes[..8 * places.len() + places_rest.len()].as_chunks::<8>();
    for (codes, place) in eights.iter().zip(places) {
        match simd {
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 | Simd::Avx512 => {
                #[expect(unsafe_code, reason = "these sets have AVX2")]
                unsafe {
                    eight::look_up(table, codes, place);
                }
            }
            Simd::Baseline => find(table, codes, place),
        }
    }
    find(table, rest, places_rest);
}

#[inline(always)]
fn find(table: &[f32; 16], codes: &[u8], values: &mut [f32]) {
    for (value, code) in values.iter_mut().zip(codes) {
        *value = table[usize::from(code & 15)];
    }
}

/// Eight values at a time, on processors with AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the processor's instructions; each function says what it needs")]
mod eight {
    use std::arch::x86_64::{
        __m256, _MM_FROUND_TO_NEAREST_INT, _mm_loadl_epi64, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_ps,
        _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps,
        _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_mul_ps, _mm256_permutevar8x32_ps, _mm256_set1_ps,
        _mm256_slli_epi32, _mm256_storeu_ps,
    };

    /// # Safety
    /// The processor has F16C.
    #[inline(always)]
    pub(super) unsafe fn widen(bytes: &[u8; 16], values: &mut [f32; 8]) {
        // SAFETY: 16 bytes are read, and eight floats are written.
        unsafe {
            let halves = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm256_storeu_ps(values.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }

    /// # Safety
    /// The processor has F16C.
    #[inline(always)]
    pub(super) unsafe fn narrow(values: &[f32; 8], bytes: &mut [u8; 16]) {
        // SAFETY: eight floats are read, and 16 bytes are written.
        unsafe {
            let floats = _mm256_loadu_ps(values.as_ptr());
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), halves);
        }
    }

    /// # Safety
    /// The processor has F16C.
    #[inline(always)]
    pub(super) unsafe fn round(values: &mut [f32; 8]) {
        // SAFETY: eight floats are read and written.
        unsafe {
            let rounded = rounded(_mm256_loadu_ps(values.as_ptr()));
            _mm256_storeu_ps(values.as_mut_ptr(), rounded);
        }
    }

    /// # Safety
    /// The processor has AVX2 and F16C.
    #[inline(always)]
    pub(super) unsafe fn grid(step: f32, offset: f32, codes: &[u8; 8], values: &mut [f32; 8]) {
        // SAFETY: eight bytes are read, and eight floats are written.
        unsafe {
            let codes = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast())));
            let product = rounded(_mm256_mul_ps(codes, _mm256_set1_ps(step)));
            let sum = rounded(_mm256_add_ps(product, _mm256_set1_ps(offset)));
            _mm256_storeu_ps(values.as_mut_ptr(), sum);
        }
    }

    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    pub(super) unsafe fn look_up(table: &[f32; 16], codes: &[u8; 8], values: &mut [f32; 8]) {
        // SAFETY: 16 floats and eight bytes are read, and eight floats are written.
        unsafe {
            let codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast()));
            let half = |start| _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr().add(start)), codes);
            // The fourth bit of a code chooses the half. It is moved to the sign, where the choice looks for it.
            let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
            _mm256_storeu_ps(values.as_mut_ptr(), _mm256_blendv_ps(half(0), half(8), choice));
        }
    }

    /// # Safety
    /// The processor has F16C.
    #[inline(always)]
    unsafe fn rounded(values: __m256) -> __m256 {
        // SAFETY: the caller's processor has F16C.
        unsafe { _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd;
    use proptest::prelude::*;

    fn sets() -> impl Iterator<Item = Simd> {
        Simd::ALL.iter().copied().filter(|set| set.is_there())
    }

    /// What a set makes of float32 values: float16 bytes, the values rounded, and values on a grid.
    fn narrowed(set: Simd, values: &[f32]) -> (Vec<u8>, Vec<u32>, Vec<u32>) {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        let (mut bytes, mut rounded) = (vec![0; 2 * values.len()], values.to_vec());
        let (codes, mut grid) = (vec![7; values.len()], vec![0.0; values.len()]);
        simd::encode(set, Float::F16, values, &mut bytes);
        simd::round_all(set, Float::F16, &mut rounded);
        half_grid(set, values[0], values[1], &codes, &mut grid);
        (bytes, bits(&rounded), bits(&grid))
    }

    #[test]
    fn every_float16_widens_alike() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let widened = |set: Simd| {
            let mut values = vec![0.0; 1 << 16];
            simd::decode(set, Float::F16, &bytes, &mut values);
            values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        for set in sets() {
            assert!(widened(set) == widened(Simd::Baseline), "{set:?}");
        }
    }

    proptest! {
        #[test]
        fn every_float32_narrows_alike(bits in prop::collection::vec(any::<u32>(), 19)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            for set in sets() {
                prop_assert_eq!(narrowed(set, &values), narrowed(Simd::Baseline, &values), "{:?}", set);
            }
        }

        /// Values around those where float16 is subnormal, ends, or is in the middle between two.
        #[test]
        fn every_edge_narrows_alike(exponents in prop::collection::vec(98u32..145, 19), low in 0u32..3, middle in any::<bool>(), sign in any::<bool>()) {
            let mantissa = if middle { 0x1000 } else { 0x7f_f000 };
            let value = |exponent: u32| f32::from_bits(((exponent << 23) | mantissa) + low - 1) * if sign { -1.0 } else { 1.0 };
            let values: Vec<f32> = exponents.into_iter().map(value).collect();
            for set in sets() {
                prop_assert_eq!(narrowed(set, &values), narrowed(Simd::Baseline, &values), "{:?}", set);
            }
        }
    }
}
