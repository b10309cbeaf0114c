//! The three operations on weights, behind one trait: dequantize, merge, quantize.
//! Knows nothing of files, names or models: matrices in, matrices out.
//!
//! The arithmetic is that of MLX 0.32.2 on the CPU; `docs/weights.md` has the formulas.

mod cpu;
mod float;
mod kernel;
#[cfg(feature = "mlx")]
mod mlx;

pub use cpu::Cpu;
pub use float::Float;
#[cfg(feature = "mlx")]
pub use mlx::{Mlx, check_device};

/// A matrix of floats as it lies in a file: rows one after the other, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The type of the elements.
    pub float: Float,
    /// The length of a row.
    pub columns: usize,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Matrix {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.bytes.len().checked_div(self.columns * self.float.size()).unwrap_or(0)
    }
}

/// How a matrix is quantized: MLX's affine mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Bits per weight.
    pub bits: usize,
    /// How many neighbours in a row share a scale and a bias.
    pub group_size: usize,
}

/// A quantized matrix as it lies in a file. With `n` rows of `c` columns: `weight` is [n, c·bits/32] in uint32,
/// `scales` and `biases` are [n, c/group_size].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// How it is quantized.
    pub grid: Grid,
    /// The length of a row before packing.
    pub columns: usize,
    /// Each row is one little-endian bit stream of `bits`-wide values.
    pub weight: Vec<u8>,
    /// The step of each group.
    pub scales: Matrix,
    /// The value that the quantized 0 of each group stands for.
    pub biases: Matrix,
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
}

/// The operations. Two stand behind it: [`Cpu`] defines the bytes, `mlx` uses MLX's device.
pub trait Backend: Send + Sync {
    /// Returns the matrix that `quantized` stands for, in the type of its scales.
    fn dequantize(&self, quantized: &Quantized) -> anyhow::Result<Matrix>;

    /// Returns `weight` with the update added.
    fn merge(&self, weight: Matrix, lora: &Lora) -> anyhow::Result<Matrix>;

    /// Quantizes `weight`, whose rows the group size divides.
    fn quantize(&self, weight: &Matrix, grid: Grid) -> anyhow::Result<Quantized>;
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
