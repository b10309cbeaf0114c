//! Values as Python or JSON writes them: `{'a': [1, True, None]}`, `{"a": [1, true, null]}`.
//! Knows nothing of calls.

use serde_json::{Map, Number, Value as Json};

/// How deep values may be nested.
const DEPTH: usize = 64;

/// Reads a whole text as one value.
pub(super) fn literal(text: &str) -> Option<Json> {
    let text = text.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut reader = Reader::new(text);
    let value = reader.value(0)?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

/// Reads values and words from the front of a text.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a text from the front, with white space before it.
    pub(super) fn take(&mut self, text: &str) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Takes a name, which may have dots.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        self.space();
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        self.rest = rest;
        starts.then_some(name)
    }

    /// Takes a value.
    pub(super) fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        if depth > DEPTH {
            return None;
        }
        match self.rest.chars().next()? {
            '\'' | '"' => self.text().map(Json::String),
            '[' => self.list('[', "]", depth).map(Json::Array),
            '(' => self.list('(', ")", depth).map(Json::Array),
            '{' => self.map(depth),
            '-' | '+' | '.' | '0'..='9' => self.number(),
            _ => match self.name()? {
                "True" | "true" => Some(Json::Bool(true)),
                "False" | "false" => Some(Json::Bool(false)),
                "None" | "null" => Some(Json::Null),
                _ => None,
            },
        }
    }

    fn list(&mut self, open: char, close: &str, depth: usize) -> Option<Vec<Json>> {
        self.rest = self.rest.strip_prefix(open)?;
        let mut values = Vec::new();
        loop {
            if self.take(close).is_some() {
                return Some(values);
            }
            values.push(self.value(depth + 1)?);
            if self.take(",").is_none() {
                self.take(close)?;
                return Some(values);
            }
        }
    }

    fn map(&mut self, depth: usize) -> Option<Json> {
        self.rest = self.rest.strip_prefix('{')?;
        let mut values = Map::new();
        loop {
            if self.take("}").is_some() {
                return Some(Json::Object(values));
            }
            let key = match self.value(depth + 1)? {
                Json::String(key) => key,
                other => other.to_string(),
            };
            self.take(":")?;
            let value = self.value(depth + 1)?;
            values.insert(key, value);
            if self.take(",").is_none() {
                self.take("}")?;
                return Some(Json::Object(values));
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let plain = word.replace('_', "");
        if let Ok(whole) = plain.parse::<i64>() {
            return Some(Json::from(whole));
        }
        plain.parse::<f64>().ok().and_then(Number::from_f64).map(Json::Number)
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    code @ ('x' | 'u' | 'U') => {
                        let length = match code {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        let digits: String = chars.by_ref().take(length).map(|(_, c)| c).collect();
                        text.push(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)?);
                    }
                    '\n' => {}
                    other if "\\'\"".contains(other) => text.push(other),
                    other => text.extend(['\\', other]),
                },
                _ => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_python_and_of_json() {
        assert_eq!(
            literal("{'a': [1, True, None], \"b\": (2.5, 'it\\'s\\n')}"),
            Some(json!({"a": [1, true, null], "b": [2.5, "it's\n"]}))
        );
        assert_eq!(literal("[true, null, -3]"), Some(json!([true, null, -3])));
        assert_eq!(literal("'\\u00e9\\x41'"), Some(json!("éA")));
        assert_eq!(literal("1_000"), Some(json!(1000)));
        for text in ["", "a", "[1", "{'a'}", "'a", "1 2", "[1,,2]"] {
            assert_eq!(literal(text), None, "{text}");
        }
        assert_eq!(literal(&"[".repeat(1000)), None);
    }
}
