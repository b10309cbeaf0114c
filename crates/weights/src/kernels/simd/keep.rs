//! Rounds updated weights on the grid of their base, so that the update survives on average.
//! Knows nothing of which weights are rounded in this way, nor why. `docs/rounding.md` has the formulas.

use super::affine::{ROUNDING, on_grid, round};
use super::pack::{pack, unpack};
use super::settle::{LANES, Lanes};
use super::{Directions, Dither, Float, Packed, PackedMut, QuantSpec, Simd, convert};

/// Returns the random number of a weight, from -1/2 to 1/2: the top 24 bits of its hash, centred. Each operation
/// is rounded to float32.
#[inline(always)]
fn centred(hash: u64) -> f32 {
    ((hash >> 40) as f32 + 0.5) * 2f32.powi(-24) - 0.5
}

/// Returns the output number `state` of splitmix64 that starts with 0 (Steele, Lea and Flood 2014, "Fast splittable
/// pseudorandom number generators").
#[inline(always)]
fn splitmix64(state: u64) -> u64 {
    let mut mixed = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// One row on its way to codes.
struct Row {
    /// The steps of the base, and of the outcome, for each group.
    steps: Vec<f32>,
    finer: Vec<f32>,
    /// The values of code 0, for each group.
    offsets: Vec<f32>,
    /// For each weight: its code, its random number, its update, and how many steps its code moved.
    codes: Vec<u8>,
    numbers: Vec<f32>,
    delta: Vec<f32>,
    moves: Vec<f32>,
}

/// Writes the codes, scales and biases of `updated`, the rows of `base` after an update. `spec` has the
/// groups of the base, and as many bits or more. With `k` more bits the scale is that of the base over `2^k`,
/// so the base's own values are still on the grid: an update of zero gives them back exactly. If there are
/// `directions`, errors are then kept away from them, row by row.
#[inline(always)]
pub(super) fn keep(
    simd: Simd,
    base: Packed<'_>,
    updated: &[f32],
    dither: Dither,
    (spec, directions): (QuantSpec, Option<&Directions>),
    out: PackedMut<'_>,
) {
    let Packed { spec: base_spec, float, columns, .. } = base;
    let groups = columns / base_spec.group_size;
    let mut row = Row::new(columns, groups);
    let mut lanes = directions.map(|directions| Lanes::new(columns, directions, spec.bits));
    let side = groups * float.size();
    let (packed_bytes, row_bytes) = (columns / 8 * base_spec.bits, columns / 8 * spec.bits);
    let count = updated.len() / columns;
    let out_scales = out.scales.chunks_exact_mut(side);
    for (index, (updated, out_scales)) in updated.chunks_exact(columns).zip(out_scales).enumerate() {
        convert::decode(simd, float, &base.scales[index * side..][..side], &mut row.steps);
        convert::decode(simd, float, &base.biases[index * side..][..side], &mut row.offsets);
        row.draw(dither, index);
        let packed = &base.weight[index * packed_bytes..][..packed_bytes];
        row.round((simd, float), updated, packed, [base_spec, spec]);
        convert::encode(simd, float, &row.finer, out_scales);
        let Some(lanes) = &mut lanes else {
            pack(spec.bits, &row.codes, &mut out.weight[index * row_bytes..][..row_bytes]);
            continue;
        };
        let Row { codes, moves, delta, numbers, finer, .. } = &mut row;
        lanes.add(index % LANES, codes, (moves, delta, numbers), finer);
        if index % LANES == LANES - 1 || index + 1 == count {
            lanes.settle();
            let first = index - index % LANES;
            for lane in 0..=index % LANES {
                lanes.take(lane, codes);
                pack(spec.bits, codes, &mut out.weight[(first + lane) * row_bytes..][..row_bytes]);
            }
        }
    }
    out.biases.copy_from_slice(base.biases);
}

impl Row {
    #[inline(always)]
    fn new(columns: usize, groups: usize) -> Self {
        let of_groups = || vec![0.0; groups];
        let of_weights = || vec![0.0; columns];
        Self {
            steps: of_groups(),
            finer: of_groups(),
            offsets: of_groups(),
            codes: vec![0; columns],
            numbers: of_weights(),
            delta: of_weights(),
            moves: of_weights(),
        }
    }

    /// Draws the random numbers of the row `index` of a block.
    #[inline(always)]
    fn draw(&mut self, dither: Dither, index: usize) {
        let start = dither.seed.wrapping_add(((dither.first_row + index) as u64) << 32);
        for (column, number) in (0u64..).zip(&mut self.numbers) {
            *number = centred(splitmix64(start.wrapping_add(column)));
        }
    }

    /// Rounds one row. The steps, the offsets and the random numbers are there already.
    #[inline(always)]
    fn round(
        &mut self,
        (simd, float): (Simd, Float),
        updated: &[f32],
        packed: &[u8],
        [base, spec]: [QuantSpec; 2],
    ) {
        let (group_size, more) = (base.group_size, spec.bits - base.bits);
        refine(simd, float, &self.steps, more, &mut self.finer);
        let levels = ((1u32 << spec.bits) - 1) as f32;
        let packed = packed.chunks_exact(group_size / 8 * base.bits);
        let weights = updated.chunks_exact(group_size).zip(self.numbers.chunks_exact(group_size));
        let moves = self.moves.chunks_exact_mut(group_size);
        let places = self.codes.chunks_exact_mut(group_size).zip(self.delta.chunks_exact_mut(group_size));
        let places = places.zip(moves);
        for (index, (((updated, numbers), ((codes, delta), moves)), packed)) in
            weights.zip(places).zip(packed).enumerate()
        {
            let (step, finer) = (self.steps[index], self.finer[index]);
            unpack(base.bits, packed, codes);
            difference((simd, float, base.bits), step, self.offsets[index], codes, updated, delta);
            let factor = if finer == step { 1.0 } else { (1u32 << more) as f32 };
            move_codes([finer, factor, levels], delta, numbers, codes, moves);
        }
    }
}

/// Divides every step by `2^more`. A step that is too small to be divided exactly stays as it is.
#[inline(always)]
fn refine(simd: Simd, float: Float, steps: &[f32], more: usize, finer: &mut [f32]) {
    let factor = (1u32 << more) as f32;
    for (finer, step) in finer.iter_mut().zip(steps) {
        *finer = step / factor;
    }
    convert::round_all(simd, float, finer);
    for (finer, step) in finer.iter_mut().zip(steps) {
        *finer = if *finer * factor == *step { *finer } else { *step };
    }
}

/// Writes what the update adds to the base's values of a group, which are those of `codes`.
#[inline(always)]
fn difference(
    grid: (Simd, Float, usize),
    step: f32,
    offset: f32,
    codes: &[u8],
    updated: &[f32],
    delta: &mut [f32],
) {
    on_grid(grid, step, offset, codes, delta);
    for (delta, updated) in delta.iter_mut().zip(updated) {
        *delta = updated - *delta;
    }
}

/// Replaces the base's codes by those of the outcome: `q * factor + rint(delta / step + number)`. A step of
/// zero leaves every code where it is. `moves` gets how many steps each code moved.
#[inline(always)]
fn move_codes(
    [step, factor, levels]: [f32; 3],
    delta: &[f32],
    numbers: &[f32],
    codes: &mut [u8],
    moves: &mut [f32],
) {
    let (divisor, is_fixed) = (if step == 0.0 { 1.0 } else { step }, step == 0.0);
    let weights = delta.iter().zip(numbers);
    for ((code, moves), (delta, number)) in codes.iter_mut().zip(moves).zip(weights) {
        let moved = round(delta / divisor + number);
        let moved = if is_fixed { 0.0 } else { moved };
        let start = f32::from(*code) * factor;
        let level = start + moved;
        let level = if level > 0.0 { level } else { 0.0 };
        let level = if level < levels { level } else { levels };
        *moves = level - start;
        #[expect(clippy::cast_possible_truncation, reason = "a level has eight bits at most")]
        let low = (level + ROUNDING).to_bits() as u8;
        *code = low;
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
