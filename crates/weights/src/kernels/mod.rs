//! The three operations on weights, behind one trait: dequantize, merge, quantize.
//! Knows nothing of files, names or models: it takes blocks of rows and returns blocks of rows.
//!
//! The arithmetic is that of MLX 0.32.2 on the CPU; `docs/weights.md` has the formulas.

mod cpu;
mod fit;
mod float;
mod packed_rows;
mod quant_spec;
mod rounding;
mod simd;
mod update_stats;

pub use cpu::Cpu;
pub use float::Float;
pub use packed_rows::PackedRows;
pub use quant_spec::{Mode, QuantSpec};
pub use rounding::{Directions, Dither, Rounding};
pub use update_stats::UpdateStats;

use crate::Result;

/// Rows of floats, widened to float32 for computing. `float` can represent every value exactly, so narrowing
/// loses nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The type that the values have, or will have, in a file.
    pub float: Float,
    /// The length of a row, in elements.
    pub columns: usize,
    /// The elements, row by row.
    pub values: Vec<f32>,
}

/// Quantized rows in the layout of a file, one row after the other.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// How the rows are quantized.
    pub spec: QuantSpec,
    /// The type of the dequantized values. In the affine mode it is also the type of the scales and the
    /// biases.
    pub float: Float,
    /// The length of a row before packing, in weights.
    pub columns: usize,
    /// The codes. Each row is one little-endian bit stream of `bits`-wide codes.
    pub weight: &'a [u8],
    /// The scale of each group: a float in the affine mode, otherwise one byte.
    pub scales: &'a [u8],
    /// The value that code 0 stands for in each group: a float in the affine mode. Empty in the other modes.
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

/// A low-rank update of a matrix `[out, in]`: `scale * (transpose(b) @ a)` is added to the matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// `[rank, in]`: mlx-lm's `lora_a` of a linear layer, transposed.
    pub a: Vec<f32>,
    /// `[rank, out]`: mlx-lm's `lora_b` of a linear layer.
    pub b: Vec<f32>,
    /// The factor on the product.
    pub scale: f32,
    /// The inner dimension of the product.
    pub rank: usize,
    /// DoRA's magnitudes, `[out]`: the length that each row of the updated matrix gets. `None` for plain
    /// LoRA.
    pub magnitude: Option<Vec<f32>>,
}

/// The operations on weights. There are two implementations: [`Cpu`] defines the bytes, and `mlx` computes on
/// MLX's device.
pub trait Backend: Send + Sync {
    /// Dequantizes `packed` into `rows`, and reuses the memory of `rows`.
    ///
    /// # Errors
    /// Fails if the lengths in `packed` do not fit, or if the backend fails.
    fn dequantize(&self, packed: Packed<'_>, rows: &mut Rows) -> Result<()>;

    /// Adds the update `lora` to `rows`. The first of `rows` is row `first` of the matrix.
    ///
    /// # Errors
    /// Fails if `lora` does not fit the rows, or if the backend fails.
    fn merge(&self, rows: &mut Rows, lora: &Lora, first: usize) -> Result<()>;

    /// Quantizes `rows` into `out`. The row length is a multiple of the group size.
    ///
    /// # Errors
    /// Fails if the lengths in `out` do not fit, or if the backend fails.
    fn quantize(&self, rows: &Rows, spec: QuantSpec, out: PackedMut<'_>) -> Result<()>;

    /// Compares the quantized rows in `packed` with the rows before an update, `base`, and after it,
    /// `updated`. `alike` says that the base is quantized with the same spec. `made` is scratch memory for
    /// the dequantized rows.
    ///
    /// # Errors
    /// Fails if the lengths do not fit, or if the backend fails.
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

    /// Returns how many threads may compute at once.
    fn threads(&self) -> usize;
}

impl Mode {
    /// Returns the value of each code before it is scaled, in the modes of small floats. A code of 4 bits repeats.
    pub fn code_values(self) -> [f32; 256] {
        simd::minifloat::code_values(self)
    }

    /// Returns the value of each byte that a scale can be, in the modes of small floats.
    pub fn scale_values(self) -> [f32; 256] {
        simd::minifloat::scale_values(self)
    }
}

impl Rows {
    /// Creates an empty block of rows with this type and this row length.
    pub fn new(float: Float, columns: usize) -> Self {
        Self { float, columns, values: Vec::new() }
    }

    /// Returns the number of rows.
    pub fn count(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }
}
