//! Compares the modules that an adapter's configuration names with those that its file holds.
//! Knows nothing of shapes; `fit.rs` checks those.
//!
//! A module that is named but missing was lost. Merging the rest would silently apply a part of the adapter.

use std::collections::BTreeSet;

use super::fit::Base;
use super::pattern::Pattern;
use super::{Adapter, CONFIG_FILE, listed};
use crate::arch::LayerName;
use crate::error::{Result, fail};
use text::nearest;

/// The modules that a configuration names.
#[derive(Debug)]
pub(super) enum Named {
    /// As mlx-lm names them.
    Keys(Keys),
    /// As PEFT names them.
    Targets(Box<Targets>),
}

/// mlx-lm's `lora_parameters.keys` and `num_layers`.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Names of modules in a layer, or of modules outside the layers. Empty if all linear layers were meant.
    pub keys: Vec<String>,
    /// How many layers were trained, counted from the last. `None` if the configuration does not say.
    pub last: Option<usize>,
}

/// PEFT's `target_modules` and the keys that limit it.
#[derive(Debug)]
pub(super) struct Targets {
    pub targets: Select,
    pub excluded: Select,
    /// `modules_to_save`.
    pub saved: Vec<String>,
    /// `layers_to_transform`; empty for all.
    pub layers: Vec<usize>,
    /// `layers_pattern`; empty for any.
    pub containers: Vec<Pattern>,
}

/// A selection of modules.
#[derive(Debug)]
pub(super) enum Select {
    /// Nothing that can be checked.
    Nothing,
    /// Whole names, or the ends of names after a dot.
    Names(Vec<String>),
    /// A regular expression on whole names.
    Pattern(Pattern),
}

impl Default for Named {
    fn default() -> Self {
        Self::Keys(Keys::default())
    }
}

impl Named {
    /// Whether the configuration is PEFT's.
    pub(super) fn is_of_peft(&self) -> bool {
        matches!(self, Self::Targets(_))
    }

    /// Forgets a module that was saved whole.
    pub(super) fn forget(&mut self, module: &str) {
        if let Self::Targets(targets) = self {
            targets.saved.retain(|saved| saved != module);
        }
    }
}

/// Fails if the adapter lacks a module that its configuration names.
pub(super) fn check(adapter: &Adapter, base: &Base) -> Result<()> {
    let missing = match &adapter.contents.named {
        Named::Keys(keys) => keys.missing(adapter, base),
        Named::Targets(targets) => targets.missing(adapter, base)?,
    };
    if missing.is_empty() {
        return Ok(());
    }
    let count = missing.len();
    fail!(
        Adapter,
        "the adapter lacks {count} of the modules that its {CONFIG_FILE} names\n  {}",
        listed(missing.into_iter())
    )
}

/// Returns the lists of layers in which the adapter changes something. Other lists are not checked, such as a
/// vision tower that was not trained, or the layer of a second predictor.
fn touched(adapter: &Adapter, base: &Base) -> BTreeSet<String> {
    let modules = base.modules().filter(|module| adapter.changes(module));
    modules.filter_map(LayerName::of).map(|layer| layer.container.to_owned()).collect()
}

impl Keys {
    /// Returns what is missing. Mirrors how `linear_to_lora_layers` in mlx-lm's `tuner/utils.py` selects
    /// modules.
    fn missing(&self, adapter: &Adapter, base: &Base) -> Vec<String> {
        let touched = touched(adapter, base);
        let mut missing = Vec::new();
        for key in &self.keys {
            let outside = base.weights.contains_key(&format!("{key}.weight"));
            let inside: Vec<_> = base
                .modules()
                .filter_map(|module| Some((module, LayerName::of(module)?)))
                .filter(|(_, layer)| layer.rest == key)
                .collect();
            if !outside && inside.is_empty() {
                missing.push(format!("`{key}`, which no layer of the model has{}", near(key, base)));
            }
            let wanted = inside.iter().filter(|(_, layer)| self.trains(layer, &touched, base));
            let wanted = wanted.map(|(module, _)| *module).chain(outside.then_some(key.as_str()));
            let lost = wanted.filter(|module| !adapter.changes(module));
            missing.extend(lost.map(|module| format!("`{module}`")));
            let found = inside.iter().any(|(module, _)| adapter.changes(module));
            if self.last.is_none() && !inside.is_empty() && !outside && !found {
                missing.push(format!("`{key}`, in any layer"));
            }
        }
        missing
    }

    fn trains(&self, layer: &LayerName<'_>, touched: &BTreeSet<String>, base: &Base) -> bool {
        let layers = base.layers(layer.container);
        let first = self.last.map_or(layers, |last| layers.saturating_sub(last));
        let counted = touched.is_empty() || touched.contains(layer.container);
        counted && (first..layers).contains(&layer.number)
    }
}

fn near(key: &str, base: &Base) -> String {
    let known: BTreeSet<&str> =
        base.modules().map(|module| LayerName::of(module).map_or(module, |layer| layer.rest)).collect();
    nearest(key, known).map_or_else(String::new, |near| format!("; the nearest is `{near}`"))
}

impl Targets {
    /// Returns what is missing. Mirrors `check_target_module_exists` in PEFT's `tuners/tuners_utils.py`.
    fn missing(&self, adapter: &Adapter, base: &Base) -> Result<Vec<String>> {
        let touched = touched(adapter, base);
        let mut lost = Vec::new();
        for module in base.modules() {
            // A stack of experts may be trained in part. The experts that were not trained have no tensors.
            let matrix = base.weights.get(&format!("{module}.weight")).is_some_and(|shape| shape.len() == 2);
            if matrix && !adapter.changes(module) && self.trains(module, &touched, base)? {
                lost.push(module);
            }
        }
        let names = if let Select::Names(names) = &self.targets { names.as_slice() } else { &[] };
        let updated = || adapter.contents.low_rank.keys().map(String::as_str).chain(lost.iter().copied());
        let names = names.iter().filter(|name| !updated().any(|module| is_or_ends(module, name)));
        let names = names.filter(|name| !self.saved.contains(name)).map(|name| (name, "target_modules"));
        let is_saved = |name: &&String| adapter.contents.whole.keys().any(|weight| holds(weight, name));
        let saved = self.saved.iter().filter(|name| !is_saved(name)).map(|name| (name, "modules_to_save"));
        let names =
            names.chain(saved).map(|(name, key)| format!("`{name}` of `{key}`{}", near_end(name, base)));
        Ok(names.chain(lost.iter().map(|module| format!("`{module}`"))).collect())
    }

    fn trains(&self, module: &str, touched: &BTreeSet<String>, base: &Base) -> Result<bool> {
        if let Some(layer) = LayerName::of(module) {
            let counted = touched.is_empty() || touched.contains(layer.container);
            if !counted || layer.number >= base.layers(layer.container) {
                return Ok(false);
            }
        }
        Ok(self.targets.selects(module)? && !self.excluded.selects(module)? && self.in_layers(module)?)
    }

    /// Whether `layers_to_transform` holds the layer of the module. The key limits only a list of names.
    fn in_layers(&self, module: &str) -> Result<bool> {
        if self.layers.is_empty() || !matches!(self.targets, Select::Names(_)) {
            return Ok(true);
        }
        let Some(layer) = LayerName::of(module) else { return Ok(false) };
        let mut inside = self.containers.is_empty();
        for container in &self.containers {
            inside |= container.matches(layer.container)?;
        }
        Ok(inside && self.layers.contains(&layer.number))
    }
}

impl Select {
    fn selects(&self, module: &str) -> Result<bool> {
        match self {
            Self::Nothing => Ok(false),
            Self::Names(names) => Ok(names.iter().any(|name| is_or_ends(module, name))),
            Self::Pattern(pattern) => pattern.matches(module),
        }
    }
}

/// Whether `module` is `name`, or ends with it after a dot.
fn is_or_ends(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether the weight belongs to the module `name` or to a module in it.
fn holds(weight: &str, name: &str) -> bool {
    format!(".{weight}").contains(&format!(".{name}."))
}

fn near_end(name: &str, base: &Base) -> String {
    let ends: BTreeSet<&str> = base.modules().filter_map(|module| module.rsplit('.').next()).collect();
    if ends.contains(name) {
        return String::new();
    }
    nearest(name, ends).map_or_else(String::new, |near| format!("; the nearest in the model is `{near}`"))
}
