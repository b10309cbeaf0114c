//! Sums over weights that tell what is left of an update. They are plain, so the sums of parts can be added.
//! Knows nothing of what the sums are called in reports.

use super::simd::{self, Simd};
use super::{Packed, Rows};

/// Sums over weights that are known in three forms: before an update (base), after it (updated) and in the
/// outcome (made).
///
/// The float sums are float64. The order of the additions is fixed, so any number of threads and any
/// instruction set give the same result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// The number of weights.
    pub weights: u64,
    /// How many weights the update changed.
    pub changed: u64,
    /// How many of the changed weights have exactly their base value in the outcome.
    pub reverted: u64,
    /// How many of the changed weights quantize to the code of the base. Counted only if base and outcome are
    /// quantized alike.
    pub returned: u64,
    /// The sum of the squared update, `(updated - base)²`.
    pub square: f64,
    /// The sum of the error times the update, `(made - updated) * (updated - base)`.
    pub product: f64,
    /// The sum of the squared error, `(made - updated)²`.
    pub noise: f64,
    /// The sum of the squared quantization steps; 0 if the outcome is not quantized.
    pub steps: f64,
}

impl UpdateStats {
    /// Returns the sums over these rows. All three blocks have the same number of rows.
    pub fn of(base: &Rows, updated: &Rows, made: &Rows) -> Self {
        simd::update_stats(Simd::best(), base.columns, &base.values, &updated.values, &made.values)
    }

    /// Returns the sums over rows whose outcome is stored as codes. `made` holds the dequantized rows if the
    /// caller has them; otherwise they are dequantized here. `returned` is counted if the base is quantized
    /// `alike`, with the same spec.
    pub fn of_packed(
        packed: Packed<'_>,
        base: &Rows,
        updated: &Rows,
        made: Option<&Rows>,
        alike: bool,
    ) -> Self {
        let made = made.map(|made| made.values.as_slice());
        let sums =
            simd::update_stats_packed(Simd::best(), packed, &base.values, &updated.values, made, alike);
        Self { steps: packed.steps(), ..sums }
    }

    /// Whether the update changed anything and all sums are finite. They may not be: copied weights may
    /// contain NaN.
    pub fn is_change(&self) -> bool {
        let sums = [self.square, self.product, self.noise, self.steps];
        self.square > 0.0 && sums.iter().all(|sum| sum.is_finite())
    }

    /// Adds the sums over other weights.
    pub fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.changed += other.changed;
        self.reverted += other.reverted;
        self.returned += other.returned;
        self.square += other.square;
        self.product += other.product;
        self.noise += other.noise;
        self.steps += other.steps;
    }
}

impl Packed<'_> {
    /// Returns the sum of the squared quantization steps, one step for each weight. In the affine mode the
    /// step is the scale. Small floats are closer together near zero, so their step depends on the weight's
    /// code.
    pub fn steps(self) -> f64 {
        simd::steps(self)
    }
}

impl Rows {
    /// Returns the sum of the squared differences from `other`. `weights` has a factor for each column.
    pub(crate) fn squared_error(&self, other: &Self, weights: Option<&[f32]>) -> f64 {
        simd::squared_error(Simd::best(), &self.values, &other.values, weights)
    }

    /// Whether both blocks hold the same values, bit for bit.
    pub fn same(&self, other: &Self) -> bool {
        simd::same(Simd::best(), &self.values, &other.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Float, Mode, QuantSpec};

    fn rows(values: &[f32]) -> Rows {
        Rows { float: Float::F32, columns: values.len(), values: values.to_vec() }
    }

    #[test]
    fn counts_by_hand() {
        // Eleven weights, so that not all lanes are filled: one update is lost, one kept, one doubled.
        let mut base = [1.0; 11];
        base[10] = 4.0;
        let (mut updated, mut made) = (base, base);
        (updated[0], updated[1], updated[10]) = (1.5, 2.0, 3.0);
        (made[1], made[10]) = (2.0, 2.0);
        let stats = UpdateStats::of(&rows(&base), &rows(&updated), &rows(&made));
        let expected = UpdateStats {
            weights: 11,
            changed: 3,
            reverted: 1,
            returned: 0,
            square: 0.25 + 1.0 + 1.0,
            product: -0.25 + 1.0,
            noise: 0.25 + 1.0,
            steps: 0.0,
        };
        assert_eq!(stats, expected);
        assert!(rows(&base).same(&rows(&base)) && !rows(&base).same(&rows(&updated)));
    }

    #[test]
    fn what_returns_to_its_step_is_counted() {
        let scale = 1.0f32.to_le_bytes();
        let spec = QuantSpec { mode: Mode::Affine, bits: 4, group_size: 32 };
        let packed =
            Packed { spec, float: Float::F32, columns: 32, weight: &[0; 16], scales: &scale, biases: &scale };
        let (base, mut updated, mut made) = ([0.0; 32], [0.0; 32], [0.0; 32]);
        // Returned exactly; returned to a grid point that moved; moved to the next step; never changed by the
        // update.
        (updated[0], updated[1], updated[20]) = (0.3, 0.3, 0.7);
        (made[1], made[20], made[30]) = (0.1, 1.0, 0.1);
        let stats = UpdateStats::of_packed(packed, &rows(&base), &rows(&updated), Some(&rows(&made)), true);
        assert_eq!((stats.changed, stats.reverted, stats.returned), (3, 1, 2));
    }

    #[test]
    fn steps_by_hand() {
        let packed = |mode, bits, group_size, weight, scales| Packed {
            spec: QuantSpec { mode, bits, group_size },
            float: Float::F32,
            columns: group_size,
            weight,
            scales,
            biases: &[],
        };
        // A group of 32 with the scale -0.5.
        let scale = (-0.5f32).to_le_bytes();
        assert_eq!(packed(Mode::Affine, 4, 32, &[0; 16], &scale).steps(), 32.0 * 0.25);
        // The e2m1 values 0, 1, 2, 4 and -6, with the scale 2^1. Their steps are 0.5, 0.5, 1, 2 and 2, times
        // 2. The other 27 codes are zeros.
        let mut codes = [0; 16];
        (codes[0], codes[1], codes[2]) = (0x20, 0x64, 0x0f);
        let squares = 1.0 + 1.0 + 4.0 + 16.0 + 16.0 + 27.0;
        assert_eq!(packed(Mode::Mxfp4, 4, 32, &codes, &[128]).steps(), squares);
        // In e4m3 the step at 1 is 1/8, and that of a subnormal value is 2^-9.
        let mut codes = [0; 32];
        codes[0] = 0x38;
        let squares = 1.0 / 64.0 + 31.0 * 2f64.powi(-18);
        assert_eq!(packed(Mode::Mxfp8, 8, 32, &codes, &[127]).steps(), squares);
    }
}
