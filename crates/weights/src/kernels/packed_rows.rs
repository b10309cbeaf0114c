//! Quantized rows that own their memory, for callers that quantize a tensor rather than a model.
//! Knows nothing of the arithmetic, nor of files.

use super::{Backend, Float, Packed, PackedMut, QuantSpec, Rows};
use crate::Error;
use crate::error::{Result, require};

/// Quantized rows in memory, laid out as in [`Packed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRows {
    /// How the rows are quantized.
    pub spec: QuantSpec,
    /// The type that the values had. In the affine mode it is also the type of the scales and the biases.
    pub float: Float,
    /// The length of a row before packing, in weights.
    pub columns: usize,
    /// The codes, in the layout of the tensor `weight`.
    pub weight: Vec<u8>,
    /// The scales, in the layout of the tensor `scales`.
    pub scales: Vec<u8>,
    /// The biases, in the layout of the tensor `biases`. Empty in all modes but the affine one.
    pub biases: Vec<u8>,
}

impl PackedRows {
    /// Quantizes `rows`, as MLX's `quantize` does.
    ///
    /// # Errors
    /// [`Error::Options`] if MLX does not have `spec`, or if the group size does not divide the rows.
    /// [`Error::OutOfRange`] if a value is infinite, NaN, or has a magnitude of 2^127 or more. The errors of
    /// `backend` are passed on.
    pub fn quantize(rows: &Rows, spec: QuantSpec, backend: &dyn Backend) -> Result<Self> {
        spec.check()?;
        let count = rows.values.len();
        require!(
            rows.columns > 0
                && rows.columns.is_multiple_of(spec.group_size)
                && count.is_multiple_of(rows.columns),
            Options,
            "rows of {} and {count} values cannot be quantized in groups of {}",
            rows.columns,
            spec.group_size
        );
        if let Some((row, column)) = rows.first_out_of_range() {
            let value = rows.values.get(row * rows.columns + column).copied().unwrap_or(f32::NAN);
            return Err(Error::OutOfRange { tensor: "rows".to_owned(), row, column, value, hint: "" });
        }
        let mut packed = Self {
            spec,
            float: rows.float,
            columns: rows.columns,
            weight: vec![0; spec.weight_bytes(count)],
            scales: vec![0; spec.scale_bytes(count, rows.float)],
            biases: vec![0; spec.bias_bytes(count, rows.float)],
        };
        let Self { weight, scales, biases, .. } = &mut packed;
        backend.quantize(rows, spec, PackedMut { weight, scales, biases })?;
        Ok(packed)
    }

    /// Returns the rows for [`Backend::dequantize`].
    pub fn as_packed(&self) -> Packed<'_> {
        Packed {
            spec: self.spec,
            float: self.float,
            columns: self.columns,
            weight: &self.weight,
            scales: &self.scales,
            biases: &self.biases,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Cpu, Mode};

    #[test]
    fn what_mlx_cannot_quantize_is_refused() {
        let spec = |bits, group_size| QuantSpec { mode: Mode::Affine, bits, group_size };
        let quantize = |columns: usize, values: Vec<f32>, spec| {
            let rows = Rows { float: Float::F32, columns, values };
            PackedRows::quantize(&rows, spec, &Cpu::default())
        };
        assert!(quantize(64, vec![0.5; 128], spec(4, 64)).is_ok());
        for (columns, count, spec) in [
            (64, 128, spec(7, 64)),
            (64, 128, spec(4, 48)),
            (32, 128, spec(4, 64)),
            (64, 100, spec(4, 64)),
            (0, 128, spec(4, 64)),
        ] {
            assert!(matches!(quantize(columns, vec![0.5; count], spec), Err(Error::Options(_))), "{spec}");
        }
        let mut values = vec![0.5; 128];
        values[70] = f32::NAN;
        let refused = quantize(64, values, spec(4, 64));
        assert!(matches!(refused, Err(Error::OutOfRange { row: 1, column: 6, .. })), "{refused:?}");
    }
}
