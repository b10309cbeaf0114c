//! The tensors of a checkpoint that a text model does not have, in numbers.
//! Knows nothing of why they are left out.

use std::collections::BTreeMap;

use crate::arch::LayerName;

/// How many tensors were left out, and how large they are, by the part of the model that they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<String, (usize, u64)>);

impl LeftOut {
    /// Counts a tensor of `bytes` bytes.
    pub(super) fn add(&mut self, name: &str, bytes: u64) {
        // Two words name a part: `model.visual`, `vision_tower.blocks`; a layer has its number too.
        let layer = LayerName::of(name).filter(|layer| layer.position() == 2);
        let part = layer.map(|layer| format!("{}.{}", layer.container, layer.number));
        let words = || name.match_indices('.').nth(1).and_then(|(at, _)| name.get(..at)).unwrap_or(name);
        let part = part.unwrap_or_else(|| words().to_owned());
        let (tensors, all) = self.0.entry(part).or_default();
        *tensors += 1;
        *all += bytes;
    }

    /// Returns the parts of the model, each with its number of tensors and of bytes.
    pub fn parts(&self) -> &BTreeMap<String, (usize, u64)> {
        &self.0
    }

    /// Returns a sentence about what was left out, or `None` if nothing was.
    pub fn describe(&self) -> Option<String> {
        let (tensors, bytes) =
            self.0.values().fold((0, 0), |(a, b), (tensors, bytes)| (a + tensors, b + bytes));
        let parts: Vec<_> = self.0.keys().map(|part| format!("`{part}`")).collect();
        let plural = if tensors == 1 { "1 tensor".to_owned() } else { format!("{tensors} tensors") };
        (tensors > 0).then(|| {
            format!(
                "left out, as mlx-lm does: {} with {} not of the language model ({}); `towers: include` keeps them",
                plural,
                text::units::bytes(bytes),
                parts.join(", ")
            )
        })
    }
}
