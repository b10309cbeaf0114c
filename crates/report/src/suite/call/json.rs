//! Calls as JSON: in `<tool_call>` tags, in a fence, or bare. Llama's `<|python_tag|>` is a bare one.
//! Knows nothing of the tools.

use serde_json::{Deserializer, Value as Json};

use super::Call;

pub(super) const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FENCE: &str = "```";

/// Returns the calls in an answer. If there is a tag, only calls in tags count. Otherwise the calls in fences
/// count, and if there are none, the bare ones.
pub(super) fn calls(text: &str) -> Vec<Call> {
    if text.contains(OPEN) {
        let tagged = text.split(OPEN).skip(1).map(|rest| rest.split(CLOSE).next().unwrap_or(rest));
        return tagged.flat_map(values).filter_map(|value| read(&value)).collect();
    }
    let fenced = text.split(FENCE).skip(1).step_by(2);
    let found: Vec<_> = fenced.flat_map(values).filter_map(|value| read(&value)).collect();
    if found.is_empty() { values(text).iter().filter_map(read).collect() } else { found }
}

/// Returns the JSON objects in a text. Objects in a list are included, objects in another object are not.
fn values(text: &str) -> Vec<Json> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let mut stream = Deserializer::from_str(rest).into_iter::<Json>();
        match stream.next() {
            Some(Ok(value)) => {
                found.push(value);
                rest = &rest[stream.byte_offset()..];
            }
            _ => rest = &rest[1..],
        }
    }
    found
}

/// Reads a call in one of three forms. Qwen and Hermes write `{"name": …, "arguments": …}`. Llama writes
/// `parameters` instead of `arguments`. OpenAI puts the call into a `function`, and the arguments may be
/// a text that holds JSON.
fn read(value: &Json) -> Option<Call> {
    let call = value.get("function").filter(|function| function.is_object()).unwrap_or(value);
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.get("arguments").or_else(|| call.get("parameters"));
    let arguments = match arguments {
        Some(Json::String(text)) => serde_json::from_str(text).ok().or_else(|| arguments.cloned()),
        other => other.cloned(),
    };
    Some(Call { name, arguments })
}
