//! The only place that parses YAML: it turns text into a tree of values, each with its place in the file.
//! Knows nothing of what the keys mean.

mod fields;
mod problem;

pub use fields::Fields;
pub use problem::Problem;

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeserializeDerive, Serialize};
use serde_saphyr::{Location, Spanned};

/// A place in a file; both numbers begin at 1, as editors count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct At {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl From<Location> for At {
    fn from(location: Location) -> Self {
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

/// A value and its place in the file.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where the value begins.
    pub at: At,
    /// The value.
    pub value: Value,
}

/// The kinds of values in YAML.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are YAML's own")]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

/// A key of a map and its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where the key begins.
    pub at: At,
    /// The key as text, even if it looks like a number.
    pub text: String,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Tree {
    /// Reads one YAML document. An empty one is `Null`.
    ///
    /// # Errors
    /// Fails when `text` is not valid YAML, when a map has a key twice, or when a whole number is too large.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        serde_saphyr::from_str::<Self>(text).map_err(|error| {
            let at = error.location().map_or(At { line: 1, column: 1 }, At::from);
            Problem::new(at, without_place(&error.without_snippet().to_string()))
        })
    }

    /// Reads one line of JSON. Every value in it gets the same place: the beginning of `line`.
    ///
    /// # Errors
    /// Fails when `text` is not valid JSON. The problem is at the column where the parser stopped.
    pub fn parse_json(text: &str, line: u32) -> Result<Self, Problem> {
        let at = At { line, column: 1 };
        serde_json::from_str(text).map(|value| Self::from_json(value, at)).map_err(|error| {
            let column = u32::try_from(error.column()).unwrap_or(u32::MAX).max(1);
            let message = error.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            Problem::new(At { line, column }, message)
        })
    }

    fn from_json(value: serde_json::Value, at: At) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
            }
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(items) => {
                Value::List(items.into_iter().map(|item| Self::from_json(item, at)).collect())
            }
            serde_json::Value::Object(entries) => {
                let entry = |(text, value)| (Key { at, text }, Self::from_json(value, at));
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Self { at, value }
    }

    /// Names the kind of the value, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Returns the value as JSON. The keys keep the order in which they are written.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|(key, tree)| (key.text.clone(), tree.to_json())).collect()
            }
        }
    }
}

/// Removes places such as `line 3 column 5: ` from a message of the parser: [`Problem`] shows the place
/// itself.
/// The message about duplicate keys is rewritten, because it ends with advice for programmers.
fn without_place(message: &str) -> String {
    let message = match message.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => message,
    };
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match message.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split_once(',')) {
        Some((key, _)) => format!("the key `{key}` is written twice"),
        None => message.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom(format!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            map.push((Key { at: key.referenced.into(), text: key.value }, entries.next_value()?));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_places() {
        let tree = Tree::parse("nodes:\n  8bit: {bits: 8}\n").unwrap();
        let Value::Map(top) = tree.value else { panic!() };
        let Value::Map(nodes) = &top[0].1.value else { panic!() };
        assert_eq!((nodes[0].0.text.as_str(), nodes[0].0.at), ("8bit", At { line: 2, column: 3 }));
        let Value::Map(fields) = &nodes[0].1.value else { panic!() };
        assert_eq!((&fields[0].1.value, fields[0].1.at), (&Value::Int(8), At { line: 2, column: 16 }));
    }

    #[test]
    fn refuses_a_key_written_twice() {
        let problem = Tree::parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(problem.to_string(), "2:1: the key `a` is written twice");
    }
}
