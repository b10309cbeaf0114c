//! The three operations on weights, behind one trait: dequantize, merge, quantize.
//! Knows nothing of files, names or models: blocks of rows in, blocks of rows out.
//!
//! The arithmetic is that of MLX 0.32.2 on the CPU; `docs/weights.md` has the formulas.

mod cpu;
mod float;
mod grid;
mod kernel;
#[cfg(feature = "mlx")]
mod mlx;
mod tally;

pub use cpu::Cpu;
pub use float::Float;
pub use grid::{Grid, Mode};
#[cfg(feature = "mlx")]
pub use mlx::{Mlx, check_device};
pub use tally::Tally;

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
    pub grid: Grid,
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
    fn dequantize(&self, packed: Packed<'_>, rows: &mut Rows) -> anyhow::Result<()>;

    /// Adds the update to `rows`, the first of which is the matrix's row `first`.
    fn merge(&self, rows: &mut Rows, lora: &Lora, first: usize) -> anyhow::Result<()>;

    /// Quantizes `rows`, whose length the group size divides, into `out`.
    fn quantize(&self, rows: &Rows, grid: Grid, out: PackedMut<'_>) -> anyhow::Result<()>;

    /// Sums what became of rows that were quantized; `alike` if the base was quantized the same way. `made` is memory to
    /// dequantize into.
    fn tally(
        &self,
        packed: Packed<'_>,
        base: &Rows,
        updated: &Rows,
        made: &mut Rows,
        alike: bool,
    ) -> anyhow::Result<Tally> {
        self.dequantize(packed, made)?;
        Ok(Tally::of_packed(packed, base, updated, Some(made), alike))
    }

    /// How many threads may compute at once.
    fn threads(&self) -> usize;
}

/// A backend that a build can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// Plain Rust; the same bytes on every machine.
    #[default]
    Cpu,
    /// MLX on its device.
    Mlx,
}

/// The MLX release that mlx-rs 0.33 is bound to, and the device it computes on here. Said without asking MLX,
/// because deciding that nothing is to be done must not wait for a large library to load; the worker checks it.
pub const MLX_ID: &str = if cfg!(target_os = "macos") { "mlx 0.32.2 gpu" } else { "mlx 0.32.2 cpu" };

impl BackendKind {
    /// Returns the backend's name in a recipe.
    pub fn id(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Mlx => MLX_ID,
        }
    }
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
