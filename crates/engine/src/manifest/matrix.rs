//! Sweeps: a node with a `matrix` stands for one node per combination of values.
//! Knows nothing of what the values mean.
//!
//! `"{bits}bit": {stage: quantize, model: m, matrix: {bits: [8, 6]}}` stands for `8bit: {…, bits: 8}` and
//! `6bit: {…, bits: 6}`. If a value of the node contains a key of the matrix in braces, the key is replaced
//! there. Otherwise the key becomes a field of the node.

use std::collections::HashMap;

use text::nearest;
use text::yaml::{At, Fields, Key, Problem, Tree, Value};

/// The most nodes that one matrix may stand for.
const MOST: usize = 1000;

/// The variants of each node with a `matrix`, by the name of the node as written.
#[derive(Default)]
pub(super) struct Patterns(HashMap<String, Vec<Variant>>);

/// One combination of values: for each key, its value and the text of the value.
#[derive(Clone)]
pub(super) struct Variant(Vec<(String, Tree, String)>);

impl Patterns {
    /// Returns the variants of the node with this name. If it has no `matrix`, returns one variant that
    /// replaces nothing.
    pub(super) fn variants(&self, name: &str) -> Vec<Variant> {
        self.0.get(name).cloned().unwrap_or_else(|| vec![Variant(Vec::new())])
    }

    /// Returns the nodes that `key` and `tree` stand for: just themselves if there is no `matrix`.
    pub(super) fn expand(&mut self, key: Key, tree: Tree) -> Result<Vec<(Key, Tree)>, Problem> {
        let Value::Map(mut entries) = tree.value else { return Ok(vec![(key, tree)]) };
        let Some(place) = entries.iter().position(|(key, _)| key.text == "matrix") else {
            return Ok(vec![(key, Tree { value: Value::Map(entries), at: tree.at })]);
        };
        let (own, matrix) = entries.remove(place);
        let variants = variants(matrix, own.at)?;
        let mut nodes = Vec::with_capacity(variants.len());
        for variant in &variants {
            let entries = variant.node(&entries)?;
            let name = Key { at: key.at, text: variant.fill(&key.text) };
            if nodes.iter().any(|(other, _): &(Key, _)| other.text == name.text) {
                let words: Vec<_> = variant.0.iter().map(|(word, ..)| format!("{{{word}}}")).collect();
                let message = format!(
                    "the matrix makes two nodes called `{}`: the name needs {}",
                    name.text,
                    words.join(" and ")
                );
                return Err(Problem::new(key.at, message));
            }
            nodes.push((name, Tree { at: tree.at, value: Value::Map(entries) }));
        }
        self.0.insert(key.text, variants);
        Ok(nodes)
    }
}

impl Variant {
    /// Replaces each key in braces with the text of its value. Double braces are left as they are: a command means
    /// single braces by them.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(index) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(index);
            filled += before;
            let word = self.0.iter().find_map(|(word, _, shown)| {
                Some((shown, after.strip_prefix('{')?.strip_prefix(word.as_str())?.strip_prefix('}')?))
            });
            let length = if after.starts_with("{{") || after.starts_with("}}") { 2 } else { 1 };
            let (kept, next) = after.split_at(length);
            filled += word.map_or(kept, |(shown, _)| shown);
            rest = word.map_or(next, |(_, next)| next);
        }
        filled + rest
    }

    /// Returns the fields of the node that this variant makes.
    fn node(&self, entries: &[(Key, Tree)]) -> Result<Vec<(Key, Tree)>, Problem> {
        let mut node: Vec<_> =
            entries.iter().map(|(key, tree)| (key.clone(), self.fill_tree(tree))).collect();
        for (word, value, _) in &self.0 {
            if let Some((key, _)) = node.iter().find(|(key, _)| key.text == *word) {
                return Err(Problem::new(key.at, format!("`{word}` is in the matrix already")));
            }
            if !entries.iter().any(|(_, tree)| self.is_named(tree, word)) {
                if let Some((at, place)) = entries.iter().find_map(|(_, tree)| misspelt(tree, word)) {
                    let message =
                        format!("`{{{place}}}` is no key of the matrix; did you mean `{{{word}}}`?");
                    return Err(Problem::new(at, message));
                }
                node.push((Key { at: value.at, text: word.clone() }, value.clone()));
            }
        }
        Ok(node)
    }

    /// Whether a text or a key in `tree` has a place for `word`.
    fn is_named(&self, tree: &Tree, word: &str) -> bool {
        let alone = Self(self.0.iter().filter(|(own, ..)| own == word).cloned().collect());
        let has = |text: &str| alone.fill(text) != text;
        match &tree.value {
            Value::Text(text) => has(text),
            Value::List(items) => items.iter().any(|item| self.is_named(item, word)),
            Value::Map(entries) => {
                entries.iter().any(|(key, tree)| has(&key.text) || self.is_named(tree, word))
            }
            _ => false,
        }
    }

    fn fill_tree(&self, tree: &Tree) -> Tree {
        let value = match &tree.value {
            Value::Text(text) => Value::Text(self.fill(text)),
            Value::List(items) => Value::List(items.iter().map(|item| self.fill_tree(item)).collect()),
            Value::Map(entries) => {
                let entry = |(key, tree): &(Key, Tree)| {
                    (Key { at: key.at, text: self.fill(&key.text) }, self.fill_tree(tree))
                };
                Value::Map(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        };
        Tree { at: tree.at, value }
    }
}

/// Returns a place in a text of `tree` that looks like a misspelt `word`, if there is one.
fn misspelt<'t>(tree: &'t Tree, word: &str) -> Option<(At, &'t str)> {
    let in_text = |text: &'t str| {
        let places = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        places.into_iter().find(|place| nearest(place, [word]).is_some())
    };
    match &tree.value {
        Value::Text(text) => in_text(text).map(|place| (tree.at, place)),
        Value::List(items) => items.iter().find_map(|item| misspelt(item, word)),
        Value::Map(entries) => entries.iter().find_map(|(_, tree)| misspelt(tree, word)),
        _ => None,
    }
}

/// Returns every combination of values; the last key changes fastest.
fn variants(matrix: Tree, at: At) -> Result<Vec<Variant>, Problem> {
    let keys = Fields::open(matrix, "`matrix`")?.rest();
    if keys.is_empty() {
        return Err(Problem::new(at, "`matrix` is empty; it has lists, such as `bits: [8, 6]`"));
    }
    let mut variants = vec![Variant(Vec::new())];
    for (key, tree) in keys {
        let Value::List(values) = tree.value else {
            let message = format!("`{}` must be a list of values, not {}", key.text, tree.kind());
            return Err(Problem::new(tree.at, message));
        };
        if values.is_empty() || variants.len().saturating_mul(values.len()) > MOST {
            let message = format!("a matrix must make 1 to {MOST} nodes");
            return Err(Problem::new(tree.at, message));
        }
        let shown = values.iter().map(show).collect::<Result<Vec<_>, _>>()?;
        let with = |variant: &Variant, value: &Tree, shown: &String| {
            let mut variant = variant.clone();
            variant.0.push((key.text.clone(), value.clone(), shown.clone()));
            variant
        };
        let each = |variant: &Variant| {
            values.iter().zip(&shown).map(|(value, shown)| with(variant, value, shown)).collect::<Vec<_>>()
        };
        variants = variants.iter().flat_map(each).collect();
    }
    Ok(variants)
}

/// Returns the text of a value, which replaces its key in names.
fn show(value: &Tree) -> Result<String, Problem> {
    match &value.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        // With the fraction, as it is written: 5.0, not 5.
        Value::Float(number) => Ok(format!("{number:?}")),
        _ => Err(Problem::new(value.at, format!("a matrix has texts and numbers, not {}", value.kind()))),
    }
}
