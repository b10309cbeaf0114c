//! Adds a low-rank update to rows, in mlx-lm's order of operations.
//! Knows nothing of where the factors come from.

use super::{Lora, Rows, Simd, convert};

/// Mirrors `LoRALinear.fuse` and `DoRALinear.fuse` of mlx-lm. The update is summed in float32, over k in
/// ascending order, and rounded to the weight's type before it is added.
#[inline(always)]
pub(super) fn merge(simd: Simd, rows: &mut Rows, lora: &Lora, first: usize, delta: &mut [f32]) {
    let Rows { float, columns, values } = rows;
    let out = lora.b.len() / lora.rank;
    for (row, values) in (first..).zip(values.chunks_exact_mut(*columns)) {
        delta.fill(0.0);
        for (a, b) in lora.a.chunks_exact(*columns).zip(lora.b.iter().skip(row).step_by(out)) {
            let factor = lora.scale * b;
            for (sum, a) in delta.iter_mut().zip(a) {
                *sum += factor * a;
            }
        }
        convert::round_all(simd, *float, delta);
        for (value, delta) in values.iter_mut().zip(delta.iter()) {
            *value += delta;
        }
        convert::round_all(simd, *float, values);
        if let Some(magnitude) = lora.magnitude.as_ref().and_then(|magnitude| magnitude.get(row)) {
            stretch(values, *magnitude);
            convert::round_all(simd, *float, values);
        }
    }
}

/// Scales the row to the length `magnitude`. The row's own length is summed in float64, in the order of the
/// elements. mlx-lm sums in the weight's type, which loses most of the precision in float16.
#[inline(always)]
fn stretch(row: &mut [f32], magnitude: f32) {
    let square: f64 = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    #[expect(clippy::cast_possible_truncation, reason = "mlx-lm's factor is a float32")]
    let factor = magnitude / square.sqrt() as f32;
    for value in row {
        *value *= factor;
    }
}
