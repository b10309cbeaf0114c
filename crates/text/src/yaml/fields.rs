//! Takes the fields of a map one by one; a field that nobody takes is an unknown key, which is an error.
//! Knows nothing of what the fields are for.

use std::collections::HashSet;

use super::{At, Key, Problem, Tree, Value};
use crate::nearest;

/// The fields of one map that nobody has taken yet.
pub struct Fields {
    at: At,
    owner: String,
    entries: Vec<(Key, Tree)>,
    asked: Vec<&'static str>,
}

impl Fields {
    /// Opens a map; `owner` names it in messages, such as "node `8bit`".
    ///
    /// # Errors
    /// Fails when `tree` is not a map.
    pub fn open(tree: Tree, owner: impl Into<String>) -> Result<Self, Problem> {
        let owner = owner.into();
        match tree.value {
            Value::Map(entries) => Ok(Self { at: tree.at, owner, entries, asked: Vec::new() }),
            _ => Err(Problem::new(tree.at, format!("{owner} must be a map, not {}", tree.kind()))),
        }
    }

    /// Returns where the map begins.
    pub fn at(&self) -> At {
        self.at
    }

    /// Takes the value of `name`; `None` if the key is absent or its value is null.
    pub fn take(&mut self, name: &'static str) -> Option<Tree> {
        self.asked.push(name);
        let index = self.entries.iter().position(|(key, _)| key.text == name)?;
        let (_, tree) = self.entries.remove(index);
        (tree.value != Value::Null).then_some(tree)
    }

    /// Takes the value of `name`, which is required.
    ///
    /// # Errors
    /// Fails when `name` is absent or null.
    pub fn need(&mut self, name: &'static str) -> Result<Tree, Problem> {
        self.take(name).ok_or_else(|| self.missing(name))
    }

    /// Returns the problem that `name` is missing. If a key looks like a misspelt `name`, the problem is that
    /// this
    /// key is unknown.
    pub fn missing(&self, name: &str) -> Problem {
        let near = self.entries.iter().find(|(key, _)| nearest(&key.text, [name]).is_some());
        match near {
            Some((key, _)) => self.unknown(key, &format!("did you mean `{name}`?")),
            None => Problem::new(self.at, format!("{} needs `{name}`", self.owner)),
        }
    }

    /// Returns the problem of a key that looks like a misspelt `name`, if there is one.
    pub fn misspelt(&self, name: &str) -> Option<Problem> {
        let near =
            self.entries.iter().find(|(key, _)| key.text != name && nearest(&key.text, [name]).is_some());
        near.map(|(key, _)| self.unknown(key, &format!("did you mean `{name}`?")))
    }

    fn unknown(&self, key: &Key, hint: &str) -> Problem {
        Problem::new(key.at, format!("unknown key `{}` in {}; {hint}", key.text, self.owner))
    }

    /// Takes a required text and its place. A whole number counts as text.
    ///
    /// # Errors
    /// Fails when `name` is absent or null, or is neither a text nor a whole number.
    pub fn text(&mut self, name: &'static str) -> Result<(String, At), Problem> {
        let tree = self.need(name)?;
        as_text(tree, name)
    }

    /// Takes an optional text and its place. A whole number counts as text.
    ///
    /// # Errors
    /// Fails when the value is neither a text nor a whole number.
    pub fn optional_text(&mut self, name: &'static str) -> Result<Option<(String, At)>, Problem> {
        self.take(name).map(|tree| as_text(tree, name)).transpose()
    }

    /// Takes an optional text that must be one of `words`, and returns what is paired with that word.
    ///
    /// # Errors
    /// Fails when the value is not a text or is not one of `words`.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some((text, at)) = self.optional_text(name)? else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let known = words.iter().map(|(word, _)| *word);
        let list = known.clone().collect::<Vec<_>>().join(", ");
        let hint = nearest(&text, known).map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
        Err(Problem::new(at, format!("`{name}` must be one of {list}, not `{text}`{hint}")))
    }

    /// Takes a whole number that must be one of `choices`. If `name` is absent, it is `default`.
    ///
    /// # Errors
    /// Fails when the value is not one of `choices`, or when `name` is absent and there is no `default`.
    pub fn choice(
        &mut self,
        name: &'static str,
        choices: &[usize],
        default: Option<usize>,
    ) -> Result<usize, Problem> {
        let tree = match (self.take(name), default) {
            (Some(tree), _) => tree,
            (None, Some(value)) => return Ok(value),
            (None, None) => return Err(self.missing(name)),
        };
        let list = choices.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let shown = match &tree.value {
            Value::Int(number) => {
                if let Some(choice) = choices.iter().find(|choice| i64::try_from(**choice) == Ok(*number)) {
                    return Ok(*choice);
                }
                number.to_string()
            }
            _ => tree.kind().to_owned(),
        };
        Err(Problem::new(tree.at, format!("`{name}` must be one of {list}, not {shown}: MLX has no other")))
    }

    /// Whether `name` is present, not null, and not taken yet.
    pub fn has(&mut self, name: &'static str) -> bool {
        self.asked.push(name);
        self.entries.iter().any(|(key, tree)| key.text == name && tree.value != Value::Null)
    }

    /// Whether the value of `name` is the text `word`.
    pub fn is_word(&self, name: &str, word: &str) -> bool {
        let is_it =
            |(key, tree): &(Key, Tree)| key.text == name && tree.value == Value::Text(word.to_owned());
        self.entries.iter().any(is_it)
    }

    /// Takes a boolean; absent means false.
    ///
    /// # Errors
    /// Fails when the value is not a boolean.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        let Some(tree) = self.take(name) else { return Ok(false) };
        match tree.value {
            Value::Bool(value) => Ok(value),
            _ => Err(Problem::new(tree.at, format!("`{name}` must be true or false, not {}", tree.kind()))),
        }
    }

    /// Takes an optional whole number of at least 1.
    ///
    /// # Errors
    /// Fails when the value is not a whole number of at least 1.
    pub fn count(&mut self, name: &'static str) -> Result<Option<usize>, Problem> {
        let Some(tree) = self.take(name) else { return Ok(None) };
        match tree.value {
            Value::Int(number) if number >= 1 => Ok(usize::try_from(number).ok()),
            _ => Err(Problem::new(tree.at, format!("`{name}` must be a whole number of at least 1"))),
        }
    }

    /// Takes an optional whole number of at least 0.
    ///
    /// # Errors
    /// Fails when the value is not a whole number of at least 0.
    pub fn whole(&mut self, name: &'static str) -> Result<Option<usize>, Problem> {
        let Some(tree) = self.take(name) else { return Ok(None) };
        match tree.value {
            Value::Int(number) if number >= 0 => Ok(usize::try_from(number).ok()),
            _ => Err(Problem::new(tree.at, format!("`{name}` must be a whole number of at least 0"))),
        }
    }

    /// Takes an optional number greater than 0.
    ///
    /// # Errors
    /// Fails when the value is not a finite number greater than 0.
    pub fn positive(&mut self, name: &'static str) -> Result<Option<f64>, Problem> {
        let Some(tree) = self.take(name) else { return Ok(None) };
        let number = match tree.value {
            Value::Int(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        };
        match number.filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::new(tree.at, format!("`{name}` must be a number greater than 0"))),
        }
    }

    /// Takes the items of a list; absent means no items.
    ///
    /// # Errors
    /// Fails when the value is not a list, or is an empty one.
    pub fn list(&mut self, name: &'static str) -> Result<Vec<Tree>, Problem> {
        let Some(tree) = self.take(name) else { return Ok(Vec::new()) };
        match tree.value {
            Value::List(items) if !items.is_empty() => Ok(items),
            Value::List(_) => Err(Problem::new(tree.at, format!("`{name}` is empty"))),
            _ => Err(Problem::new(tree.at, format!("`{name}` must be a list, not {}", tree.kind()))),
        }
    }

    /// Whether no field is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all fields that are left, in the order in which they are written.
    pub fn rest(mut self) -> Vec<(Key, Tree)> {
        std::mem::take(&mut self.entries)
    }

    /// Checks that every field was taken.
    ///
    /// # Errors
    /// Fails on the first field that nobody took. The message suggests the most similar known key, or lists
    /// all
    /// known keys.
    pub fn finish(self) -> Result<(), Problem> {
        let Some((key, _)) = self.entries.first() else { return Ok(()) };
        let hint = match nearest(&key.text, self.asked.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => {
                let mut seen = HashSet::new();
                let known: Vec<_> = self.asked.iter().copied().filter(|word| seen.insert(*word)).collect();
                format!("it may have {}", known.join(", "))
            }
        };
        Err(self.unknown(key, &hint))
    }
}

fn as_text(tree: Tree, name: &str) -> Result<(String, At), Problem> {
    match tree.value {
        Value::Text(text) => Ok((text, tree.at)),
        // YAML reads a node name such as `8` as a number, but it is a name.
        Value::Int(number) => Ok((number.to_string(), tree.at)),
        _ => Err(Problem::new(tree.at, format!("`{name}` must be a text, not {}", tree.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::open(Tree::parse(text).unwrap(), "node `q`").unwrap()
    }

    #[test]
    fn names_the_nearest_key() {
        let mut map = fields("{bit: 8, model: m}");
        map.text("model").unwrap();
        map.take("bits");
        let problem = map.finish().unwrap_err();
        assert_eq!(problem.message, "unknown key `bit` in node `q`; did you mean `bits`?");
    }

    #[test]
    fn a_misspelt_key_is_not_a_missing_one() {
        let problem = fields("{bit: 8}").choice("bits", &[4, 8], None).unwrap_err();
        assert_eq!(problem.message, "unknown key `bit` in node `q`; did you mean `bits`?");
        assert_eq!(fields("{a: 8}").text("model").unwrap_err().message, "node `q` needs `model`");
    }

    #[test]
    fn lists_the_choices() {
        let problem = fields("{bits: 7}").choice("bits", &[4, 8], None).unwrap_err();
        assert_eq!(problem.message, "`bits` must be one of 4, 8, not 7: MLX has no other");
        assert_eq!(fields("{a: 1}").choice("bits", &[4, 8], Some(4)), Ok(4));
    }
}
