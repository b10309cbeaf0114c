//! The formats of a matrix row, and how a step of a row becomes float32 weights.
//! Knows nothing of products, nor of where the rows come from.
//!
//! A *step* is what is unpacked at once: 16 weights in their order, or 32 codes of 4 bits. Of the latter the
//! even ones come first, because they lie in the low halves of the bytes; a vector that is multiplied with them is
//! brought into the same order ([`arrange`]).
#![expect(unsafe_code, reason = "`Row` is made by `View::row`, which checks once that all steps lie inside")]

use crate::simd::{LANES, Lanes};

/// The bytes behind a matrix that may be read with its last row.
pub(crate) const PADDING: usize = 4 * LANES;

/// One row of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The floats or the codes, and at least [`PADDING`] bytes behind them.
    pub(crate) bytes: &'a [u8],
    /// The scale of each group; empty for floats.
    pub(crate) scales: &'a [f32],
    /// The bias of each group, in the affine mode.
    pub(crate) biases: &'a [f32],
    /// The binary logarithm of the number of steps in a group.
    pub(crate) group_shift: u32,
    /// The value of each code, in the modes of small floats.
    pub(crate) table: &'a [f32; 256],
}

impl Row<'_> {
    #[inline(always)]
    fn scale(&self, step: usize) -> f32 {
        debug_assert!(step >> self.group_shift < self.scales.len());
        // SAFETY: there is a scale for each group.
        unsafe { *self.scales.get_unchecked(step >> self.group_shift) }
    }

    #[inline(always)]
    fn bias(&self, step: usize) -> f32 {
        debug_assert!(step >> self.group_shift < self.biases.len());
        // SAFETY: there is a bias for each group.
        unsafe { *self.biases.get_unchecked(step >> self.group_shift) }
    }

    /// Returns `N` bytes from the byte `from` on, which lies in the row.
    #[inline(always)]
    fn window<const N: usize>(&self, from: usize) -> &[u8; N] {
        const { assert!(N <= PADDING) };
        debug_assert!(from + N <= self.bytes.len());
        // SAFETY: the step lies in the row, and `PADDING` bytes follow it.
        unsafe { &*self.bytes.as_ptr().add(from).cast() }
    }
}

/// How the weights of a row are stored.
pub(crate) trait Format {
    /// Whether a step has 32 weights, in two chunks of lanes. Otherwise it has 16.
    const PAIRED: bool = false;

    /// The bytes of a step.
    const BYTES: usize;

    /// Returns the weights of a step. Unless the format is paired, the second chunk is not used.
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2];
}

/// Float32 numbers.
pub(crate) struct Float32;
/// Float16 numbers.
pub(crate) struct Float16;
/// Bfloat16 numbers.
pub(crate) struct Bfloat16;
/// Codes of `BITS` bits with a scale and a bias for each group: the weight is `scale * code + bias`.
pub(crate) struct Affine<const BITS: usize>;
/// 4-bit floats with a scale for each 32 weights.
pub(crate) struct Mxfp4;
/// 4-bit floats with a scale for each 16 weights.
pub(crate) struct Nvfp4;
/// 8-bit floats with a scale for each 32 weights.
pub(crate) struct Mxfp8;

#[inline(always)]
fn single<L: Lanes>(chunk: L) -> [L; 2] {
    [chunk, chunk]
}

impl Format for Float32 {
    const BYTES: usize = 4 * LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        single(L::from_f32(row.window(step * Self::BYTES)))
    }
}

impl Format for Float16 {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        single(L::from_f16(row.window(step * Self::BYTES)))
    }
}

impl Format for Bfloat16 {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        single(L::from_bf16(row.window(step * Self::BYTES)))
    }
}

impl<const BITS: usize> Format for Affine<BITS> {
    const PAIRED: bool = BITS == 4;
    const BYTES: usize = if Self::PAIRED { LANES } else { LANES / 8 * BITS };

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        let (scale, bias) = (row.scale(step), row.bias(step));
        let bytes = row.window(step * Self::BYTES);
        if Self::PAIRED {
            return L::affine_nibbles(bytes, scale, bias);
        }
        single(L::from_codes::<BITS>(bytes).mul_add(L::splat(scale), L::splat(bias)))
    }
}

impl Format for Mxfp4 {
    const PAIRED: bool = true;
    const BYTES: usize = LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        let scale = row.scale(step);
        L::lookup_nibbles(row.window(step * Self::BYTES), first_16(row.table), [scale, scale])
    }
}

impl Format for Nvfp4 {
    const PAIRED: bool = true;
    const BYTES: usize = LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        // A step has two groups. A row may end with half a step; what follows it counts nothing.
        let second = row.scales.get(2 * step + 1).copied().unwrap_or_default();
        let scales = [row.scale(2 * step), second];
        L::lookup_nibbles(row.window(step * Self::BYTES), first_16(row.table), scales)
    }
}

impl Format for Mxfp8 {
    const BYTES: usize = LANES;

    #[inline(always)]
    fn step<L: Lanes>(row: &Row<'_>, step: usize) -> [L; 2] {
        let values = L::lookup(row.window(step * Self::BYTES), row.table);
        single(values.mul_add(L::splat(row.scale(step)), L::splat(0.0)))
    }
}

#[inline(always)]
fn first_16(table: &[f32; 256]) -> &[f32; 16] {
    table.first_chunk().expect("BUG: 256 are more than 16")
}

/// Copies `vector` into `arranged`, in the order in which the steps of a format have their weights, and pads it with
/// zeros.
pub(crate) fn arrange(paired: bool, vector: &[f32], arranged: &mut [f32]) {
    arranged.fill(0.0);
    if !paired {
        arranged[..vector.len()].copy_from_slice(vector);
        return;
    }
    let (steps, rest) = vector.as_chunks::<{ 2 * LANES }>();
    let (arranged, _) = arranged.as_chunks_mut::<{ 2 * LANES }>();
    let mut last = [0.0; 2 * LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (step, arranged) in steps.iter().chain([&last]).zip(arranged) {
        for lane in 0..LANES {
            arranged[lane] = step[2 * lane];
            arranged[LANES + lane] = step[2 * lane + 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_are_met_by_their_numbers() {
        let vector: Vec<f32> = (0..48).map(|index| index as f32).collect();
        let mut arranged = [9.0; 64];
        arrange(true, &vector, &mut arranged);
        assert_eq!(arranged[..4], [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(arranged[16..20], [1.0, 3.0, 5.0, 7.0]);
        assert_eq!(arranged[32..41], [32.0, 34.0, 36.0, 38.0, 40.0, 42.0, 44.0, 46.0, 0.0]);
        arrange(false, &vector, &mut arranged);
        assert_eq!((arranged[47], arranged[48]), (47.0, 0.0));
    }
}
