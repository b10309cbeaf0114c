//! The survival of tensors, sorted by the layer and the kind of module that their names say.
//! Knows nothing of how it is shown.

use std::collections::{BTreeMap, BTreeSet};

use weights::arch::LayerName;
use weights::survival::{Figures, Survival};

/// The usual order of the kinds of modules. Other kinds come after them, sorted by name.
const ORDER: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The survival of tensors, by layer and kind of module.
pub(super) struct Layers {
    /// The headings of the columns.
    pub(super) kinds: Vec<String>,
    /// The rows by layer number, with one cell for each kind; `None` if the layer has no such tensor.
    pub(super) rows: BTreeMap<usize, Vec<Option<f64>>>,
    /// The modules that are in no layer, each with its survival.
    pub(super) others: Vec<(String, f64)>,
}

impl Layers {
    /// Sorts the tensors. A cell that several tensors share, such as experts, has their lowest survival.
    pub(super) fn of(survival: &Survival) -> Self {
        let mut cells = BTreeMap::<(usize, String), f64>::new();
        let mut others = Vec::new();
        for (name, Figures { survival, .. }) in &survival.tensors {
            match place(name) {
                Some(place) => {
                    let cell = cells.entry(place).or_insert(*survival);
                    *cell = cell.min(*survival);
                }
                None => others.push((module(name).to_owned(), *survival)),
            }
        }
        let kinds: BTreeSet<_> = cells.keys().map(|(_, kind)| kind.as_str()).collect();
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|kind| ORDER.iter().position(|known| *known == last(kind)).unwrap_or(ORDER.len()));
        let row = |layer: usize| {
            kinds.iter().map(|kind| cells.get(&(layer, (*kind).to_owned())).copied()).collect()
        };
        let rows = cells.keys().map(|(layer, _)| (*layer, row(*layer))).collect();
        let is_alone = |kind: &str| kinds.iter().filter(|other| last(other) == last(kind)).count() == 1;
        let label = |kind: &&str| if is_alone(kind) { last(kind).to_owned() } else { (*kind).to_owned() };
        Self { kinds: kinds.iter().map(label).collect(), rows, others }
    }

    /// Returns the `count` layers with the lowest survival, lowest first, each with its worst kind and the
    /// survival of that kind.
    pub(super) fn worst(&self, count: usize) -> Vec<(usize, &str, f64)> {
        let least = |(layer, cells): (&usize, &Vec<Option<f64>>)| {
            let cells = cells.iter().zip(&self.kinds);
            let cells = cells.filter_map(|(cell, kind)| cell.map(|value| (kind.as_str(), value)));
            let (kind, value) = cells.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
            Some((*layer, kind, value))
        };
        let mut layers: Vec<_> = self.rows.iter().filter_map(least).collect();
        layers.sort_by(|(_, _, a), (_, _, b)| a.total_cmp(b));
        layers.truncate(count);
        layers
    }
}

/// Returns the layer number and the kind of module, in which the numbers of experts are written `*`; `None`
/// if the tensor is in no layer.
fn place(tensor: &str) -> Option<(usize, String)> {
    let LayerName { number, rest, .. } = LayerName::of(module(tensor))?;
    let is_number = |part: &str| part.parse::<usize>().is_ok();
    let kind: Vec<_> = rest.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
    Some((number, kind.join(".")))
}

fn module(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn last(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survival(tensors: &[(&str, f64)]) -> Survival {
        let figures = |survival| Figures {
            bits: Some(4),
            cosine: 1.0,
            rounding: None,
            survival,
            noise_to_signal: 0.0,
            reverted: 0.0,
            delta_per_step: Some(1.0),
            weights: 1,
        };
        let tensors = tensors.iter().map(|(name, survival)| ((*name).to_owned(), figures(*survival)));
        Survival { can_keep: false, overall: figures(1.0), cause: None, tensors: tensors.collect() }
    }

    #[test]
    fn tensors_are_sorted_by_layer_and_kind() {
        let layers = Layers::of(&survival(&[
            ("lm_head.weight", 0.9),
            ("model.layers.10.mlp.down_proj.weight", 0.5),
            ("model.layers.2.mlp.down_proj.weight", 0.75),
            ("model.layers.2.self_attn.q_proj.weight", 0.25),
        ]));
        assert_eq!(layers.kinds, ["q_proj", "down_proj"]);
        let rows: Vec<_> = layers.rows.iter().collect();
        assert_eq!(rows, [(&2, &vec![Some(0.25), Some(0.75)]), (&10, &vec![None, Some(0.5)])]);
        assert_eq!(layers.others, [("lm_head".to_owned(), 0.9)]);
        assert_eq!(layers.worst(5), [(2, "q_proj", 0.25), (10, "down_proj", 0.5)]);
    }

    #[test]
    fn experts_share_a_cell_and_equal_endings_are_told_apart() {
        let layers = Layers::of(&survival(&[
            ("model.layers.0.mlp.experts.0.up_proj.weight", 0.5),
            ("model.layers.0.mlp.experts.17.up_proj.weight", 0.25),
            ("model.layers.0.mlp.shared.up_proj.weight", 0.75),
        ]));
        assert_eq!(layers.kinds, ["mlp.experts.*.up_proj", "mlp.shared.up_proj"]);
        assert_eq!(layers.rows[&0], [Some(0.25), Some(0.75)]);
    }
}
