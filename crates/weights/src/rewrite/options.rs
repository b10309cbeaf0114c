//! The parameters of `fuse` and `quantize`, with defaults filled in.
//! Knows nothing of files, nor of how a rewrite is done. These types are part of a recipe: their JSON form
//! must not change.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Towers;
use crate::kernels::{Float, Mode, QuantSpec, Rounding};

/// The parameters of `fuse`. Here and below, fields are in alphabetical order, because they are hashed as
/// canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fuse {
    /// The type of the fused weights. `None` keeps the model's own.
    pub dtype: Option<Dtype>,
    /// Whether weights that were quantized are quantized again in the same way. mlx-lm does that by default.
    pub requantize: bool,
    /// How weights that are quantized again are rounded.
    #[serde(default, skip_serializing_if = "Rounding::is_nearest")]
    pub rounding: Rounding,
    /// A factor on the updates of each adapter. Empty if there is one adapter, whose factor is 1. It is left out of a
    /// recipe then, so that recipes from before there was a choice keep their keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<Scale>,
    /// Whose tokenizer and chat template the fused model has.
    #[serde(default, skip_serializing_if = "TokenizerOf::is_base")]
    pub tokenizer: TokenizerOf,
    /// What happens to tensors that are not of the language model.
    #[serde(default, skip_serializing_if = "Towers::is_drop")]
    pub towers: Towers,
}

/// A factor on the updates of an adapter: a finite number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scale(f64);

// Never NaN: `new` refuses it.
impl Eq for Scale {}

impl Scale {
    /// The factor of an adapter that counts as it is.
    pub const ONE: Self = Self(1.0);

    /// Returns this factor, or `None` if it is not finite.
    pub fn new(factor: f64) -> Option<Self> {
        factor.is_finite().then_some(Self(factor))
    }

    /// Returns the factor.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Whose tokenizer a fused model has, or a model with an adapter that is applied when it runs. It is left out of a recipe if it is the base's, so that recipes from before
/// there was a choice keep their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerOf {
    /// That of the model that the adapter is fused into.
    #[default]
    Base,
    /// That of the adapter, where it has one.
    Adapter,
}

impl TokenizerOf {
    /// The choices and their words in `pipeline.yaml`.
    pub const WORDS: [(&str, Self); 2] = [("base", Self::Base), ("adapter", Self::Adapter)];

    /// Whether it is the base's.
    pub fn is_base(&self) -> bool {
        *self == Self::Base
    }
}

/// The parameters of `quantize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantize {
    /// The choice of bits and rounding for each module. `None` if the other fields say them. It is left out of
    /// a recipe then, so that recipes from before there was a choice keep their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoBits>,
    /// Bits per weight: one of the numbers that the mode allows. With `auto`, the fewest.
    pub bits: usize,
    /// How many consecutive weights of a row share a scale: one of the numbers that the mode allows.
    pub group_size: usize,
    /// The mode, which says what a code stands for.
    pub mode: Mode,
    /// Exceptions for some modules. The first one that matches is used.
    pub overrides: Vec<Override>,
    /// The mixed recipe that chooses the bits by layer and kind of weight, if there is one.
    pub recipe: Option<Mixed>,
    /// How weights that a fine-tuning changed are rounded.
    #[serde(default, skip_serializing_if = "Rounding::is_nearest")]
    pub rounding: Rounding,
    /// What happens to tensors that are not of the language model.
    #[serde(default, skip_serializing_if = "Towers::is_drop")]
    pub towers: Towers,
}

/// Quantizes every module with this spec, without exceptions.
impl From<QuantSpec> for Quantize {
    fn from(QuantSpec { mode, bits, group_size }: QuantSpec) -> Self {
        Self {
            auto: None,
            bits,
            group_size,
            mode,
            overrides: Vec::new(),
            recipe: None,
            rounding: Rounding::Nearest,
            towers: Towers::Drop,
        }
    }
}

/// A budget of bits, and what modules may have: `bits: auto`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoBits {
    /// The numbers of bits that a module may have, in ascending order.
    pub candidates: Vec<usize>,
    /// The most bits per weight that the model may have, scales and unquantized tensors included.
    pub target_bits: TargetBits,
}

/// A finite, positive number of bits per weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetBits(f64);

// Never NaN: `new` refuses it.
impl Eq for TargetBits {}

impl TargetBits {
    /// Returns this number of bits, or `None` if it is not finite and positive.
    pub fn new(bits: f64) -> Option<Self> {
        (bits.is_finite() && bits > 0.0).then_some(Self(bits))
    }

    /// Returns the most bytes that a model of so many weights may take.
    pub(super) fn bytes(self, weights: u64) -> f64 {
        self.0 * weights as f64 / 8.0
    }
}

impl fmt::Display for TargetBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An exception for the modules whose path matches a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Bits per weight. `None` means those of [`Quantize`].
    pub bits: Option<usize>,
    /// The group size. `None` means that of [`Quantize`].
    pub group_size: Option<usize>,
    /// Whether the modules stay as they are.
    pub keep: bool,
    /// The pattern, which must match the whole path: `*` stands for any text, `?` for one character.
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
    /// The recipes and their names in `pipeline.yaml` and in mlx-lm.
    pub const WORDS: [(&str, Self); 4] = [
        ("mixed_2_6", Self::Low2High6),
        ("mixed_3_4", Self::Low3High4),
        ("mixed_3_6", Self::Low3High6),
        ("mixed_4_6", Self::Low4High6),
    ];

    /// Returns the low and the high number of bits.
    pub fn bits(self) -> (usize, usize) {
        match self {
            Self::Low2High6 => (2, 6),
            Self::Low3High4 => (3, 4),
            Self::Low3High6 => (3, 6),
            Self::Low4High6 => (4, 6),
        }
    }
}

/// The float types that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of MLX and safetensors")]
pub enum Dtype {
    Float16,
    Bfloat16,
    Float32,
}

impl Dtype {
    /// The types and their names in `pipeline.yaml` and `config.json`.
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
