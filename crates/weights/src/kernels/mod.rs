//! The three operations on weights, behind one trait: dequantize, merge, quantize.
//! Knows nothing of files, names or models: blocks of rows in, blocks of rows out.
//!
//! The arithmetic is that of MLX 0.32.2 on the CPU; `docs/weights.md` has the formulas.

mod cpu;
mod float;
mod quant_spec;
mod simd;
mod update_stats;

pub use cpu::Cpu;
pub use float::Float;
pub use quant_spec::{Mode, QuantSpec};
pub use update_stats::UpdateStats;

use crate::Result;

/// Rows of floats, widened for computing: every value is one that `float` can hold, so narrowing them loses nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The type that the values have, or will have, in a file.
    pub float: Float,
    /// The length of a row.
    pub columns: usize,
    /// The elements, one row after the other.
    pub values: Vec<f32>,
}

/// Quantized rows as they lie in a file, one row after the other.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// How they are quantized.
    pub spec: QuantSpec,
    /// The type of scales and biases in the affine mode, and of what comes out in every mode.
    pub float: Float,
    /// The length of a row before packing.
    pub columns: usize,
    /// Each row is one little-endian bit stream of `bits`-wide codes.
    pub weight: &'a [u8],
    /// The step of each group: floats in the affine mode, else a byte each.
    pub scales: &'a [u8],
    /// The value that code 0 stands for in each group; empty but in the affine mode.
    pub biases: &'a [u8],
}

/// Where quantized rows are written, laid out as in [`Packed`].
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are those of `Packed`")]
pub struct PackedMut<'a> {
    pub weight: &'a mut [u8],
    pub scales: &'a mut [u8],
    pub biases: &'a mut [u8],
}

/// A low-rank update of a matrix with `out` rows of `in` columns, in mlx-lm's orientation.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// `lora_a` transposed: [rank, in].
    pub a: Vec<f32>,
    /// `lora_b`: [rank, out].
    pub b: Vec<f32>,
    /// The factor on the product.
    pub scale: f32,
    /// The inner dimension.
    pub rank: usize,
    /// The length that DoRA gives each row: `out` of them.
    pub magnitude: Option<Vec<f32>>,
}

/// The operations. Two stand behind it: [`Cpu`] defines the bytes, `mlx` uses MLX's device.
pub trait Backend: Send + Sync {
    /// Dequantizes into `rows`, whose memory is used again.
    fn dequantize(&self, packed: Packed<'_>, rows: &mut Rows) -> Result<()>;

    /// Adds the update to `rows`, the first of which is the matrix's row `first`.
    fn merge(&self, rows: &mut Rows, lora: &Lora, first: usize) -> Result<()>;

    /// Quantizes `rows`, whose length the group size divides, into `out`.
    fn quantize(&self, rows: &Rows, spec: QuantSpec, out: PackedMut<'_>) -> Result<()>;

    /// Sums what became of rows that were quantized; `alike` if the base was quantized the same way. `made` is memory to
    /// dequantize into.
    fn update_stats(
        &self,
        packed: Packed<'_>,
        base: &Rows,
        updated: &Rows,
        made: &mut Rows,
        alike: bool,
    ) -> Result<UpdateStats> {
        self.dequantize(packed, made)?;
        Ok(UpdateStats::of_packed(packed, base, updated, Some(made), alike))
    }

    /// How many threads may compute at once.
    fn threads(&self) -> usize;
}

impl Rows {
    /// Makes no rows of this type and length.
    pub fn new(float: Float, columns: usize) -> Self {
        Self { float, columns, values: Vec::new() }
    }

    /// Returns the number of rows.
    pub fn count(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }
}
