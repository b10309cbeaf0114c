//! The parameters of each stage: what YAML is read into, what a recipe hashes, what `run` receives.
//! Knows nothing of files: inputs are named by the graph, contents by the recipe.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::Mode;
use crate::report::{Gate, Verdict};

/// The kinds of node. In a recipe: `{"stage": "quantize", "parameters": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", content = "parameters", rename_all = "snake_case")]
pub enum Stage {
    /// Takes in a model folder, checked and referenced where it lies.
    Base,
    /// Takes in a LoRA adapter folder, checked and referenced where it lies.
    Adapter,
    /// Dequantizes a model and merges an adapter into it.
    Fuse(Fuse),
    /// Quantizes a model's linear and embedding weights.
    Quantize(Quantize),
    /// Runs models on a suite of queries and compares them.
    Benchmark(Benchmark),
}

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

/// Parameters of `benchmark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Benchmark {
    /// What is compared, in the order it is reported.
    pub configs: Vec<Config>,
    /// What must be true for the node to succeed.
    pub gates: Vec<Gate>,
    /// The configuration that the others' next-token distributions are compared with.
    pub reference: Option<String>,
    /// What is to be concluded.
    pub verdicts: Vec<Verdict>,
}

/// One configuration of a benchmark: a model, perhaps with an adapter applied at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Whether an adapter is applied.
    pub adapter: bool,
    /// The name in the report.
    pub name: String,
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

/// What a node makes, and so what it can be an input for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Model,
    Adapter,
    Report,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "a model",
            Self::Adapter => "an adapter",
            Self::Report => "a benchmark",
        })
    }
}

impl Stage {
    /// Returns the word for this stage in `pipeline.yaml`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapter => "adapter",
            Self::Fuse(_) => "fuse",
            Self::Quantize(_) => "quantize",
            Self::Benchmark(_) => "benchmark",
        }
    }

    /// Returns what a node of this stage makes.
    pub fn makes(&self) -> Kind {
        match self {
            Self::Base | Self::Fuse(_) | Self::Quantize(_) => Kind::Model,
            Self::Adapter => Kind::Adapter,
            Self::Benchmark(_) => Kind::Report,
        }
    }

    /// Returns what the input in `role` must be.
    pub fn takes(&self, role: &str) -> Kind {
        if role == "adapter" || role.ends_with(".adapter") { Kind::Adapter } else { Kind::Model }
    }

    /// Whether the output is the source itself, referenced where it lies.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::Base | Self::Adapter)
    }

    /// The version of the stage's code. Bumped when the bytes it writes, or what it accepts, change.
    pub fn version(&self) -> u32 {
        match self {
            Self::Base => 1,
            Self::Fuse(fuse) if fuse.requantize => 3,
            Self::Adapter | Self::Fuse(_) => 2,
            Self::Quantize(_) | Self::Benchmark(_) => 3,
        }
    }
}
