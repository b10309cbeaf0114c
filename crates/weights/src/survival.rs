//! The file `survival.json`: how much of a fine-tuning survives quantizing, by tensor and overall.
//! Knows nothing of how the sums are computed; `docs/evaluation.md` has the formulas.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::kernels::Rounding;
use artifact::AtPath;
use text::units;

/// The name of the file in which a quantized model says how much is left of the fine-tuning it descends from.
pub const SURVIVAL_FILE: &str = "survival.json";

/// The overall survival from which a fine-tuning counts as intact.
const INTACT: f64 = 0.9;

/// How much of a fused update is left after the model is quantized.
///
/// The update of a tensor is `delta = W_fused - W_base`, where the base is dequantized. Only the tensors that
/// the fusing changed are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survival {
    /// Whether `rounding: keep` would leave more: it suits a tensor that was rounded to the nearest point.
    pub can_keep: bool,
    /// The figures of all tensors together.
    pub overall: Figures,
    /// Why little is left. `None` if the update is intact.
    pub cause: Option<String>,
    /// The figures of each tensor, by the name of its weight.
    pub tensors: BTreeMap<String, Figures>,
}

/// The figures of one tensor, or of all together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Bits per code; `None` if it is not quantized. For all tensors together, `None` if they differ.
    pub bits: Option<usize>,
    /// `<W_out - W_base, delta> / (|W_out - W_base| |delta|)`: 1 if the weights moved in the direction of the
    /// update and nowhere else.
    pub cosine: f64,
    /// How the weights were rounded; `None` if they are not quantized. For all tensors together, `None` if
    /// they differ.
    pub rounding: Option<Rounding>,
    /// `<W_out - W_base, delta> / <delta, delta>`: 1 if the update is intact on average, 0 if nothing of it
    /// is left.
    pub survival: f64,
    /// `|W_out - W_base - delta| / |delta|`: the size of the rounding error relative to the update.
    pub noise_to_signal: f64,
    /// The share of the changed weights that have exactly the base's value again, from 0 to 1. With
    /// [`Rounding::Keep`] that is most of them by design: the others carry the update.
    pub reverted: f64,
    /// `|delta| / |step|`: the root mean square of the update divided by that of the quantization step, over
    /// the quantized tensors. `None` if none is quantized.
    pub delta_per_step: Option<f64>,
    /// The number of weights.
    pub weights: u64,
}

impl Survival {
    /// Whether the update counts as intact.
    pub fn is_intact(&self) -> bool {
        self.overall.survival >= INTACT
    }

    /// Whether a tensor was kept on the grid of the base.
    pub fn is_kept(&self) -> bool {
        self.tensors.values().any(|figures| figures.rounding == Some(Rounding::Keep))
    }

    /// Says in two sentences what `rounding: keep` did and what it costs. Returns `None` if no tensor was rounded
    /// in that way.
    pub fn explanation(&self) -> Option<&'static str> {
        self.is_kept().then_some(
            "`rounding: keep` leaves each weight on the base's grid and moves it by its update on average, so the training \
             survives although most weights stay where they were. The price is noise, often more than the update itself: \
             on text that has nothing to do with the training, the model is about as far from the fused one as after \
             plain rounding",
        )
    }

    /// Returns what would keep more of the fine-tuning in a model that takes so many bytes and bits per weight,
    /// each with the size that results.
    pub fn remedies(&self, bytes: u64, bits_per_weight: f64) -> Vec<String> {
        let mut remedies = Vec::new();
        if !self.is_intact() && self.can_keep {
            let size = units::bytes(bytes);
            remedies.push(format!("the base's grid: `rounding: keep` keeps the training in the same {size}"));
        }
        if self.overall.bits.is_some_and(|bits| bits >= 8) {
            return remedies;
        }
        let target = ((bits_per_weight + 0.25) * 2.0).ceil() / 2.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size is a whole number"
        )]
        let most = (bytes as f64 * target / bits_per_weight) as u64;
        remedies.push(format!(
            "more bits for what was trained: `bits: auto` with `target_bits: {target:?}` takes {} at most",
            units::bytes(most)
        ));
        remedies
    }

    /// Returns the tensors in order of their survival, the lowest first.
    pub fn worst_first(&self) -> Vec<(&str, &Figures)> {
        let mut tensors: Vec<_> =
            self.tensors.iter().map(|(name, figures)| (name.as_str(), figures)).collect();
        tensors.sort_by(|(_, a), (_, b)| a.survival.total_cmp(&b.survival));
        tensors
    }
}

/// Reads [`SURVIVAL_FILE`] in `folder`. Returns `None` if there is no such file.
///
/// # Errors
/// Fails if the file cannot be read or is not in its format.
pub fn read_survival(folder: &Path) -> Result<Option<Survival>> {
    let path = folder.join(SURVIVAL_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).at("read", &path)?;
    serde_json::from_str(&text).map(Some).within(|| format!("cannot read {}", path.display()))
}
