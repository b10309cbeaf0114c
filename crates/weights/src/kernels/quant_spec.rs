//! How a matrix is quantized: MLX's modes, their bits and group sizes, and how many bytes that takes.
//! Knows nothing of the arithmetic.

use serde::{Deserialize, Serialize};

use super::Float;
use crate::error::{Result, require};

/// MLX's quantization modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Integer codes, with a float scale and a float bias for each group.
    Affine,
    /// 4-bit floats (e2m1) with a power-of-two scale (e8m0) for each 32 weights: OCP's MXFP4.
    Mxfp4,
    /// 8-bit floats (e4m3) with a power-of-two scale (e8m0) for each 32 weights: OCP's MXFP8.
    Mxfp8,
    /// 4-bit floats (e2m1) with an 8-bit float scale (e4m3) for each 16 weights: NVIDIA's NVFP4.
    Nvfp4,
}

impl Mode {
    /// The modes and their names in `pipeline.yaml`, in `config.json` and in mlx-lm's `--q-mode`.
    pub const WORDS: [(&'static str, Self); 4] =
        [("affine", Self::Affine), ("mxfp4", Self::Mxfp4), ("mxfp8", Self::Mxfp8), ("nvfp4", Self::Nvfp4)];

    /// Returns the mode's name, as in [`WORDS`](Self::WORDS).
    pub fn word(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    /// Returns the numbers of bits per code that MLX supports in this mode.
    pub fn bits(self) -> &'static [usize] {
        match self {
            Self::Affine => &[2, 3, 4, 5, 6, 8],
            Self::Mxfp4 | Self::Nvfp4 => &[4],
            Self::Mxfp8 => &[8],
        }
    }

    /// Returns the group sizes, in weights, that MLX supports in this mode.
    pub fn group_sizes(self) -> &'static [usize] {
        match self {
            Self::Affine => &[32, 64, 128],
            Self::Mxfp4 | Self::Mxfp8 => &[32],
            Self::Nvfp4 => &[16],
        }
    }
}

/// How a matrix is quantized.
///
/// The order of the fields is that of `config.json` and of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantSpec {
    /// Bits per code.
    pub bits: usize,
    /// How many consecutive weights of a row share a scale.
    pub group_size: usize,
    /// The mode, which says what a code stands for.
    pub mode: Mode,
}

impl QuantSpec {
    /// Checks that MLX has this mode with these bits and this group size.
    ///
    /// # Errors
    /// [`Error::Options`](crate::Error::Options) if it does not.
    pub fn check(self) -> Result<()> {
        let (bits, group_sizes) = (self.mode.bits(), self.mode.group_sizes());
        require!(
            bits.contains(&self.bits) && group_sizes.contains(&self.group_size),
            Options,
            "{} has {bits:?} bits in groups of {group_sizes:?}, not {} bits in groups of {}",
            self.mode.word(),
            self.bits,
            self.group_size
        );
        Ok(())
    }

    /// Returns how many bytes the codes of `values` weights take. `values` is a multiple of the group size.
    pub fn weight_bytes(&self, values: usize) -> usize {
        values / 8 * self.bits
    }

    /// Returns how many bytes the scales of `values` weights take. A scale is a `float` in the affine mode,
    /// and one byte in the other modes.
    pub fn scale_bytes(&self, values: usize, float: Float) -> usize {
        let groups = values / self.group_size;
        if self.mode == Mode::Affine { groups * float.size() } else { groups }
    }

    /// Returns how many bytes the biases of `values` weights take: as many as the scales in the affine mode,
    /// and none in the other modes.
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
