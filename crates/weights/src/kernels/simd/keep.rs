//! Rounds updated weights on the grid of their base, so that the update survives on average.
//! Knows nothing of which weights are rounded in this way, nor why. `docs/rounding.md` has the formulas.

use super::affine::{BATCH, LARGEST_GROUP, ROUNDING, round};
use super::pack::{pack, unpack};
use super::{Dither, Packed, PackedMut, QuantSpec};

/// Writes the random numbers of a part of row `row` of a block, each from -1/2 to 1/2: the top 24 bits of
/// splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), centred.
#[inline(always)]
fn fill(dither: Dither, row: usize, first_column: usize, numbers: &mut [f32]) {
    let start = dither.seed.wrapping_add(((dither.first_row + row) as u64) << 32);
    for (column, number) in (first_column as u64..).zip(numbers) {
        *number = centred(splitmix64(start.wrapping_add(column)));
    }
}

#[inline(always)]
fn splitmix64(state: u64) -> u64 {
    let mut mixed = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Returns a number from -1/2 to 1/2, each operation rounded to float32.
#[inline(always)]
fn centred(hash: u64) -> f32 {
    ((hash >> 40) as f32 + 0.5) * 2f32.powi(-24) - 0.5
}

/// Writes the codes, scales and biases of `updated`, the rows of `base` after an update. `spec` has the
/// groups of the base, and as many bits or more. With `k` more bits the scale is that of the base over `2^k`,
/// so the base's own values are still on the grid: an update of zero gives them back exactly.
#[inline(always)]
pub(super) fn keep(base: Packed<'_>, updated: &[f32], dither: Dither, spec: QuantSpec, out: PackedMut<'_>) {
    let Packed { spec: QuantSpec { bits, group_size, .. }, float, columns, .. } = base;
    let (mut steps, mut finer, mut offsets) = ([0.0; BATCH], [0.0; BATCH], [0.0; BATCH]);
    let (mut codes, mut numbers) = ([0; LARGEST_GROUP], [0.0; LARGEST_GROUP]);
    let more = spec.bits - bits;
    let side = float.size() * BATCH;
    let base_codes = base.weight.chunks(group_size * BATCH / 8 * bits);
    let batches = updated.chunks(group_size * BATCH).zip(base_codes);
    let out_codes = out.weight.chunks_mut(group_size * BATCH / 8 * spec.bits);
    let base_sides = base.scales.chunks(side).zip(base.biases.chunks(side));
    let out_sides = out.scales.chunks_mut(side).zip(out.biases.chunks_mut(side));
    let mut first = 0;
    for (((updated, weight), out_weight), (sides, out_sides)) in
        batches.zip(out_codes).zip(base_sides.zip(out_sides))
    {
        let count = updated.len() / group_size;
        float.decode(sides.0, &mut steps);
        float.decode(sides.1, &mut offsets);
        refine(&steps, more, |values| float.round_all(values), &mut finer);
        let groups = updated.chunks_exact(group_size).zip(weight.chunks_exact(group_size / 8 * bits));
        let groups = groups.zip(out_weight.chunks_exact_mut(group_size / 8 * spec.bits)).enumerate();
        for (index, ((updated, packed), out_packed)) in groups {
            let grid = Grid {
                step: steps[index],
                offset: offsets[index],
                finer: finer[index],
                more: if finer[index] == steps[index] { 0 } else { more },
                levels: ((1u32 << spec.bits) - 1) as f32,
            };
            fill(dither, first / columns, first % columns, &mut numbers[..group_size]);
            let codes = &mut codes[..group_size];
            unpack(bits, packed, codes);
            grid.move_codes(|values| float.round_all(values), updated, &numbers[..group_size], codes);
            pack(spec.bits, codes, out_packed);
            first += group_size;
        }
        float.encode(&finer[..count], out_sides.0);
        out_sides.1.copy_from_slice(sides.1);
    }
}

/// Divides every step by `2^more`. A step that is too small to be divided exactly stays as it is.
#[inline(always)]
fn refine(steps: &[f32; BATCH], more: usize, round_all: impl Fn(&mut [f32]), finer: &mut [f32; BATCH]) {
    let factor = (1u32 << more) as f32;
    for (finer, step) in finer.iter_mut().zip(steps) {
        *finer = step / factor;
    }
    round_all(finer);
    for (finer, step) in finer.iter_mut().zip(steps) {
        *finer = if *finer * factor == *step { *finer } else { *step };
    }
}

/// The grid of one group.
struct Grid {
    /// The step of the base.
    step: f32,
    /// The value of code 0.
    offset: f32,
    /// The step of the outcome: `step / 2^more`.
    finer: f32,
    more: usize,
    /// The largest code of the outcome.
    levels: f32,
}

impl Grid {
    /// Replaces the base's codes by those of `updated`: `q * 2^more + rint((updated - base) / finer + number)`.
    /// A step of zero leaves every code where it is.
    #[inline(always)]
    fn move_codes(&self, round_all: impl Fn(&mut [f32]), updated: &[f32], numbers: &[f32], codes: &mut [u8]) {
        let mut base = [0.0; LARGEST_GROUP];
        let base = &mut base[..codes.len()];
        for (value, code) in base.iter_mut().zip(&*codes) {
            *value = f32::from(*code) * self.step;
        }
        round_all(base);
        for value in base.iter_mut() {
            *value += self.offset;
        }
        round_all(base);
        let (divisor, factor) = (if self.step == 0.0 { 1.0 } else { self.finer }, (1u32 << self.more) as f32);
        let is_fixed = self.step == 0.0;
        for (((code, base), updated), number) in codes.iter_mut().zip(base).zip(updated).zip(numbers) {
            let moved = round((updated - *base) / divisor + number);
            let moved = if is_fixed { 0.0 } else { moved };
            let level = f32::from(*code) * factor + moved;
            let level = if level > 0.0 { level } else { 0.0 };
            let level = if level < self.levels { level } else { self.levels };
            #[expect(clippy::cast_possible_truncation, reason = "a level has eight bits at most")]
            let low = (level + ROUNDING).to_bits() as u8;
            *code = low;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_hash_move_nothing() {
        // At the upper end the sum rounds up to 1, so the number is 1/2 itself; half rounds to even.
        assert_eq!((centred(0), centred(u64::MAX)), (-0.5 + 2f32.powi(-25), 0.5));
        assert_eq!([centred(0), centred(u64::MAX)].map(round), [0.0, 0.0]);
    }
}
