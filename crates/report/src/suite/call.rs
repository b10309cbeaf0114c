//! Tool calls in the text of an answer: in `<tool_call>` tags, in fenced JSON, or as bare JSON.
//! Knows nothing of what is expected.

use serde_json::{Deserializer, Map, Value as Json};

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The name of the tool.
    pub name: String,
    /// The arguments; `None` if the call does not give any.
    pub arguments: Option<Json>,
}

impl Call {
    /// Whether `made` is a call of this tool. If this call gives arguments, `made` must have the same ones.
    pub(super) fn is_made_by(&self, made: &Self) -> bool {
        let nothing = Json::Object(Map::new());
        let same = |wanted| is_same(wanted, made.arguments.as_ref().unwrap_or(&nothing));
        self.name == made.name && self.arguments.as_ref().is_none_or(same)
    }

    /// Reads a call in one of three forms. Qwen and Hermes write `{"name": …, "arguments": …}`. Llama writes
    /// `parameters` instead of `arguments`. OpenAI puts the call into a `function`, and the arguments may be
    /// a text that holds JSON.
    fn read(value: &Json) -> Option<Self> {
        let call = value.get("function").filter(|function| function.is_object()).unwrap_or(value);
        let name = call.get("name")?.as_str()?.to_owned();
        let arguments = call.get("arguments").or_else(|| call.get("parameters"));
        let arguments = match arguments {
            Some(Json::String(text)) => serde_json::from_str(text).ok().or_else(|| arguments.cloned()),
            other => other.cloned(),
        };
        Some(Self { name, arguments })
    }
}

/// Whether an answer calls a tool. A `<tool_call>` tag counts even if it does not hold JSON, because the
/// model meant to call a tool. Without a tag, the call must have arguments.
pub(super) fn holds_tool_call(text: &str) -> bool {
    text.contains(OPEN) || calls(text).iter().any(|call| call.arguments.is_some())
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FENCE: &str = "```";

/// Returns the calls in an answer. If there is a tag, only calls in tags count. Otherwise the calls in fences
/// count, and if there are none, the bare ones.
pub(super) fn calls(text: &str) -> Vec<Call> {
    if text.contains(OPEN) {
        let tagged = text.split(OPEN).skip(1).map(|rest| rest.split(CLOSE).next().unwrap_or(rest));
        return tagged.flat_map(values).filter_map(|value| Call::read(&value)).collect();
    }
    let fenced = text.split(FENCE).skip(1).step_by(2);
    let found: Vec<_> = fenced.flat_map(values).filter_map(|value| Call::read(&value)).collect();
    if found.is_empty() { values(text).iter().filter_map(Call::read).collect() } else { found }
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

/// Whether two values are the same to a tool. The order of keys does not matter, and 2 is the same as 2.0.
fn is_same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn weather() -> Call {
        Call { name: "weather".to_owned(), arguments: Some(json!({"city": "Paris"})) }
    }

    #[test]
    fn calls_are_found_in_tags_fences_and_bare() {
        let bare = r#"{"name": "weather", "arguments": {"city": "Paris"}}"#;
        let texts = [
            format!("<tool_call>\n{bare}\n</tool_call>"),
            format!("Let me look.\n<tool_call>{bare}"),
            format!("```json\n{bare}\n```"),
            format!("Sure: ```{bare}``` as you asked"),
            bare.to_owned(),
            format!("[{bare}]"),
            r#"{"type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}"#
                .into(),
            r#"<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}"#.to_owned(),
        ];
        for text in texts {
            assert_eq!(calls(&text), [weather()], "{text}");
            assert!(holds_tool_call(&text), "{text}");
        }
        assert_eq!(calls(&format!("<tool_call>{bare}</tool_call><tool_call>{bare}</tool_call>")).len(), 2);
    }

    #[test]
    fn text_with_braces_is_no_call() {
        for text in ["It rains.", "{{{{", r#"{"city": "Paris"}"#, r#"{"name": "Paris"}"#, "a {name} b"] {
            assert!(!holds_tool_call(text), "{text}");
        }
        assert!(holds_tool_call("<tool_call>weather(Paris)</tool_call>"));
    }

    #[test]
    fn arguments_that_are_not_said_may_be_any() {
        let any = Call { name: "weather".to_owned(), arguments: None };
        assert!(any.is_made_by(&weather()));
        assert!(!weather().is_made_by(&any));
        assert!(!any.is_made_by(&Call { name: "other".to_owned(), ..weather() }));
    }
}
