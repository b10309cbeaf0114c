//! Checks that the parts of an operation on weights have the lengths that belong together.
//! Knows nothing of the arithmetic. A block is checked once, which costs nothing beside its arithmetic.

use super::{Float, Lora, Packed, PackedMut, QuantSpec, Rows};
use crate::error::{Result, require};

impl Packed<'_> {
    /// Checks that the rows are whole and that codes, scales and biases are of the same rows.
    pub(super) fn check(&self) -> Result<()> {
        let lengths = [self.weight.len(), self.scales.len(), self.biases.len()];
        check(self.spec, self.float, self.columns, self.weight.len() * 8 / self.spec.bits.max(1), lengths)
    }
}

impl PackedMut<'_> {
    /// Checks that `rows` are whole and that there is room for exactly their codes, scales and biases.
    pub(super) fn check(&self, rows: &Rows, spec: QuantSpec) -> Result<()> {
        let lengths = [self.weight.len(), self.scales.len(), self.biases.len()];
        check(spec, rows.float, rows.columns, rows.values.len(), lengths)
    }
}

impl Lora {
    /// Checks that the factors fit `rows`, which begin at row `first` of the matrix.
    pub(super) fn check(&self, rows: &Rows, first: usize) -> Result<()> {
        let (rank, columns) = (self.rank, rows.columns);
        let is_rows = columns > 0 && rows.values.len().is_multiple_of(columns);
        let is_a = rank > 0 && rank.checked_mul(columns) == Some(self.a.len());
        require!(
            is_rows && is_a && self.b.len().is_multiple_of(rank),
            Options,
            "factors of {} and {} values are no update of rank {rank} of rows of {columns}",
            self.a.len(),
            self.b.len()
        );
        let (matrix_rows, last) = (self.b.len() / rank, first.saturating_add(rows.count()));
        let magnitudes = self.magnitude.as_ref().map_or(matrix_rows, Vec::len);
        require!(
            last <= matrix_rows && magnitudes == matrix_rows,
            Options,
            "an update of {matrix_rows} rows with {magnitudes} magnitudes has no row {last}"
        );
        Ok(())
    }
}

/// Checks the lengths in bytes of codes, scales and biases of `values` weights.
fn check(spec: QuantSpec, float: Float, columns: usize, values: usize, lengths: [usize; 3]) -> Result<()> {
    spec.check()?;
    let is_rows = columns > 0 && columns.is_multiple_of(spec.group_size) && values.is_multiple_of(columns);
    let expected =
        [spec.weight_bytes(values), spec.scale_bytes(values, float), spec.bias_bytes(values, float)];
    require!(
        is_rows && lengths == expected,
        Options,
        "{values} weights in rows of {columns} with {spec} need {expected:?} bytes of codes, scales and biases, not \
         {lengths:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Backend, Cpu, Mode};

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let spec = QuantSpec { mode: Mode::Affine, bits: 4, group_size: 64 };
        let packed = |spec, columns, lengths: [usize; 3]| {
            let [weight, scales, biases] = lengths.map(|length| vec![0; length]);
            let packed = Packed {
                spec,
                float: Float::F16,
                columns,
                weight: &weight,
                scales: &scales,
                biases: &biases,
            };
            Cpu::default().dequantize(packed, &mut Rows::new(Float::F16, 1)).is_ok()
        };
        assert!(packed(spec, 64, [64, 4, 4]));
        assert!(packed(spec, 128, [64, 4, 4]));
        assert!(!packed(spec, 0, [64, 4, 4]));
        assert!(!packed(spec, 192, [64, 4, 4]));
        assert!(!packed(spec, 64, [64, 2, 4]));
        assert!(!packed(spec, 64, [63, 4, 4]));
        assert!(!packed(QuantSpec { bits: 0, ..spec }, 64, [64, 4, 4]));
        assert!(!packed(QuantSpec { group_size: 0, ..spec }, 64, [64, 4, 4]));

        let merge = |columns, rank, [a, b]: [usize; 2], magnitudes: Option<usize>, first| {
            let magnitude = magnitudes.map(|length| vec![1.0; length]);
            let lora = Lora { a: vec![1.0; a], b: vec![1.0; b], scale: 1.0, rank, magnitude };
            let mut rows = Rows { float: Float::F32, columns, values: vec![1.0; 8] };
            Cpu::default().merge(&mut rows, &lora, first).is_ok()
        };
        assert!(merge(4, 2, [8, 6], Some(3), 1));
        assert!(!merge(4, 2, [8, 6], Some(3), 2));
        assert!(!merge(4, 2, [8, 6], Some(2), 0));
        assert!(!merge(4, 0, [0, 0], None, 0));
        assert!(!merge(4, 2, [8, 1], None, 0));
        assert!(!merge(0, 2, [8, 6], None, 0));
    }
}
