//! Sums over weights before an update, after it and in the outcome; they tell how much of the update is left.
//! Knows nothing of how the outcome was made.

use super::{Float, Mode, Packed, UpdateStats, dequantize_body};

/// How many partial sums are kept side by side. This affects the result, because a sum of floats depends on
/// its order.
const LANES: usize = 16;

/// How many weights are widened to float64 at once, in memory that fits the L1 cache.
const WIDENED: usize = 128;

/// How many values are compared before the result is checked.
const COMPARED: usize = 256;

/// Whether `a` and `b` are equal, bit for bit.
#[inline(always)]
pub(super) fn same(a: &[f32], b: &[f32]) -> bool {
    let differ = |(a, b): (&[f32], &[f32])| {
        a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a.to_bits() ^ b.to_bits())) != 0
    };
    a.len() == b.len() && !a.chunks(COMPARED).zip(b.chunks(COMPARED)).any(differ)
}

/// Returns the sum of the squared differences of two blocks. `weights` has a factor for each column.
#[inline(always)]
pub(super) fn squared_error(a: &[f32], b: &[f32], weights: Option<&[f32]>) -> f64 {
    let mut sums = [0.0; LANES];
    let mut add = |a: &[f32], b: &[f32], weights: Option<&[f32]>| {
        for (lane, (a, b)) in a.iter().zip(b).enumerate() {
            let error = f64::from(*a) - f64::from(*b);
            let weight = weights.map_or(1.0, |weights| f64::from(weights[lane]));
            sums[lane] += error * error * weight;
        }
    };
    let columns = weights.map_or(a.len(), <[f32]>::len).max(1);
    for (a, b) in a.chunks(columns).zip(b.chunks(columns)) {
        for (index, (a, b)) in a.chunks(LANES).zip(b.chunks(LANES)).enumerate() {
            add(a, b, weights.map(|weights| &weights[index * LANES..]));
        }
    }
    sums.iter().sum()
}

/// Sums over rows whose outcome, `made`, is given as floats.
#[inline(always)]
pub(super) fn stats(columns: usize, base: &[f32], updated: &[f32], made: &[f32]) -> UpdateStats {
    let mut sum = UpdateStats::default();
    let rows = base.chunks(columns).zip(updated.chunks(columns)).zip(made.chunks(columns));
    rows.for_each(|((base, updated), made)| sum.add(&row(base, updated, made)));
    sum
}

/// Sums over rows whose outcome is given as codes. `made` holds the dequantized rows if the caller has them.
/// Otherwise one row at a time is dequantized, and summed while it is in the L1 cache. If base and outcome
/// are quantized `alike`, `returned` is counted too.
#[inline(always)]
pub(super) fn stats_packed(
    packed: Packed<'_>,
    base: &[f32],
    updated: &[f32],
    made: Option<&[f32]>,
    alike: bool,
) -> UpdateStats {
    let Packed { spec, float, columns, weight, scales, biases } = packed;
    let bytes = spec.weight_bytes(columns);
    let [scale_bytes, bias_bytes] = [spec.scale_bytes(columns, float), spec.bias_bytes(columns, float)];
    let (mut sum, mut place) = (UpdateStats::default(), vec![0.0; columns]);
    for (index, (base, updated)) in base.chunks_exact(columns).zip(updated.chunks_exact(columns)).enumerate()
    {
        let part = Packed {
            weight: &weight[index * bytes..][..bytes],
            scales: &scales[index * scale_bytes..][..scale_bytes],
            biases: &biases[index * bias_bytes..][..bias_bytes],
            ..packed
        };
        let made = if let Some(made) = made {
            &made[index * columns..][..columns]
        } else {
            dequantize_body(part, &mut place);
            &place
        };
        let mut found = row(base, updated, made);
        if alike {
            found.returned = match spec.mode {
                Mode::Affine => returned(float, spec.group_size, part.scales, [base, updated, made]),
                // The scales of these modes seldom change, so a weight that returns gets exactly its base
                // value.
                _ => found.reverted,
            };
        }
        sum.add(&found);
    }
    sum
}

/// Sums over one row, in float64. The loops are separate because the compiler does not vectorize a combined
/// loop.
#[inline(always)]
fn row(base: &[f32], updated: &[f32], made: &[f32]) -> UpdateStats {
    let (mut square, mut product, mut noise) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let (mut delta, mut error) = ([0.0; WIDENED], [0.0; WIDENED]);
    let (mut changed, mut reverted) = (0, 0);
    let chunks = base.chunks(WIDENED).zip(updated.chunks(WIDENED)).zip(made.chunks(WIDENED));
    for ((base, updated), made) in chunks {
        for (delta, (base, updated)) in delta.iter_mut().zip(base.iter().zip(updated)) {
            *delta = f64::from(*updated) - f64::from(*base);
        }
        for (error, (updated, made)) in error.iter_mut().zip(updated.iter().zip(made)) {
            *error = f64::from(*made) - f64::from(*updated);
        }
        delta[base.len()..].fill(0.0);
        error[base.len()..].fill(0.0);
        add_products(&delta, &delta, &mut square);
        add_products(&error, &delta, &mut product);
        add_products(&error, &error, &mut noise);
        let (mut changes, mut reversals) = (0u32, 0u32);
        for ((base, updated), made) in base.iter().zip(updated).zip(made) {
            changes += u32::from(base != updated);
            reversals += u32::from((base != updated) & (base == made));
        }
        (changed, reverted) = (changed + u64::from(changes), reverted + u64::from(reversals));
    }
    UpdateStats {
        weights: base.len() as u64,
        changed,
        reverted,
        square: square.iter().sum(),
        product: product.iter().sum(),
        noise: noise.iter().sum(),
        ..UpdateStats::default()
    }
}

#[inline(always)]
fn add_products(a: &[f64; WIDENED], b: &[f64; WIDENED], sums: &mut [f64; LANES]) {
    let mut lanes = *sums;
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    *sums = lanes;
}

/// Counts the weights that the update changed and whose outcome is less than half a step from the base. If
/// base and outcome are on the same grid, this is the same grid point. The grid may move a little, because
/// the edge of a group is a weight that the update changed too.
#[inline(always)]
fn returned(float: Float, group_size: usize, scales: &[u8], [base, updated, made]: [&[f32]; 3]) -> u64 {
    let sides = scales.chunks_exact(float.size()).zip(base.chunks_exact(group_size));
    let groups = updated.chunks_exact(group_size).zip(made.chunks_exact(group_size));
    let mut count = 0;
    for ((scale, base), (updated, made)) in sides.zip(groups) {
        let mut step = [0.0];
        float.decode(scale, &mut step);
        let half = step[0].abs() / 2.0;
        let mut near = 0u32;
        for ((base, updated), made) in base.iter().zip(updated).zip(made) {
            near += u32::from((base != updated) & ((made - base).abs() < half));
        }
        count += u64::from(near);
    }
    count
}
