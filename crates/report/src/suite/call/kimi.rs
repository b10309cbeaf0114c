//! Kimi's calls: K2 writes `functions.name:0` and JSON, K3 elements with attributes.
//! Knows nothing of other forms.

use serde_json::Value as Json;

use super::schema::object;
use super::{Call, python};

/// What begins the calls of an answer of K2.
pub(super) const MARK: &str = "<|tool_calls_section_begin|>";

/// What begins the calls of an answer of K3.
pub(super) const MARK_K3: &str = "<|open|>tools<|sep|>";

/// Returns the calls in an answer of K2.
pub(super) fn calls(text: &str) -> Vec<Call> {
    let Some((_, section)) = text.split_once(MARK) else { return Vec::new() };
    let parts = section.split("<|tool_call_begin|>").skip(1);
    parts.filter_map(|part| call(part.split("<|tool_call_end|>").next()?)).collect()
}

fn call(part: &str) -> Option<Call> {
    let (id, arguments) = part.split_once("<|tool_call_argument_begin|>")?;
    let (name, number) = id.trim().rsplit_once(':')?;
    number.parse::<u32>().ok()?;
    let name = name.strip_prefix("functions.").unwrap_or(name).to_owned();
    Some(Call { name, arguments: Some(python::literal(arguments)?) })
}

/// Returns the calls in an answer of K3.
pub(super) fn calls_k3(text: &str) -> Vec<Call> {
    let Some((_, section)) = text.split_once(MARK_K3) else { return Vec::new() };
    elements(section, "call").filter_map(|(attributes, body)| call_k3(attributes, body)).collect()
}

fn call_k3(attributes: &str, body: &str) -> Option<Call> {
    let name = attribute(attributes, "tool")?;
    if let Some((_, value)) = elements(body, "json").next() {
        let arguments = serde_json::from_str::<Json>(value).ok().filter(Json::is_object)?;
        return Some(Call { name, arguments: Some(arguments) });
    }
    let arguments = elements(body, "argument").filter_map(|(attributes, value)| {
        let key = attribute(attributes, "key")?;
        let is_text = attribute(attributes, "type").as_deref() == Some("string");
        let read = if is_text { None } else { serde_json::from_str(value).ok() };
        Some((key, read.unwrap_or_else(|| Json::String(value.to_owned()))))
    });
    Some(Call { name, arguments: Some(object(arguments)) })
}

/// Returns the elements of this name: what follows the name in the opening, and what is between it and the closing.
fn elements<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let (open, close) = (format!("<|open|>{name}"), format!("<|close|>{name}<|sep|>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (attributes, after) = after.split_once("<|sep|>")?;
        let (body, after) = after.split_once(&close)?;
        rest = after;
        Some((attributes, body))
    })
}

/// Returns an attribute, `key="value"`.
fn attribute(attributes: &str, key: &str) -> Option<String> {
    let (_, rest) = attributes.split_once(&format!("{key}=\""))?;
    Some(rest.split('"').next()?.replace("&quot;", "\"").replace("&amp;", "&"))
}
