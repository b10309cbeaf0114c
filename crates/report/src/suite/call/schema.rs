//! The types that tools declare for their arguments, for forms that write every value as a text.
//! Knows nothing of those forms.

use serde_json::{Map, Number, Value as Json};

use super::python;

/// The tools that a model was given, as `transformers` takes them.
pub(super) struct Schemas<'a>(pub(super) Option<&'a Json>);

impl Schemas<'_> {
    /// Returns the declared types of an argument; empty if the tool or the argument is not declared.
    fn types(&self, tool: &str, argument: &str) -> Vec<String> {
        let tools = self.0.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let function = |tool: &'_ Json| tool.get("function").unwrap_or(tool).clone();
        let mut functions = tools.iter().map(function);
        let declared = functions.find(|function| function.get("name").and_then(Json::as_str) == Some(tool));
        let properties = declared.and_then(|function| function.pointer("/parameters/properties").cloned());
        let mut types = Vec::new();
        if let Some(schema) = properties.and_then(|properties| properties.get(argument).cloned()) {
            collect(&schema, 0, &mut types);
        }
        types
    }

    /// Returns a value that is written as a text: of its declared type, or a text if none is declared.
    pub(super) fn typed(&self, tool: &str, argument: &str, text: &str) -> Json {
        let types = self.types(tool, argument);
        if text.eq_ignore_ascii_case("null") {
            return Json::Null;
        }
        let is = |words: &[&str]| types.iter().any(|kind| words.iter().any(|word| kind.starts_with(word)));
        // The most particular type first, as in mlx-lm.
        let whole = || text.trim().parse::<i64>().ok().map(Json::from);
        let number = || number(text.trim());
        let flag = || match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(Json::Bool(true)),
            "false" | "0" | "no" | "off" => Some(Json::Bool(false)),
            _ => None,
        };
        let found = match () {
            () if is(&["int", "uint", "long", "short", "unsigned"]) => whole().or_else(number),
            () if is(&["num", "float", "double"]) => number(),
            () if is(&["bool", "binary"]) => flag(),
            () if is(&["object", "array", "arr", "dict", "list"]) => python::literal(text),
            () => None,
        };
        found.unwrap_or_else(|| Json::String(text.to_owned()))
    }

    /// Returns a value that is written as a text: a text if that is declared, otherwise what it reads as.
    pub(super) fn read(&self, tool: &str, argument: &str, text: &str) -> Json {
        let is_text = self.types(tool, argument).iter().any(|kind| kind == "string");
        if is_text { None } else { python::literal(text) }.unwrap_or_else(|| Json::String(text.to_owned()))
    }
}

/// How deep alternatives may be nested in a schema.
const DEPTH: usize = 8;

fn collect(schema: &Json, depth: usize, types: &mut Vec<String>) {
    if depth > DEPTH {
        return;
    }
    let texts = |value: &Json| match value {
        Json::Array(list) => list.iter().filter_map(Json::as_str).map(str::to_lowercase).collect(),
        other => other.as_str().map(str::to_lowercase).into_iter().collect::<Vec<_>>(),
    };
    types.extend(schema.get("type").map(texts).unwrap_or_default());
    for key in ["anyOf", "oneOf", "allOf"] {
        for choice in schema.get(key).and_then(Json::as_array).into_iter().flatten() {
            collect(choice, depth + 1, types);
        }
    }
}

/// Returns a number; a whole one if it is.
fn number(text: &str) -> Option<Json> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    #[expect(clippy::cast_possible_truncation, reason = "the bound keeps it in range")]
    let whole = (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64);
    whole.map(Json::from).or_else(|| Number::from_f64(value).map(Json::Number))
}

/// Returns an object of arguments.
pub(super) fn object(arguments: impl IntoIterator<Item = (String, Json)>) -> Json {
    Json::Object(arguments.into_iter().collect::<Map<_, _>>())
}
