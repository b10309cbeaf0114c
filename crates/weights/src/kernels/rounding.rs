//! How a weight becomes a code: the nearest point of a new grid, or a point of the base's grid, which keeps an
//! update that is smaller than half a step.
//! Knows nothing of models. The arithmetic is in `simd/keep.rs`; `docs/rounding.md` has the formulas.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::simd::{self, Simd};
use super::{Mode, Packed, PackedMut, QuantSpec, Rows};
use crate::error::{Result, require};

/// How a weight becomes a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// A new grid for each group, and on it the nearest point, as in MLX. It is left out of a recipe, so that
    /// recipes from before there was a choice keep their keys.
    #[default]
    Nearest,
    /// The grid of the model before the fine-tuning, on which each weight moves by its update on average.
    Keep,
}

impl Rounding {
    /// The ways and their words in `pipeline.yaml` and in `survival.json`.
    pub const WORDS: [(&str, Self); 2] = [("nearest", Self::Nearest), ("keep", Self::Keep)];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_nearest(&self) -> bool {
        *self == Self::Nearest
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Keep => "keep",
        })
    }
}

/// The random numbers of a block of rows. They are a hash of a seed, and of a weight's row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dither {
    /// The number that tells tensors apart.
    pub seed: u64,
    /// The row of the tensor that the block begins with. In a stack of experts, rows are counted over all of
    /// them.
    pub first_row: usize,
}

impl Dither {
    /// Returns the random numbers of the tensor `name`, such as `model.layers.0.self_attn.q_proj.weight`,
    /// from the row `first_row` on. The seed is the first eight bytes of the SHA-256 of the name,
    /// little-endian.
    pub fn of(name: &str, first_row: usize) -> Self {
        let digest = digest(&SHA256, name.as_bytes());
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Self { seed: u64::from_le_bytes(first), first_row }
    }
}

/// Directions that the inputs of a matrix take. Errors of rounding are kept away from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// The number of directions.
    pub count: usize,
    /// `[columns, count]`: for each column its part of each direction.
    pub values: Vec<f64>,
}

impl QuantSpec {
    /// Returns how many bits `self` has more than `base`, if all values of a matrix in `base` are values in
    /// `self` too: both are affine with the same groups, and `self` has as many bits or more. Otherwise
    /// returns `None`.
    pub fn bits_beyond(self, base: Self) -> Option<usize> {
        let is_affine = self.mode == Mode::Affine && base.mode == Mode::Affine;
        let is_nested = is_affine && self.group_size == base.group_size;
        self.bits.checked_sub(base.bits).filter(|_| is_nested)
    }
}

impl Packed<'_> {
    /// Rounds `updated`, which are these rows after an update, to the values of these rows' grid, into `out`.
    /// If `spec` has more bits than the rows, the grid is made finer by as many halvings. A weight moves by
    /// `rint(update / step + u)` steps, where `u` is its random number from -1/2 to 1/2. So it moves by the
    /// update on average, and a weight without an update does not move. If there are `directions`, some of the
    /// weights with an update then move by another step, so that the errors along the directions are smaller.
    ///
    /// # Errors
    /// [`Error::Options`](crate::Error::Options) if the lengths do not fit, or if the values of the rows are
    /// no values in `spec`.
    pub fn keep(
        self,
        updated: &Rows,
        dither: Dither,
        (spec, directions): (QuantSpec, Option<&Directions>),
        out: PackedMut<'_>,
    ) -> Result<()> {
        self.check()?;
        out.check(updated, spec)?;
        let weights = self.weight.len() * 8 / self.spec.bits;
        require!(
            spec.bits_beyond(self.spec).is_some()
                && updated.float == self.float
                && updated.columns == self.columns
                && updated.values.len() == weights
                && directions.is_none_or(|own| own.count > 0 && own.values.len() == own.count * self.columns),
            Options,
            "{weights} weights of {} cannot be kept as {} weights of {spec}",
            self.spec,
            updated.values.len()
        );
        simd::keep(Simd::best(), self, &updated.values, dither, (spec, directions), out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Backend, Cpu, Float, PackedRows};
    use proptest::prelude::*;

    /// Keeps `updated` on the grid of `base` and returns the dequantized rows.
    fn kept(base: &PackedRows, updated: &Rows, bits: usize) -> Rows {
        let spec = QuantSpec { bits, ..base.spec };
        let mut made =
            PackedRows { spec, weight: vec![0; spec.weight_bytes(updated.values.len())], ..base.clone() };
        let PackedRows { weight, scales, biases, .. } = &mut made;
        let dither = Dither::of("a.weight", 0);
        base.as_packed().keep(updated, dither, (spec, None), PackedMut { weight, scales, biases }).unwrap();
        let mut rows = Rows::new(base.float, base.columns);
        Cpu::default().dequantize(made.as_packed(), &mut rows).unwrap();
        rows
    }

    proptest! {
        #[test]
        fn what_was_not_trained_returns(exponents in prop::collection::vec(-30i32..4, 8), values in prop::collection::vec(-1.0f32..1.0, 512), float in prop::sample::select(vec![Float::F16, Float::Bf16, Float::F32]), bits in prop::sample::select(vec![2usize, 4, 6])) {
            // Groups of very different sizes, so that some scales are subnormal.
            let mut rows = Rows { float: Float::F32, columns: 128, values };
            for (group, exponent) in rows.values.chunks_mut(64).zip(exponents) {
                group.iter_mut().for_each(|value| *value *= 2f32.powi(exponent));
            }
            rows.cast(float);
            let spec = QuantSpec { mode: Mode::Affine, bits, group_size: 64 };
            let base = PackedRows::quantize(&rows, spec, &Cpu::default()).unwrap();
            Cpu::default().dequantize(base.as_packed(), &mut rows).unwrap();
            for more in [bits, 6, 8] {
                prop_assert!(kept(&base, &rows, more).same(&rows), "{more} bits");
            }
        }
    }

    #[test]
    fn an_update_survives_on_average() {
        // Codes in the middle of the range, and an update of a tenth of a step.
        let spec = QuantSpec { mode: Mode::Affine, bits: 4, group_size: 64 };
        let count = 64 * 256;
        let step = 0.01f32.to_le_bytes().repeat(count / 64);
        let base = PackedRows {
            spec,
            float: Float::F32,
            columns: 1024,
            weight: vec![0x88; count / 2],
            scales: step.clone(),
            biases: vec![0; step.len()],
        };
        let updated = Rows { float: Float::F32, columns: 1024, values: vec![0.081; count] };
        let moved = kept(&base, &updated, 4).values.iter().filter(|value| **value > 0.085).count();
        let share = moved as f64 / count as f64;
        // The standard deviation of the share is 0.0023.
        assert!((share - 0.1).abs() < 0.01, "{share}");
    }

    #[test]
    fn only_grids_that_hold_the_base_keep_it() {
        let affine = |bits, group_size| QuantSpec { mode: Mode::Affine, bits, group_size };
        assert_eq!(affine(6, 64).bits_beyond(affine(4, 64)), Some(2));
        assert_eq!(affine(4, 64).bits_beyond(affine(4, 64)), Some(0));
        assert_eq!(affine(3, 64).bits_beyond(affine(4, 64)), None);
        assert_eq!(affine(4, 32).bits_beyond(affine(4, 64)), None);
        let mx = QuantSpec { mode: Mode::Mxfp4, bits: 4, group_size: 32 };
        assert_eq!((affine(4, 32).bits_beyond(mx), mx.bits_beyond(mx)), (None, None));
    }
}
