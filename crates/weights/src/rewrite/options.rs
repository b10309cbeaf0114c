//! What can be asked of a rewrite: the parameters of `fuse` and `quantize`, defaults filled in.
//! Knows nothing of files, nor of how it is done. These types are part of a recipe: their JSON form must not change.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernels::{Float, Mode};

/// Parameters of `fuse`. Fields are in alphabetical order here and below: they are hashed as canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fuse {
    /// The type of the fused weights; none keeps the model's own.
    pub dtype: Option<Dtype>,
    /// Whether what was quantized is quantized again, as it was, which is mlx-lm's default.
    pub requantize: bool,
}

/// Parameters of `quantize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantize {
    /// Bits per weight, one of the mode's.
    pub bits: usize,
    /// How many neighbours in a row share a scale, one of the mode's.
    pub group_size: usize,
    /// What the codes are.
    pub mode: Mode,
    /// What is different for some weights; the first that matches counts.
    pub overrides: Vec<Override>,
    /// A choice of bits by layer and kind of weight.
    pub recipe: Option<Mixed>,
}

/// What is different for the modules whose path a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Bits per weight; none keeps the node's.
    pub bits: Option<usize>,
    /// The group size; none keeps the node's.
    pub group_size: Option<usize>,
    /// Whether they stay as they are.
    pub keep: bool,
    /// The pattern: `*` stands for any text, `?` for one character.
    pub pattern: String,
}

/// mlx-lm's mixed recipes (`--quant-predicate`): most weights in the low bits, some in the high ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are mlx-lm's")]
pub enum Mixed {
    #[serde(rename = "mixed_2_6")]
    Low2High6,
    #[serde(rename = "mixed_3_4")]
    Low3High4,
    #[serde(rename = "mixed_3_6")]
    Low3High6,
    #[serde(rename = "mixed_4_6")]
    Low4High6,
}

impl Mixed {
    /// The words of `pipeline.yaml` and of mlx-lm.
    pub const WORDS: [(&str, Self); 4] = [
        ("mixed_2_6", Self::Low2High6),
        ("mixed_3_4", Self::Low3High4),
        ("mixed_3_6", Self::Low3High6),
        ("mixed_4_6", Self::Low4High6),
    ];

    /// Returns the low and the high bits.
    pub fn bits(self) -> (usize, usize) {
        match self {
            Self::Low2High6 => (2, 6),
            Self::Low3High4 => (3, 4),
            Self::Low3High6 => (3, 6),
            Self::Low4High6 => (4, 6),
        }
    }
}

/// The types that weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of MLX and safetensors")]
pub enum Dtype {
    Float16,
    Bfloat16,
    Float32,
}

impl Dtype {
    /// The words of `pipeline.yaml` and `config.json`.
    pub const WORDS: [(&str, Self); 3] =
        [("float16", Self::Float16), ("bfloat16", Self::Bfloat16), ("float32", Self::Float32)];
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Float32 => "float32",
        })
    }
}

impl From<Dtype> for Float {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float16 => Self::F16,
            Dtype::Bfloat16 => Self::Bf16,
            Dtype::Float32 => Self::F32,
        }
    }
}
