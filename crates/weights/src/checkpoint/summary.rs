//! A summary of a model in a few numbers, for people.
//! Knows nothing of how it is shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Checkpoint, WeightKind, element_of};

/// A summary of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSummary {
    /// The class that `config.json` names first in `architectures`, or else its `model_type`.
    pub architecture: String,
    /// The number of weights before packing.
    pub parameters: u64,
    /// The number of bytes that all weights take in the files.
    pub bytes: u64,
    /// The number of bits that are stored per weight, scales and biases included.
    pub bits_per_weight: f64,
    /// How many tensors are stored in each form, by the name of the form. Tensors are counted as in the model
    /// without quantization.
    pub tensors: BTreeMap<String, usize>,
    /// The bits of each quantized module, if they differ; otherwise empty.
    pub bits: BTreeMap<String, usize>,
    /// The bytes of each part that is not of the language model, and is counted nowhere else: `model.visual`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub towers: BTreeMap<String, u64>,
}

impl Checkpoint {
    /// Returns a summary of the model.
    pub fn summary(&self) -> ModelSummary {
        let classes = self.config.get("architectures").and_then(Value::as_array);
        let class = classes.and_then(|classes| classes.first()).and_then(Value::as_str);
        let (mut tensors, mut bits) = (BTreeMap::new(), BTreeMap::new());
        for (name, weight) in &self.weights {
            let kind = match weight.kind {
                WeightKind::Float(float) => element_of(float).to_string(),
                WeightKind::Quantized(spec, _) => {
                    bits.insert(name.strip_suffix(".weight").unwrap_or(name).to_owned(), spec.bits);
                    spec.to_string()
                }
                WeightKind::Other(element) => element.to_string(),
            };
            *tensors.entry(kind).or_default() += 1;
        }
        let first = bits.values().next().copied();
        if bits.values().all(|bits| Some(*bits) == first) {
            bits.clear();
        }
        let (parameters, bytes) = (self.parameters(), self.stored());
        let towers = self.left_out.parts().iter().map(|(part, (_, bytes))| (part.clone(), *bytes));
        ModelSummary {
            architecture: class.unwrap_or_else(|| self.model_type()).to_owned(),
            parameters,
            bytes,
            bits_per_weight: bytes as f64 * 8.0 / parameters.max(1) as f64,
            tensors,
            bits,
            towers: towers.collect(),
        }
    }
}
