//! Checks that every tensor of an adapter has a place in a model, and says where a misfit may belong.
//! Knows neither formats nor how the model's weights are stored. Nothing is guessed: a misfit is an error.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Adapter, Renaming, listed};
use crate::arch::{Expert, LayerName, number_of};
use crate::checkpoint::Checkpoint;
use crate::error::{Result, fail};
use text::nearest;

/// The model that an adapter is applied to: the names and shapes of its weights.
#[derive(Debug)]
pub struct Base {
    pub(super) weights: BTreeMap<String, Vec<usize>>,
    /// How many layers each list of layers has, by the name of the list, such as `model.layers`.
    layers: BTreeMap<String, usize>,
}

impl Base {
    /// Describes the model of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let weights = checkpoint.weights().iter();
        Self::new(weights.map(|(name, weight)| (name.clone(), weight.shape.clone())), &checkpoint.config)
    }

    /// Describes a model by the names of its weights, their shapes as they are without quantization, and
    /// `config.json`.
    pub fn new(weights: impl IntoIterator<Item = (String, Vec<usize>)>, config: &Map<String, Value>) -> Self {
        let weights: BTreeMap<_, _> = weights.into_iter().collect();
        let said = said_layers(config);
        let mut layers = BTreeMap::new();
        for layer in weights.keys().filter_map(|name| LayerName::of(name)) {
            let count: &mut usize = layers.entry(layer.container.to_owned()).or_default();
            // Not more than the configuration says: a checkpoint may have an extra layer for predicting
            // several tokens, which no model has at run time.
            *count = layer.number.saturating_add(1).max(*count).min(said.unwrap_or(usize::MAX));
        }
        Self { weights, layers }
    }

    /// Returns this model with the names that its modules have in an adapter.
    pub(super) fn renamed(&self, renaming: &Renaming) -> Self {
        let weights =
            self.weights.iter().map(|(name, shape)| (renaming.translate(name).into_owned(), shape.clone()));
        let layers = self.layers.iter().map(|(list, count)| (renaming.translate(list).into_owned(), *count));
        Self { weights: weights.collect(), layers: layers.collect() }
    }

    /// Returns the names of the lists of layers.
    pub(super) fn lists(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    /// Returns the module whose name ends with `name` after a dot, if there is exactly one.
    pub(super) fn module_below(&self, name: &str) -> Option<String> {
        let is_below = |module: &&str| module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        let mut below = self.modules().filter(is_below);
        let only = below.next()?.to_owned();
        below.next().is_none().then_some(only)
    }

    /// Returns the names of the modules that have a weight.
    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().filter_map(|name| name.strip_suffix(".weight"))
    }

    /// Returns how many layers the list `container` has.
    pub(super) fn layers(&self, container: &str) -> usize {
        self.layers.get(container).copied().unwrap_or_default()
    }
}

fn said_layers(config: &Map<String, Value>) -> Option<usize> {
    ["num_hidden_layers", "n_layers", "num_layers", "n_layer"].iter().find_map(|key| number_of(config, key))
}

/// An update that has no place in the model.
struct Misfit<'a> {
    /// How the message names the update.
    what: String,
    name: &'a str,
    shape: Vec<usize>,
    /// The shape of the model's weight with that name, if there is one.
    found: Option<&'a [usize]>,
    hint: &'static str,
}

/// Fails if a part of the adapter has no place in `base`.
pub(super) fn check(adapter: &Adapter, base: &Base) -> Result<()> {
    let names: Vec<String> = adapter.names().collect();
    let mut misfits = Vec::new();
    for name in &names {
        misfits.extend(misfit_of_whole(adapter, base, name));
        misfits.extend(misfit_of_low_rank(adapter, base, name));
    }
    if misfits.is_empty() {
        return Ok(());
    }
    let depth = too_deep(base, &names);
    let (count, all) = (misfits.len(), names.len());
    let lines = listed(misfits.iter().map(|misfit| misfit.line(base)));
    fail!(
        Adapter,
        "the adapter does not fit this model: {count} of {all} updates have no place{depth}\n  {lines}"
    )
}

fn misfit_of_whole<'a>(adapter: &Adapter, base: &'a Base, name: &'a str) -> Option<Misfit<'a>> {
    let tensor = adapter.contents.whole.get(name)?;
    let shape = adapter.files.get(tensor).map(|tensor| tensor.shape.clone()).unwrap_or_default();
    let found = base.weights.get(name).map(Vec::as_slice);
    if found == Some(&shape) {
        return None;
    }
    let rows = |shape: &[usize]| shape.split_first().map(|(_, rest)| rest.to_vec());
    let resized = found.is_some_and(|found| rows(found) == rows(&shape));
    let hint = if resized { "; was the vocabulary resized while training?" } else { "" };
    Some(Misfit { what: format!("`{tensor}`"), name, shape, found, hint })
}

fn misfit_of_low_rank<'a>(adapter: &Adapter, base: &'a Base, name: &'a str) -> Option<Misfit<'a>> {
    let module = name.strip_suffix(".weight")?;
    let update = adapter.contents.low_rank.get(module)?;
    let shape = update.shape();
    let found = base.weights.get(name).map(Vec::as_slice);
    if found == Some(&shape) || found.is_none() && lands_on_a_stack(adapter, base, module, &shape) {
        return None;
    }
    let (inputs, outputs, rank) = (update.inputs, update.outputs, update.rank);
    let hint = match found {
        Some([rows, columns]) if [*rows, *columns] == [inputs, outputs] => "; its factors look swapped",
        Some([rows, columns]) if inputs == outputs && [*rows, *columns] == [rank, rank] => {
            "; its factors look transposed"
        }
        Some(found) if found.len() == 3 && shape.len() == 2 => "; that is a stack of experts",
        _ => "",
    };
    Some(Misfit { what: format!("`{module}`"), name, shape, found, hint })
}

/// Whether the update of one expert fits a slice of a stack of experts. It does not if the stack has an
/// update of its own, or if two stacks are possible.
fn lands_on_a_stack(adapter: &Adapter, base: &Base, module: &str, shape: &[usize]) -> bool {
    let Some(expert) = Expert::of(module) else { return false };
    let mut there = expert.possible_stacks().filter_map(|stack| {
        let name = format!("{stack}.weight");
        let own =
            adapter.contents.low_rank.contains_key(&stack) || adapter.contents.whole.contains_key(&name);
        base.weights.get(&name).map(|found| (found, own))
    });
    let Some((found, own)) = there.next() else { return false };
    let in_stack = |experts: &usize| expert.number < *experts;
    let fits = found.split_first().is_some_and(|(experts, matrix)| in_stack(experts) && matrix == shape);
    fits && !own && there.next().is_none()
}

/// Returns a note for the message if the adapter was made for more layers than the model has.
fn too_deep(base: &Base, names: &[String]) -> String {
    let deepest = names.iter().filter_map(|name| LayerName::of(name)).max_by_key(|layer| layer.number);
    let Some(layer) = deepest else { return String::new() };
    let there = base.layers(layer.container);
    if there == 0 || layer.number < there {
        return String::new();
    }
    let last = there - 1;
    format!("; it goes up to layer {}, but `{}` of the model ends at {last}", layer.number, layer.container)
}

impl Misfit<'_> {
    fn line(&self, base: &Base) -> String {
        let Self { what, name, shape, found, hint } = self;
        match found {
            Some(found) => format!("{what} updates {shape:?}, but `{name}` is {found:?}{hint}"),
            None => {
                format!("{what} updates `{name}`, which the model does not have{}", elsewhere(base, name))
            }
        }
    }
}

/// Returns a note for the message on where in the model a name may belong.
fn elsewhere(base: &Base, name: &str) -> String {
    if name.starts_with("lm_head.") && base.weights.keys().any(|name| name.ends_with("embed_tokens.weight")) {
        return "; its output head is tied to its embedding".to_owned();
    }
    // The same name below another prefix: `language_model.model.layers.0…` for `model.layers.0…`.
    let tails = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
    let tails = std::iter::once(name).chain(tails.filter(|tail| LayerName::of(tail).is_some()));
    for tail in tails {
        let below = |known: &&String| {
            known.strip_suffix(tail).is_some_and(|rest| rest.ends_with('.') || rest.is_empty())
        };
        if let Some(known) = base.weights.keys().find(below) {
            return format!("; the model has `{known}`, so it names its modules otherwise");
        }
    }
    let near = nearest(name, base.weights.keys().map(String::as_str));
    near.map_or_else(String::new, |near| format!("; the nearest is `{near}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_beyond_the_configuration_is_none() {
        let weights = (0..3).map(|layer| (format!("model.layers.{layer}.q.weight"), vec![1, 1]));
        let config = serde_json::json!({"text_config": {"num_hidden_layers": 2}});
        let base = Base::new(weights, config.as_object().unwrap());
        assert_eq!((base.layers("model.layers"), base.layers("vision.layers")), (2, 0));
    }
}
