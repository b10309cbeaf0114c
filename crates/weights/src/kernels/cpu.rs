//! The backend that defines the bytes: plain Rust, with every operation in a fixed order.
//! Knows nothing of files, and starts no threads. The arithmetic itself is in `simd/`.

use std::thread::available_parallelism;

use super::simd::{self, Simd};
use super::{Backend, Float, Lora, Packed, PackedMut, QuantSpec, Rows, UpdateStats};
use crate::error::Result;

/// The CPU backend.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    simd: Simd,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { simd: Simd::best() }
    }
}

impl Backend for Cpu {
    fn dequantize(&self, packed: Packed<'_>, rows: &mut Rows) -> Result<()> {
        packed.check()?;
        let groups = packed.scales.len() / packed.spec.scale_bytes(packed.spec.group_size, packed.float);
        rows.values.resize(groups * packed.spec.group_size, 0.0);
        (rows.float, rows.columns) = (packed.float, packed.columns);
        simd::dequantize(self.simd, packed, &mut rows.values);
        Ok(())
    }

    fn merge(&self, rows: &mut Rows, lora: &Lora, first: usize) -> Result<()> {
        lora.check(rows, first)?;
        let mut delta = vec![0.0; rows.columns];
        simd::merge(self.simd, rows, lora, first, &mut delta);
        Ok(())
    }

    fn quantize(&self, rows: &Rows, spec: QuantSpec, out: PackedMut<'_>) -> Result<()> {
        out.check(rows, spec)?;
        simd::quantize(self.simd, rows.float, &rows.values, spec, out);
        Ok(())
    }

    /// Returns the same sums as the default method. It dequantizes one row at a time, which can stay in the
    /// L1 cache.
    fn update_stats(
        &self,
        packed: Packed<'_>,
        base: &Rows,
        updated: &Rows,
        _made: &mut Rows,
        alike: bool,
    ) -> Result<UpdateStats> {
        Ok(UpdateStats::of_packed(packed, base, updated, None, alike))
    }

    fn threads(&self) -> usize {
        available_parallelism().map_or(1, usize::from)
    }
}

impl Rows {
    /// Replaces these rows by the rows in `bytes`: little-endian elements of type `float`, `columns` in each
    /// row.
    pub fn decode(&mut self, float: Float, columns: usize, bytes: &[u8]) {
        (self.float, self.columns) = (float, columns);
        self.values.resize(bytes.len() / float.size(), 0.0);
        simd::decode(Simd::best(), float, bytes, &mut self.values);
    }

    /// Writes the rows as little-endian elements of their type. `bytes` has room for all of them.
    pub fn encode(&self, bytes: &mut [u8]) {
        simd::encode(Simd::best(), self.float, &self.values, bytes);
    }

    /// Makes these rows the same as `other`, and keeps their memory.
    pub fn copy_from(&mut self, other: &Self) {
        (self.float, self.columns) = (other.float, other.columns);
        self.values.clone_from(&other.values);
    }

    /// Rounds every value to `float`, half to even, and makes `float` the type of the rows.
    pub fn cast(&mut self, float: Float) {
        if self.float != float {
            self.float = float;
            simd::round_all(Simd::best(), float, &mut self.values);
        }
    }

    /// Returns the row and the column of the first value that cannot be computed with: infinite, NaN, or with
    /// a magnitude of 2^127 or more.
    pub fn first_out_of_range(&self) -> Option<(usize, usize)> {
        if simd::all_in_range(Simd::best(), &self.values) {
            return None;
        }
        let index = self.values.iter().position(|value| !simd::is_in_range(*value))?;
        let columns = self.columns.max(1);
        Some((index / columns, index % columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Mode, PackedRows};
    use proptest::prelude::*;

    fn floats(values: &[f32], columns: usize) -> Rows {
        Rows { float: Float::F32, columns, values: values.to_vec() }
    }

    #[test]
    fn merges_by_hand() {
        let lora = Lora { a: vec![1.0, 10.0], b: vec![1.0, 2.0], scale: 0.5, rank: 1, magnitude: None };
        let mut rows = floats(&[1.0, 2.0, 3.0, 4.0], 2);
        Cpu::default().merge(&mut rows, &lora, 0).unwrap();
        assert_eq!(rows.values, [1.5, 7.0, 4.0, 14.0]);
        // A block that starts at the second row.
        let mut rows = floats(&[3.0, 4.0], 2);
        Cpu::default().merge(&mut rows, &lora, 1).unwrap();
        assert_eq!(rows.values, [4.0, 14.0]);
    }

    #[test]
    fn dora_gives_a_row_its_length() {
        let lora = Lora { a: vec![1.0, 0.0], b: vec![1.0], scale: 1.0, rank: 1, magnitude: Some(vec![10.0]) };
        let mut rows = floats(&[2.0, 4.0], 2);
        Cpu::default().merge(&mut rows, &lora, 0).unwrap();
        // (3, 4) has length 5.
        assert_eq!(rows.values, [6.0, 8.0]);
    }

    #[test]
    fn finds_what_is_not_a_number() {
        let mut values = vec![1.0; 64];
        assert_eq!(floats(&values, 8).first_out_of_range(), None);
        values[19] = f32::NAN;
        values[40] = f32::INFINITY;
        assert_eq!(floats(&values, 8).first_out_of_range(), Some((2, 3)));
    }

    proptest! {
        #[test]
        fn a_weight_moves_by_a_step_at_most(weights in prop::collection::vec(-10.0f32..10.0, 64), bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8])) {
            let spec = QuantSpec { mode: Mode::Affine, bits, group_size: 64 };
            let mut rows = floats(&weights, 64);
            let packed = PackedRows::quantize(&rows, spec, &Cpu::default()).unwrap();
            Cpu::default().dequantize(packed.as_packed(), &mut rows).unwrap();
            let scale = f32::from_le_bytes(packed.scales[..4].try_into().unwrap()).abs();
            // The error is at most half a step. At the far end it may be a step more, because the stretched
            // grid clips there.
            for (weight, back) in weights.iter().zip(rows.values) {
                prop_assert!((weight - back).abs() <= scale * 1.01, "{weight} became {back}, step {scale}");
            }
        }
    }
}
