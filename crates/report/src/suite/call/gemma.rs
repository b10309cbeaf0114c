//! Gemma's calls: `call:name{key:value}` with marks around texts.
//! Knows nothing of other forms.

use serde_json::{Map, Value as Json};

use super::schema::object;
use super::{Call, python};

/// The marks of a form.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::suite) struct Marks {
    /// What begins a call.
    pub(super) open: &'static str,
    /// What is before and after a text.
    text: &'static str,
}

pub(super) const GEMMA4: Marks = Marks { open: "<|tool_call>", text: "<|\"|>" };
pub(super) const FUNCTION_GEMMA: Marks = Marks { open: "<start_function_call>", text: "<escape>" };

/// How deep values may be nested.
const DEPTH: usize = 64;

impl Marks {
    /// Returns the calls in a text.
    pub(super) fn calls(&self, text: &str) -> Vec<Call> {
        let Some((_, rest)) = text.split_once(self.open) else { return Vec::new() };
        rest.split("call:").skip(1).filter_map(|part| self.call(part)).collect()
    }

    fn call(&self, part: &str) -> Option<Call> {
        let at = part.find('{')?;
        let name = part[..at].trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let (arguments, _) = self.map(&part[at..], 0).filter(|_| is_name)?;
        Some(Call { name: name.to_owned(), arguments: Some(arguments) })
    }

    /// Reads `{key:value,…}` at the front of a text. Returns it with the rest of the text.
    fn map<'a>(&self, text: &'a str, depth: usize) -> Option<(Json, &'a str)> {
        let mut rest = text.strip_prefix('{')?.trim_start();
        let mut values = Map::new();
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                return Some((object(values), after));
            }
            let (key, after) = rest.split_once(':')?;
            let key = key.trim().trim_matches('"').replace(self.text, "");
            let (value, after) = self.value(after, depth + 1)?;
            values.insert(key, value);
            let after = after.trim_start();
            rest = after.strip_prefix(',').unwrap_or(after).trim_start();
        }
    }

    fn list<'a>(&self, text: &'a str, depth: usize) -> Option<(Json, &'a str)> {
        let mut rest = text.strip_prefix('[')?.trim_start();
        let mut values = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(']') {
                return Some((Json::Array(values), after));
            }
            let (value, after) = self.value(rest, depth + 1)?;
            values.push(value);
            let trimmed = after.trim_start();
            let next = trimmed.strip_prefix(',').unwrap_or(trimmed).trim_start();
            // A `}` is no value, and it does not end a list.
            rest = Some(next).filter(|next| next.len() < rest.len())?;
        }
    }

    fn value<'a>(&self, text: &'a str, depth: usize) -> Option<(Json, &'a str)> {
        let text = text.trim_start();
        if depth > DEPTH {
            return None;
        }
        if let Some(inner) = text.strip_prefix(self.text) {
            let (value, after) = inner.split_once(self.text)?;
            return Some((Json::String(value.to_owned()), after));
        }
        match text.chars().next()? {
            '{' => self.map(text, depth),
            '[' => self.list(text, depth),
            _ => {
                let end = text.find([',', '}', ']'])?;
                let (word, after) = text.split_at(end);
                let value = python::literal(word).unwrap_or_else(|| Json::String(word.trim().to_owned()));
                Some((value, after))
            }
        }
    }
}
