//! `survival.json`: what quantizing left of a fine-tuning, by tensor and overall.
//! Knows nothing of how the sums were made; `docs/evaluation.md` has the formulas.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use artifact::AtPath;

/// The file in which a quantized model says what is left of the fine-tuning it descends from.
pub const SURVIVAL_FILE: &str = "survival.json";

/// How much of a fine-tuning must be left for it to count as intact.
const INTACT: f64 = 0.9;

/// What became of the update that was fused into a model when the model was quantized.
///
/// Over `delta = W_fused - W_base`, the base dequantized, of the tensors that the fusing changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survival {
    /// Over all tensors together.
    pub overall: Figures,
    /// Why so little is left, if little is.
    pub cause: Option<String>,
    /// By the name of the weight.
    pub tensors: BTreeMap<String, Figures>,
}

/// The figures of one tensor, or of all together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// `<W_out - W_base, delta> / <delta, delta>`: 1 if the update is intact on average, 0 if nothing of it is left.
    pub survival: f64,
    /// `|W_out - W_base - delta| / |delta|`: the rounding error against the update.
    pub noise_to_signal: f64,
    /// Of the weights that the update changed, the share that have exactly the base's value again.
    pub reverted: f64,
    /// `|delta| / |step|`: the root mean square of the update against that of the quantization step, of the weights that
    /// have one; none if they are floats.
    pub delta_per_step: Option<f64>,
    /// How many weights.
    pub weights: u64,
}

impl Survival {
    /// Whether the update counts as intact.
    pub fn is_intact(&self) -> bool {
        self.overall.survival >= INTACT
    }

    /// Returns the tensors, those of which least survived first.
    pub fn worst_first(&self) -> Vec<(&str, &Figures)> {
        let mut tensors: Vec<_> =
            self.tensors.iter().map(|(name, figures)| (name.as_str(), figures)).collect();
        tensors.sort_by(|(_, a), (_, b)| a.survival.total_cmp(&b.survival));
        tensors
    }
}

/// Reads what quantizing left of the fine-tuning of the model in `folder`, if it says so.
pub fn read_survival(folder: &Path) -> Result<Option<Survival>> {
    let path = folder.join(SURVIVAL_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).at("read", &path)?;
    serde_json::from_str(&text).map(Some).within(|| format!("cannot read {}", path.display()))
}
