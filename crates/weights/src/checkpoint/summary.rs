//! What a model is, in a few numbers, for people.
//! Knows nothing of how they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Checkpoint, WeightKind, element_of};

/// What a model is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSummary {
    /// The class that the configuration names, or else the type.
    pub architecture: String,
    /// How many weights, before packing.
    pub parameters: u64,
    /// The bytes of all tensors.
    pub bytes: u64,
    /// Bits that the tensors take, per weight.
    pub bits_per_weight: f64,
    /// How many weights are kept in which way.
    pub tensors: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Returns what the model is.
    pub fn summary(&self) -> ModelSummary {
        let classes = self.config.get("architectures").and_then(Value::as_array);
        let class = classes.and_then(|classes| classes.first()).and_then(Value::as_str);
        let mut tensors = BTreeMap::new();
        for weight in self.weights.values() {
            let kind = match weight.kind {
                WeightKind::Float(float) => element_of(float).to_string(),
                WeightKind::Quantized(spec, _) => spec.to_string(),
                WeightKind::Other(element) => element.to_string(),
            };
            *tensors.entry(kind).or_default() += 1;
        }
        let (parameters, bytes) = (self.parameters(), self.stored());
        ModelSummary {
            architecture: class.unwrap_or_else(|| self.model_type()).to_owned(),
            parameters,
            bytes,
            bits_per_weight: bytes as f64 * 8.0 / parameters.max(1) as f64,
            tensors,
        }
    }
}
