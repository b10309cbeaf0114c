//! Writes JSON text as Python's `json.dumps` does, which chat templates expect.
//! Knows nothing of templates.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// The arguments of `json.dumps` that chat templates use.
pub(crate) struct Style {
    pub(crate) ensure_ascii: bool,
    pub(crate) indent: Option<usize>,
    pub(crate) item_separator: String,
    pub(crate) key_separator: String,
    pub(crate) sort_keys: bool,
}

impl Style {
    /// Returns a style with Python's default separators, which depend on the indent. Keys are not sorted, and
    /// non-ASCII characters are not escaped.
    pub(crate) fn new(indent: Option<usize>) -> Self {
        let item_separator = if indent.is_some() { "," } else { ", " };
        Self {
            ensure_ascii: false,
            indent,
            item_separator: item_separator.to_owned(),
            key_separator: ": ".to_owned(),
            sort_keys: false,
        }
    }

    pub(crate) fn dumps(&self, value: &Value) -> String {
        let mut out = String::new();
        self.write(&mut out, value, 0);
        out
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) {
        match value {
            Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
            Value::Number(number) => out.push_str(&python_number(number)),
            Value::String(text) => self.write_string(out, text),
            Value::Array(items) => self.write_array(out, items, depth),
            Value::Object(entries) => self.write_object(out, entries, depth),
        }
    }

    fn write_array(&self, out: &mut String, items: &[Value], depth: usize) {
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            self.start_item(out, i, depth + 1);
            self.write(out, item, depth + 1);
        }
        self.end(out, items.is_empty(), depth);
        out.push(']');
    }

    fn write_object(&self, out: &mut String, entries: &Map<String, Value>, depth: usize) {
        let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
        if self.sort_keys {
            entries.sort_by_key(|(key, _)| *key);
        }
        out.push('{');
        for (i, (key, value)) in entries.iter().enumerate() {
            self.start_item(out, i, depth + 1);
            self.write_string(out, key);
            out.push_str(&self.key_separator);
            self.write(out, value, depth + 1);
        }
        self.end(out, entries.is_empty(), depth);
        out.push('}');
    }

    fn start_item(&self, out: &mut String, i: usize, depth: usize) {
        if i > 0 {
            out.push_str(&self.item_separator);
        }
        self.new_line(out, depth);
    }

    fn end(&self, out: &mut String, empty: bool, depth: usize) {
        if !empty {
            self.new_line(out, depth);
        }
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    }

    fn write_string(&self, out: &mut String, text: &str) {
        // serde_json and Python use the same escapes, except for ensure_ascii.
        let quoted = Value::from(text).to_string();
        if !self.ensure_ascii {
            out.push_str(&quoted);
            return;
        }
        for unit in quoted.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => out.push(char::from(byte)),
                // Writing to a string cannot fail.
                _ => _ = write!(out, "\\u{unit:04x}"),
            }
        }
    }
}

/// Writes a number as Python does. Rust differs only in the form of an exponent: its 1e16 is 1e+16 in Python.
fn python_number(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let text = format!("{float:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_has_spaces_and_no_html_escapes() {
        let value = json!({"b": [1, 2.0, null], "a": "<é>\n", "c": {}});
        assert_eq!(Style::new(None).dumps(&value), r#"{"b": [1, 2.0, null], "a": "<é>\n", "c": {}}"#);
    }

    #[test]
    fn an_indent_breaks_lines_but_not_empty_ones() {
        let text = Style::new(Some(2)).dumps(&json!({"a": [1, 2], "b": []}));
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": []\n}");
    }

    #[test]
    fn ensure_ascii_writes_surrogate_pairs() {
        let style = Style { ensure_ascii: true, ..Style::new(None) };
        assert_eq!(style.dumps(&json!("é😀")), r#""\u00e9\ud83d\ude00""#);
    }

    #[test]
    fn floats_are_pythons() {
        let floats = json!([1e16, 1e-5, 1e-4, 0.1, 1e15, 1.5e300]);
        let text = Style::new(None).dumps(&floats);
        assert_eq!(text, "[1e+16, 1e-05, 0.0001, 0.1, 1000000000000000.0, 1.5e+300]");
    }
}
