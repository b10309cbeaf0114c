//! Sums over weights before an update, after it and in the outcome; they tell how much of the update is left.
//! Knows nothing of how the outcome was made.

use super::{Mode, Packed, Simd, UpdateStats, convert, dequantize_body};

/// How many partial sums are kept side by side. This affects the result, because a sum of floats depends on
/// its order.
const LANES: usize = 16;

/// How many values are compared before the result is checked.
const COMPARED: usize = 256;

/// Whether `a` and `b` are equal, bit for bit.
#[inline(always)]
pub(super) fn same(_: Simd, a: &[f32], b: &[f32]) -> bool {
    let differ = |(a, b): (&[f32], &[f32])| {
        a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a.to_bits() ^ b.to_bits())) != 0
    };
    a.len() == b.len() && !a.chunks(COMPARED).zip(b.chunks(COMPARED)).any(differ)
}

/// Returns the sum of the squared differences of two blocks. `weights` has a factor for each column.
#[inline(always)]
pub(super) fn squared_error(_: Simd, a: &[f32], b: &[f32], weights: Option<&[f32]>) -> f64 {
    let mut sums = [0.0; LANES];
    match weights {
        None => add_squares(a, b, &mut sums),
        Some(weights) => {
            for (a, b) in a.chunks_exact(weights.len()).zip(b.chunks_exact(weights.len())) {
                add_weighted_squares(a, b, weights, &mut sums);
            }
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn add_squares(a: &[f32], b: &[f32], sums: &mut [f64; LANES]) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            let error = f64::from(a[lane] - b[lane]);
            sums[lane] += error * error;
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        let error = f64::from(a - b);
        *sum += error * error;
    }
}

#[inline(always)]
fn add_weighted_squares(a: &[f32], b: &[f32], weights: &[f32], sums: &mut [f64; LANES]) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (weights, weights_rest) = weights.as_chunks::<LANES>();
    for ((a, b), weights) in a.iter().zip(b).zip(weights) {
        for lane in 0..LANES {
            let error = f64::from(a[lane] - b[lane]);
            sums[lane] += error * error * f64::from(weights[lane]);
        }
    }
    for (sum, ((a, b), weight)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest).zip(weights_rest)) {
        let error = f64::from(a - b);
        *sum += error * error * f64::from(*weight);
    }
}

/// Sums over rows whose outcome, `made`, is given as floats.
#[inline(always)]
pub(super) fn stats(simd: Simd, columns: usize, base: &[f32], updated: &[f32], made: &[f32]) -> UpdateStats {
    let mut sum = UpdateStats::default();
    // Not `for_each`: the compiler makes a function of that, for processors without vectors.
    for ((base, updated), made) in base.chunks(columns).zip(updated.chunks(columns)).zip(made.chunks(columns))
    {
        sum.add(&row(simd, base, updated, made, None));
    }
    sum
}

/// Sums over rows whose outcome is given as codes. `made` holds the dequantized rows if the caller has them.
/// Otherwise one row at a time is dequantized, and summed while it is in the L1 cache. If base and outcome
/// are quantized `alike`, `returned` is counted too.
#[inline(always)]
pub(super) fn stats_packed(
    simd: Simd,
    packed: Packed<'_>,
    base: &[f32],
    updated: &[f32],
    made: Option<&[f32]>,
    alike: bool,
) -> UpdateStats {
    let Packed { spec, float, columns, .. } = packed;
    let (mut sum, mut place) = (UpdateStats::default(), vec![0.0; columns]);
    let is_counted = alike && spec.mode == Mode::Affine;
    let mut halves = vec![0.0; if is_counted { columns / spec.group_size } else { 0 }];
    for (index, (base, updated)) in base.chunks_exact(columns).zip(updated.chunks_exact(columns)).enumerate()
    {
        let part = nth_row(packed, index);
        let made = if let Some(made) = made {
            &made[index * columns..][..columns]
        } else {
            dequantize_body(simd, part, &mut place);
            &place
        };
        if is_counted {
            convert::decode(simd, float, part.scales, &mut halves);
            for half in &mut halves {
                *half = half.abs() / 2.0;
            }
        }
        let mut found = row(simd, base, updated, made, is_counted.then_some((&halves, spec.group_size)));
        if alike && !is_counted {
            // The scales of these modes seldom change, so a weight that returns gets exactly its base value.
            found.returned = found.reverted;
        }
        sum.add(&found);
    }
    sum
}

#[inline(always)]
fn nth_row(packed: Packed<'_>, index: usize) -> Packed<'_> {
    let Packed { spec, float, columns, weight, scales, biases } = packed;
    let part = |length: usize| index * length..(index + 1) * length;
    Packed {
        weight: &weight[part(spec.weight_bytes(columns))],
        scales: &scales[part(spec.scale_bytes(columns, float))],
        biases: &biases[part(spec.bias_bytes(columns, float))],
        ..packed
    }
}

/// No distance is less than this.
const NEVER: f32 = -1.0;

/// Sums over one row. Differences are float32: weights of half types have so few bits that they are exact unless
/// one is thousands of times the other. Products and sums are float64, so products are exact too.
///
/// `halves` are half a step for each group of so many weights. With them, those weights are counted as returned
/// that the update changed and whose outcome is less than half a step from the base. If base and outcome are on
/// the same grid, this is the same grid point. The grid may move a little, because the edge of a group is a
/// weight that the update changed too.
#[inline(always)]
fn row(
    simd: Simd,
    base: &[f32],
    updated: &[f32],
    made: &[f32],
    halves: Option<(&[f32], usize)>,
) -> UpdateStats {
    let mut sums = Sums::default();
    let (base, base_rest) = base.as_chunks::<LANES>();
    let (updated, updated_rest) = updated.as_chunks::<LANES>();
    let (made, made_rest) = made.as_chunks::<LANES>();
    for (index, ((base, updated), made)) in base.iter().zip(updated).zip(made).enumerate() {
        let half = halves.map_or(NEVER, |(halves, group_size)| halves[index * LANES / group_size]);
        sums.add(simd, base, updated, made, half);
    }
    if !base_rest.is_empty() {
        sums.add(simd, &filled(base_rest), &filled(updated_rest), &filled(made_rest), NEVER);
    }
    UpdateStats {
        weights: (base.len() * LANES + base_rest.len()) as u64,
        changed: sums.changed.iter().map(|count| u64::from(*count)).sum(),
        reverted: sums.reverted.iter().map(|count| u64::from(*count)).sum(),
        returned: sums.returned.iter().map(|count| u64::from(*count)).sum(),
        square: sums.square.iter().sum(),
        product: sums.product.iter().sum(),
        noise: sums.noise.iter().sum(),
        ..UpdateStats::default()
    }
}

/// Returns the values, with zeros after them.
#[inline(always)]
fn filled(values: &[f32]) -> [f32; LANES] {
    let mut all = [0.0; LANES];
    all[..values.len()].copy_from_slice(values);
    all
}

/// Returns `sum + a * b` for factors that float32 represents. Their product is exact in float64, so it makes no
/// difference whether it is rounded before the sum is.
#[inline(always)]
fn add_product(simd: Simd, sum: f64, a: f64, b: f64) -> f64 {
    // The baseline may have no instruction for both.
    if simd == Simd::Baseline { sum + a * b } else { a.mul_add(b, sum) }
}

/// Sums over a row, lane by lane. A row has fewer than 2^32 weights for each lane.
#[derive(Default)]
struct Sums {
    square: [f64; LANES],
    product: [f64; LANES],
    noise: [f64; LANES],
    changed: [u32; LANES],
    reverted: [u32; LANES],
    returned: [u32; LANES],
}

impl Sums {
    #[inline(always)]
    fn add(
        &mut self,
        simd: Simd,
        base: &[f32; LANES],
        updated: &[f32; LANES],
        made: &[f32; LANES],
        half: f32,
    ) {
        let (mut delta, mut error) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            delta[lane] = f64::from(updated[lane] - base[lane]);
            error[lane] = f64::from(made[lane] - updated[lane]);
        }
        for lane in 0..LANES {
            self.square[lane] = add_product(simd, self.square[lane], delta[lane], delta[lane]);
            self.product[lane] = add_product(simd, self.product[lane], error[lane], delta[lane]);
            self.noise[lane] = add_product(simd, self.noise[lane], error[lane], error[lane]);
        }
        for lane in 0..LANES {
            let is_change = base[lane] != updated[lane];
            self.changed[lane] += u32::from(is_change);
            self.reverted[lane] += u32::from(is_change & (base[lane] == made[lane]));
            self.returned[lane] += u32::from(is_change & ((made[lane] - base[lane]).abs() < half));
        }
    }
}
