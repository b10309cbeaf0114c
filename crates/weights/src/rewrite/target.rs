//! What a weight becomes in a rewrite, and in which tensors it is then stored.
//! Knows nothing of who decides that, nor of how it is made.

use crate::checkpoint::{Weight, WeightKind, element_of};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorSpec};

/// What a weight becomes in a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The same as before: its tensors are copied.
    Stored,
    /// One tensor of floats.
    Float(Float),
    /// Codes, scales and, in the affine mode, biases. The float is the type of the weight before it is
    /// quantized, and of the scales and biases in the affine mode.
    Quantized(QuantSpec, Float),
}

impl Target {
    /// Returns how the weight is then stored.
    pub(super) fn kind(self, weight: &Weight) -> WeightKind {
        match self {
            Self::Stored => weight.kind,
            Self::Float(float) => WeightKind::Float(float),
            Self::Quantized(spec, float) => WeightKind::Quantized(spec, float),
        }
    }

    /// Returns the float type that the weight then has or dequantizes to, or `None` if it holds no floats.
    pub(super) fn float(self, weight: &Weight) -> Option<Float> {
        match self {
            Self::Stored => weight.float(),
            Self::Float(float) | Self::Quantized(_, float) => Some(float),
        }
    }
}

/// Returns the specs of the tensors that a weight becomes.
pub(super) fn specs(name: &str, weight: &Weight, target: Target) -> Vec<TensorSpec> {
    let tensor = |name: String, element: Element, columns: usize| {
        let mut shape = weight.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        TensorSpec { name, element, shape }
    };
    let columns = weight.columns();
    let (spec, float) = match (target, weight.kind) {
        (Target::Float(float), _) | (Target::Stored, WeightKind::Float(float)) => {
            return vec![tensor(name.to_owned(), element_of(float), columns)];
        }
        (Target::Stored, WeightKind::Other(element)) => {
            return vec![tensor(name.to_owned(), element, columns)];
        }
        (Target::Quantized(spec, float), _) | (Target::Stored, WeightKind::Quantized(spec, float)) => {
            (spec, float)
        }
    };
    let module = module_of(name);
    let affine = spec.mode == Mode::Affine;
    let side = if affine { element_of(float) } else { Element::U8 };
    let part = |word: &str, element, columns| tensor(format!("{module}.{word}"), element, columns);
    let mut specs = vec![
        part("weight", Element::U32, columns * spec.bits / 32),
        part("scales", side, columns / spec.group_size),
    ];
    specs.extend(affine.then(|| part("biases", side, columns / spec.group_size)));
    specs
}

pub(super) fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}
