//! What a weight becomes, and which tensors that is.
//! Knows nothing of who decides, nor of how it is made.

use crate::backend::{Float, Grid, Mode};
use crate::stage::checkpoint::{Weight, WeightKind, element_of};
use crate::tensor::{Element, TensorSpec};

/// What a weight becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stage) enum Target {
    /// What it is: its tensors are copied.
    Stored,
    /// One tensor of floats.
    Float(Float),
    /// Codes, scales and, in the affine mode, biases of this type.
    Grid(Grid, Float),
}

impl Target {
    /// Returns how the weight is kept then.
    pub(super) fn kind(self, weight: &Weight) -> WeightKind {
        match self {
            Self::Stored => weight.kind,
            Self::Float(float) => WeightKind::Float(float),
            Self::Grid(grid, float) => WeightKind::Quantized(grid, float),
        }
    }

    /// Returns the type that it has then, or is dequantized to.
    pub(super) fn float(self, weight: &Weight) -> Option<Float> {
        match self {
            Self::Stored => weight.float(),
            Self::Float(float) | Self::Grid(_, float) => Some(float),
        }
    }
}

/// Returns the tensors that a weight becomes.
pub(super) fn specs(name: &str, weight: &Weight, target: Target) -> Vec<TensorSpec> {
    let spec = |name: String, element: Element, columns: usize| {
        let mut shape = weight.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        TensorSpec { name, element, shape }
    };
    let columns = weight.columns();
    let (grid, float) = match (target, weight.kind) {
        (Target::Float(float), _) | (Target::Stored, WeightKind::Float(float)) => {
            return vec![spec(name.to_owned(), element_of(float), columns)];
        }
        (Target::Stored, WeightKind::Other(element)) => return vec![spec(name.to_owned(), element, columns)],
        (Target::Grid(grid, float), _) | (Target::Stored, WeightKind::Quantized(grid, float)) => {
            (grid, float)
        }
    };
    let module = module_of(name);
    let affine = grid.mode == Mode::Affine;
    let side = if affine { element_of(float) } else { Element::U8 };
    let part = |word: &str, element, columns| spec(format!("{module}.{word}"), element, columns);
    let mut specs = vec![
        part("weight", Element::U32, columns * grid.bits / 32),
        part("scales", side, columns / grid.group_size),
    ];
    specs.extend(affine.then(|| part("biases", side, columns / grid.group_size)));
    specs
}

pub(super) fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}
