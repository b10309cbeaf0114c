//! Calls of gpt-oss: a message in the channel `commentary` that is sent to a function.
//! Knows nothing of other forms.

use serde_json::{Deserializer, Value as Json};

use super::Call;

/// What the recipient of a call begins with.
pub(super) const MARK: &str = "to=functions.";

/// Returns the calls in a text.
pub(super) fn calls(text: &str) -> Vec<Call> {
    text.split(MARK).skip(1).filter_map(call).collect()
}

fn call(part: &str) -> Option<Call> {
    let end = part.find(|c: char| c.is_whitespace() || c == '<')?;
    let (_, body) = part.split_once("<|message|>")?;
    let arguments = Deserializer::from_str(body).into_iter::<Json>().next()?.ok()?;
    Some(Call { name: part[..end].to_owned(), arguments: Some(arguments) })
}
