//! Mistral's calls: `[TOOL_CALLS]name[ARGS]{…}`, and its older list of JSON.
//! Knows nothing of other forms.

use serde_json::{Deserializer, Value as Json};

use super::{Call, json};

/// What begins the calls of an answer.
pub(super) const MARK: &str = "[TOOL_CALLS]";

const ARGUMENTS: &str = "[ARGS]";

/// Returns the calls in a text.
pub(super) fn calls(text: &str) -> Vec<Call> {
    let Some((_, mut rest)) = text.split_once(MARK) else { return Vec::new() };
    if rest.trim_start().starts_with('[') {
        return json::calls(rest);
    }
    let mut found = Vec::new();
    while let Some((head, body)) = rest.split_once(ARGUMENTS) {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let name = head.trim_end().rsplit(|c| !is_part(c)).next().unwrap_or_default();
        let mut stream = Deserializer::from_str(body).into_iter::<Json>();
        let Some(Ok(arguments)) = stream.next() else { break };
        if !name.is_empty() {
            found.push(Call { name: name.to_owned(), arguments: Some(arguments) });
        }
        rest = &body[stream.byte_offset()..];
    }
    found
}
