//! How a matrix is quantized: MLX's modes, their bits and group sizes, and how many bytes that takes.
//! Knows nothing of the arithmetic.

use serde::{Deserialize, Serialize};

use super::Float;

/// MLX's quantization modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Whole numbers, with a float scale and a float bias for each group.
    Affine,
    /// Floats of 4 bits (e2m1), with a power of two (e8m0) for each 32: OCP's MXFP4.
    Mxfp4,
    /// Floats of 8 bits (e4m3), with a power of two (e8m0) for each 32: OCP's MXFP8.
    Mxfp8,
    /// Floats of 4 bits (e2m1), with a float of 8 bits (e4m3) for each 16: NVIDIA's NVFP4.
    Nvfp4,
}

impl Mode {
    /// The words of `pipeline.yaml`, of `config.json` and of mlx-lm's `--q-mode`.
    pub const WORDS: [(&'static str, Self); 4] =
        [("affine", Self::Affine), ("mxfp4", Self::Mxfp4), ("mxfp8", Self::Mxfp8), ("nvfp4", Self::Nvfp4)];

    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    /// Returns the bits that MLX has in this mode.
    pub fn bits(self) -> &'static [usize] {
        match self {
            Self::Affine => &[2, 3, 4, 5, 6, 8],
            Self::Mxfp4 | Self::Nvfp4 => &[4],
            Self::Mxfp8 => &[8],
        }
    }

    /// Returns the group sizes that MLX has in this mode.
    pub fn group_sizes(self) -> &'static [usize] {
        match self {
            Self::Affine => &[32, 64, 128],
            Self::Mxfp4 | Self::Mxfp8 => &[32],
            Self::Nvfp4 => &[16],
        }
    }
}

/// How a matrix is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantSpec {
    /// What the codes are.
    pub mode: Mode,
    /// Bits of a code.
    pub bits: usize,
    /// How many neighbours in a row share a scale.
    pub group_size: usize,
}

impl QuantSpec {
    /// Returns the bytes of the codes of `values` weights, which are whole groups.
    pub fn weight_bytes(&self, values: usize) -> usize {
        values / 8 * self.bits
    }

    /// Returns the bytes of the scales of `values` weights of type `float`.
    pub fn scale_bytes(&self, values: usize, float: Float) -> usize {
        let groups = values / self.group_size;
        if self.mode == Mode::Affine { groups * float.size() } else { groups }
    }

    /// Returns the bytes of the biases of `values` weights of type `float`.
    pub fn bias_bytes(&self, values: usize, float: Float) -> usize {
        if self.mode == Mode::Affine { self.scale_bytes(values, float) } else { 0 }
    }
}

impl std::fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, bits, group_size } = self;
        write!(f, "{bits} bits in groups of {group_size}")?;
        if *mode == Mode::Affine { Ok(()) } else { write!(f, " ({})", mode.word()) }
    }
}
