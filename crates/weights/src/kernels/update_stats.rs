//! What is summed over weights to find what became of an update: plain sums, so that those of parts can be added.
//! Knows nothing of what the sums are called when they are shown.

use super::simd::{self, Simd};
use super::{Packed, Rows};

/// Sums over weights that are known as they were before an update, updated, and as they were made.
///
/// In float64. The order of adding is fixed, so any number of threads and any instruction set give the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// How many weights.
    pub weights: u64,
    /// How many the update changed.
    pub changed: u64,
    /// How many of these were made what they were before.
    pub reverted: u64,
    /// How many were made what rounds to the same, where base and outcome are quantized alike.
    pub returned: u64,
    /// The update squared.
    pub square: f64,
    /// The error of what was made, times the update.
    pub product: f64,
    /// The error of what was made, squared.
    pub noise: f64,
    /// The quantization steps squared; 0 if what was made is not quantized.
    pub steps: f64,
}

impl UpdateStats {
    /// Sums over these rows, which are as many in each.
    pub fn of(base: &Rows, updated: &Rows, made: &Rows) -> Self {
        simd::update_stats(Simd::best(), base.columns, &base.values, &updated.values, &made.values)
    }

    /// Sums over rows that were made as codes, dequantized unless they were already: `made`. If the base is quantized
    /// `alike`, it counts what returned.
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

    /// Whether there was an update, and all sums are numbers: weights that are only copied may hold what is none.
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
    /// Returns the sum of the squares of the quantization steps, one for each weight. In the affine mode the step is the
    /// scale; small floats are closer together near zero, and the step is the one at the weight.
    pub fn steps(self) -> f64 {
        simd::steps(self)
    }
}

impl Rows {
    /// Whether these are the same values, to the bit.
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
        // Returned exactly; returned to a grid point that moved; moved to the next step; never changed by the update.
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
        // e2m1 0 1 | 2 | 4 -6, the scale 2^1: steps of 0.5 0.5 | 1 | 2 2 times 2; eleven more zeros.
        let mut codes = [0; 16];
        (codes[0], codes[1], codes[2]) = (0x20, 0x64, 0x0f);
        let squares = 1.0 + 1.0 + 4.0 + 16.0 + 16.0 + 27.0;
        assert_eq!(packed(Mode::Mxfp4, 4, 32, &codes, &[128]).steps(), squares);
        // e4m3: 1 has a step of 1/8, a subnormal one of 2^-9.
        let mut codes = [0; 32];
        codes[0] = 0x38;
        let squares = 1.0 / 64.0 + 31.0 * 2f64.powi(-18);
        assert_eq!(packed(Mode::Mxfp8, 8, 32, &codes, &[127]).steps(), squares);
    }
}
