//! Translates the names of modules between an adapter and a model that name the same modules differently.
//!
//! A wrapper for vision and text is `language_model.model.layers…` in mlx-lm, `model.language_model.layers…` in
//! transformers, and its text part alone is `model.layers…`. An adapter keeps the names of the class that it was
//! trained with.
//! Knows nothing of tensors.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::fit::Base;
use crate::arch::LayerName;

/// How a model's names become those of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// What the names of the layers, and of what is beside them, begin with: in the adapter, and in the model.
    prefixes: [String; 2],
    /// Modules elsewhere, such as the output head, with their names in the model.
    others: Vec<[String; 2]>,
}

impl fmt::Display for Renaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [adapter, model] = &self.prefixes;
        write!(f, "the adapter's names begin with `{adapter}layers`, those of the model with `{model}layers`")
    }
}

impl Renaming {
    /// Returns what the model's name of a module or of a weight is in the adapter.
    pub(super) fn translate<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let module = name.strip_suffix(".weight");
        if let Some([adapter, _]) =
            self.others.iter().find(|[_, model]| Some(model.as_str()) == module.or(Some(name)))
        {
            return Cow::Owned(if module.is_some() { format!("{adapter}.weight") } else { adapter.clone() });
        }
        let [adapter, model] = &self.prefixes;
        match name.strip_prefix(model.as_str()) {
            Some(rest) => Cow::Owned(format!("{adapter}{rest}")),
            None => Cow::Borrowed(name),
        }
    }

    /// Returns the renamings that may place the modules of an adapter, which are called `names`, in a model. The
    /// layers of the adapter lie in one list, and so they do in each of these.
    pub(super) fn possible(names: &[String], base: &Base) -> Vec<Self> {
        let lists: BTreeSet<&str> =
            names.iter().filter_map(|name| Some(LayerName::of(name)?.container)).collect();
        let mut lists = lists.into_iter();
        let (Some(list), None) = (lists.next(), lists.next()) else { return Vec::new() };
        let (prefix, word) = split(list);
        let beside = names.iter().filter_map(|name| name.strip_suffix(".weight"));
        let beside: Vec<_> = beside.filter(|name| prefix.is_empty() || !name.starts_with(prefix)).collect();
        let beside = beside.into_iter().filter(|name| LayerName::of(name).is_none());
        let others: Vec<_> =
            beside.filter_map(|name| Some([name.to_owned(), base.module_below(name)?])).collect();
        let places = base.lists().filter_map(|other| {
            let (place, last) = split(other);
            (last == word && place != prefix).then(|| place.to_owned())
        });
        places.map(|place| Self { prefixes: [prefix.to_owned(), place], others: others.clone() }).collect()
    }
}

/// Splits the name of a list of layers before its last word.
fn split(list: &str) -> (&str, &str) {
    let at = list.rfind('.').map_or(0, |dot| dot + 1);
    list.split_at(at)
}
