//! Calls as Python writes them, in a list: LFM2, Llama 4. Llama 3's `<|python_tag|>name.call(…)` is one without a list.
//! Knows nothing of other forms.

use super::Call;
use super::python::Reader;
use super::schema::object;

/// What begins the calls of an answer, in models that mark them.
pub(super) const MARK: &str = "<|tool_call_start|>";

const LLAMA: &str = "<|python_tag|>";

/// Returns the calls in a text. Without a mark, the whole text must be a list of calls.
pub(super) fn calls(text: &str) -> Vec<Call> {
    if let Some((_, rest)) = text.split_once(MARK) {
        return list(rest).unwrap_or_default();
    }
    if let Some((_, rest)) = text.split_once(LLAMA) {
        return llama(rest).into_iter().collect();
    }
    let trimmed = text.trim();
    if trimmed.starts_with('[') && trimmed.ends_with(']') {
        list(trimmed).unwrap_or_default()
    } else {
        Vec::new()
    }
}

fn list(text: &str) -> Option<Vec<Call>> {
    let mut reader = Reader::new(text);
    reader.take("[")?;
    let mut calls = vec![call(&mut reader)?];
    while reader.take(",").is_some() {
        calls.push(call(&mut reader)?);
    }
    reader.take("]")?;
    Some(calls)
}

fn call(reader: &mut Reader<'_>) -> Option<Call> {
    let name = reader.name()?.to_owned();
    reader.take("(")?;
    let mut arguments = Vec::new();
    while reader.take(")").is_none() {
        let key = reader.name()?.to_owned();
        reader.take("=")?;
        arguments.push((key, reader.value(0)?));
        if reader.take(",").is_none() {
            reader.take(")")?;
            break;
        }
    }
    Some(Call { name, arguments: Some(object(arguments)) })
}

/// Reads `name.call(key="value")`, which Llama 3 writes for the tools that it was trained with.
fn llama(text: &str) -> Option<Call> {
    let call = call(&mut Reader::new(text))?;
    let name = call.name.strip_suffix(".call").map(str::to_owned);
    Some(Call { name: name.unwrap_or(call.name), ..call })
}
