//! One weight of a model: its shape, how it is stored, and in which tensors of the files.
//! Knows nothing of other weights, nor of files.

use std::sync::Arc;

use super::view::View;
use crate::error::{Result, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::Element;

/// One weight of the model, described as it would be without quantization.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its shape before packing, outermost dimension first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub kind: WeightKind,
    /// Whether it belongs to a vision or audio tower or to multi-token prediction, not to the language model.
    pub is_tower: bool,
    /// The parts of tensors in the files whose rows follow each other in it: one, or one for each expert.
    pub(super) sources: Vec<Source>,
    /// What is computed from the stored numbers before anything else.
    pub(super) change: Option<Change>,
}

/// A part of a tensor in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name of the tensor. For a quantized module it is that of its `weight`.
    pub tensor: String,
    /// Which part it is.
    pub view: View,
}

/// What is computed from the stored numbers of a weight, in the type that they have.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// One is added to each.
    AddOne,
    /// Each row is divided by its length plus 1e-7, which is computed in float32.
    NormalizeRows,
    /// Rows are multiplied: so many with the first number, the next ones with the second. The numbers have the
    /// type of the weight.
    Multiply(Arc<[(usize, f32)]>),
}

impl Change {
    /// Applies it to whole rows of stored numbers, the first of which is row `first` of the weight.
    pub(super) fn apply(&self, float: Float, columns: usize, first: usize, bytes: &mut [u8]) {
        let mut values = vec![0.0; columns];
        for (number, row) in bytes.chunks_exact_mut(columns.max(1) * float.size()).enumerate() {
            float.decode(row, &mut values);
            match self {
                Self::AddOne => values.iter_mut().for_each(|value| *value += 1.0),
                Self::NormalizeRows => {
                    let length = values.iter().fold(0.0_f32, |sum, value| sum + value * value).sqrt();
                    values.iter_mut().for_each(|value| *value /= length + 1e-7);
                }
                Self::Multiply(factors) => {
                    let factor = factor_of(factors, first + number);
                    values.iter_mut().for_each(|value| *value *= factor);
                }
            }
            float.encode(&values, row);
        }
    }
}

/// Returns the number that a row is multiplied with.
fn factor_of(factors: &[(usize, f32)], row: usize) -> f32 {
    let mut left = row;
    for (rows, factor) in factors {
        match left.checked_sub(*rows) {
            None => return *factor,
            Some(rest) => left = rest,
        }
    }
    1.0
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// One tensor of floats.
    Float(Float),
    /// `weight`, `scales` and, in the affine mode, `biases`. They dequantize to this float type.
    Quantized(QuantSpec, Float),
    /// One tensor of another type, which is copied as it is.
    Other(Element),
}

impl WeightKind {
    /// Returns how the weight is quantized, or `None` if it is not.
    pub fn spec(self) -> Option<QuantSpec> {
        match self {
            Self::Quantized(spec, _) => Some(spec),
            Self::Float(_) | Self::Other(_) => None,
        }
    }
}

/// One of the tensors that a weight is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The codes, or the floats themselves.
    Weight,
    /// The scale of each group.
    Scales,
    /// The bias of each group, in the affine mode.
    Biases,
}

impl Part {
    /// All parts, each with the last word of its tensor's name.
    pub const WORDS: [(&'static str, Self); 3] =
        [("weight", Self::Weight), ("scales", Self::Scales), ("biases", Self::Biases)];
}

/// The ends of the names of codes and scales in OpenAI's form.
pub(super) const BLOCKS: &str = "_blocks";
pub(super) const SCALES: &str = "_scales";

impl Weight {
    /// Describes a weight that is a tensor of the files as it is. `shape` is its shape before packing.
    pub(super) fn of_tensor(name: &str, shape: Vec<usize>, kind: WeightKind) -> Self {
        let source = Source { tensor: name.to_owned(), view: View::whole(&shape) };
        Self { shape, kind, is_tower: false, sources: vec![source], change: None }
    }

    /// Returns the length of a row in weights: the last dimension, or 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        let rows = self.shape.split_last().map_or(&[][..], |(_, rows)| rows);
        rows.iter().fold(1, |all: usize, size| all.saturating_mul(*size))
    }

    /// Returns the number of rows of one matrix. In a stack, that is one expert.
    pub fn matrix_rows(&self) -> usize {
        match self.shape.as_slice() {
            [.., rows, _] => *rows,
            _ => 1,
        }
    }

    /// Returns the float type that it has or dequantizes to, or `None` if it holds no floats.
    pub fn float(&self) -> Option<Float> {
        match self.kind {
            WeightKind::Float(float) | WeightKind::Quantized(_, float) => Some(float),
            WeightKind::Other(_) => None,
        }
    }

    /// Checks that 64 times the number of weights, their bits at most, does not overflow, where an empty dimension
    /// counts as 1, and that each row is a whole number of bytes.
    pub(super) fn check(&self) -> Result<()> {
        let size =
            self.shape.iter().try_fold(64usize, |size, dimension| size.checked_mul((*dimension).max(1)));
        require!(size.is_some(), Checkpoint, "no machine has so many weights");
        if let WeightKind::Other(element) = self.kind {
            let whole = (self.columns() * element.bitsize()).is_multiple_of(8);
            require!(whole, Checkpoint, "rows of {} times {element} are no whole bytes", self.columns());
        }
        Ok(())
    }

    /// Returns the number of bytes that a row takes in `part`.
    pub fn row_bytes(&self, part: Part) -> usize {
        let columns = self.columns();
        match (self.kind, part) {
            (WeightKind::Float(float), _) => columns * float.size(),
            (WeightKind::Other(element), _) => columns * element.bitsize() / 8,
            (WeightKind::Quantized(spec, _), Part::Weight) => spec.weight_bytes(columns),
            (WeightKind::Quantized(spec, float), Part::Scales) => spec.scale_bytes(columns, float),
            (WeightKind::Quantized(spec, float), Part::Biases) => spec.bias_bytes(columns, float),
        }
    }

    /// Returns the number of bytes that it takes in the files, all parts together.
    pub fn stored(&self) -> u64 {
        let row: usize = self.parts().iter().map(|part| self.row_bytes(*part)).sum();
        (self.rows() as u64).saturating_mul(row as u64)
    }

    /// Returns the parts of tensors in the files whose rows follow each other in it: one, or one for each
    /// expert of a stack.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Returns what is computed from the stored numbers before anything else.
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// Returns the parts that it is stored in.
    pub fn parts(&self) -> &'static [Part] {
        match self.kind {
            WeightKind::Float(_) | WeightKind::Other(_) => &[Part::Weight],
            WeightKind::Quantized(spec, _) if spec.mode == Mode::Affine => {
                &[Part::Weight, Part::Scales, Part::Biases]
            }
            WeightKind::Quantized(..) => &[Part::Weight, Part::Scales],
        }
    }

    /// Returns the name of the tensor that holds `part` of `tensor`, a weight or one of its sources. A name that
    /// ends neither with `.weight` nor with `_blocks` has no other parts: it is returned itself.
    pub fn tensor(tensor: &str, part: Part) -> String {
        if let (Part::Scales, Some(stem)) = (part, tensor.strip_suffix(BLOCKS)) {
            return format!("{stem}{SCALES}");
        }
        let word = Part::WORDS.iter().find(|(_, other)| *other == part).map(|(word, _)| *word);
        match (word, tensor.strip_suffix("weight")) {
            (Some(word), Some(module)) if module.ends_with('.') => format!("{module}{word}"),
            _ => tensor.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_room_for_is_refused() {
        let check = |element, shape: &[usize]| {
            Weight::of_tensor("w", shape.to_vec(), WeightKind::Other(element)).check()
        };
        assert!(check(Element::I64, &[0, 1 << 57]).is_ok());
        assert!(check(Element::I64, &[0, 1 << 60]).is_err());
        assert!(check(Element::F4, &[2, 3]).is_err());
    }
}
