//! JSON as Python writes it: with `Infinity`, `-Infinity` and `NaN`, which JSON does not have.
//! Knows nothing of what the values are for.
//!
//! In memory such a number is a string that begins with a NUL, because a JSON value has no place for it. It is
//! written as Python wrote it.

use serde::de::DeserializeOwned;

/// The numbers that JSON does not have, as Python writes them.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// What the string of such a number begins with, in JSON.
const MARK: &str = r"\u0000";

/// Parses JSON as Python's `json` does, with or without a byte order mark.
///
/// # Errors
/// Fails if the text is not JSON, numbers that JSON does not have apart, or has another form than `T`.
pub fn from_python_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(text).or_else(|error| match quoted(text) {
        // Positions in the changed text mean nothing to the user, so the first error is the one to tell.
        Some(changed) => serde_json::from_slice(&changed).map_err(|_| error),
        None => Err(error),
    })
}

/// Returns the text with a string in the place of each number that JSON does not have; `None` if there is none.
fn quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut changed = Vec::with_capacity(bytes.len() + 64);
    let (mut rest, mut is_text, mut any) = (bytes, false, false);
    while let [first, after @ ..] = rest {
        let number = NUMBERS.iter().find(|number| !is_text && rest.starts_with(number.as_bytes()));
        if let Some(number) = number {
            changed.extend([b"\"", MARK.as_bytes(), number.as_bytes(), b"\""].concat());
            (rest, any) = (&rest[number.len()..], true);
            continue;
        }
        changed.push(*first);
        rest = after;
        match (first, after) {
            (b'"', _) => is_text = !is_text,
            (b'\\', [escaped, later @ ..]) if is_text => {
                changed.push(*escaped);
                rest = later;
            }
            _ => {}
        }
    }
    any.then_some(changed)
}

/// Puts the numbers that JSON does not have back into a text that was written from a parsed value.
pub fn to_python_json(json: Vec<u8>) -> Vec<u8> {
    let Ok(mut text) = String::from_utf8(json.clone()) else { return json };
    for number in NUMBERS {
        // In a string, this would have a backslash before the last quotation mark.
        text = text.replace(&format!("\"{MARK}{number}\""), number);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn back(text: &str) -> String {
        let value: Value = from_python_json(text.as_bytes()).unwrap();
        String::from_utf8(to_python_json(serde_json::to_vec(&value).unwrap())).unwrap()
    }

    #[test]
    fn numbers_that_json_does_not_have_come_back() {
        let text = r#"{"a":[0.0,Infinity,-Infinity,NaN],"b":"Infinity, \"NaN\" \\","c":"NaN"}"#;
        assert_eq!(back(text), text);
        // A text that looks like what such a number becomes stays a text.
        let text = r#"{"a":NaN,"b":"x\"\u0000NaN\""}"#;
        assert_eq!(back(text), text);
        assert_eq!(back("[NaN ,  -Infinity]"), "[NaN,-Infinity]");
        assert_eq!(back("\u{feff}[NaN, 1]"), "[NaN,1]");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in
            ["{", "{\"a\": Infinit}", "{\"a\": +NaN}", "NaN NaN", "{\"a\": nan}", "\"\\", "{\"a\": NaN"]
        {
            assert!(from_python_json::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
