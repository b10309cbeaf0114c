//! Methods of Python's strings, lists and dictionaries that templates call.
//! Knows nothing of templates. What minijinja's `pycompat` has is used as it is.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls a method.
///
/// # Errors
/// Fails if there is no such method, or if its arguments are wrong.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let ours = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => of_text(text, method, args)?,
        (ValueKind::Seq, _) if method == "index" => Some(index_of(value, args)?),
        (ValueKind::Map | ValueKind::Seq, _) if method == "copy" => Some(value.clone()),
        _ => None,
    };
    ours.map_or_else(|| unknown_method_callback(state, value, method, args), Ok)
}

/// Calls a method of a string; `None` if it is not one of ours.
fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let made = match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, separator, method == "rpartition")?
        }
        "split" | "rsplit" => {
            let (separator, most, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?);
            let most = most.or(named.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
            named.assert_all_used()?;
            if separator == Some("") {
                return Err(invalid("empty separator"));
            }
            if method == "split" { split(text, separator, most) } else { rsplit(text, separator, most) }
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let byte = if method == "index" { text.find(part) } else { text.rfind(part) };
            let byte = byte.ok_or_else(|| invalid("substring not found"))?;
            text.get(..byte).unwrap_or(text).chars().count().into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            zfill(text, width)?.into()
        }
        "center" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            pad(text, width, fill.unwrap_or(" "), method)?.into()
        }
        "swapcase" => text.chars().map(swapped).collect::<String>().into(),
        "casefold" => text.to_lowercase().replace('ß', "ss").into(),
        "expandtabs" => {
            let (size,): (Option<usize>,) = from_args(args)?;
            expand_tabs(text, size.unwrap_or(8))?.into()
        }
        "isdecimal" => (!text.is_empty() && text.chars().all(char::is_numeric)).into(),
        "isprintable" => (!text.chars().any(char::is_control)).into(),
        "isidentifier" => is_identifier(text).into(),
        "istitle" => is_title(text).into(),
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The most characters that a method may pad a text to.
const WIDEST: usize = 1 << 20;

fn checked(width: usize) -> Result<usize, Error> {
    if width > WIDEST { Err(invalid("the text would be too wide")) } else { Ok(width) }
}

fn partition(text: &str, separator: &str, from_end: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    let found = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match (found, from_end) {
        (Some((before, after)), _) => [before, separator, after],
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    Ok(Tuple::from(parts.map(Value::from)).into())
}

fn split(text: &str, separator: Option<&str>, most: Option<usize>) -> Value {
    let pieces = most.map_or(usize::MAX, |most| most + 1);
    let Some(separator) = separator else {
        let (mut parts, mut rest) = (Vec::new(), text.trim_start());
        while !rest.is_empty() {
            let cut = rest.find(char::is_whitespace).filter(|_| parts.len() + 1 < pieces);
            let (part, after) = rest.split_at(cut.unwrap_or(rest.len()));
            parts.push(Value::from(part));
            rest = after.trim_start();
        }
        return parts.into();
    };
    text.splitn(pieces, separator).map(Value::from).collect::<Vec<_>>().into()
}

fn rsplit(text: &str, separator: Option<&str>, most: Option<usize>) -> Value {
    let pieces = most.map_or(usize::MAX, |most| most + 1);
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None => split_white(text, pieces),
    };
    parts.reverse();
    parts.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

/// Splits at white space, from the end, into so many pieces at most. Returns the last piece first.
fn split_white(text: &str, pieces: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_end());
    while !rest.is_empty() {
        let cut = rest.rfind(char::is_whitespace).filter(|_| parts.len() + 1 < pieces);
        let Some(cut) = cut else {
            parts.push(rest.trim_start_matches(|c: char| pieces == usize::MAX && c.is_whitespace()));
            break;
        };
        parts.push(rest.get(cut..).unwrap_or_default().trim_start());
        rest = rest.get(..cut).unwrap_or_default().trim_end();
    }
    parts
}

fn zfill(text: &str, width: usize) -> Result<String, Error> {
    let missing = checked(width)?.saturating_sub(text.chars().count());
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    Ok(format!("{sign}{}{digits}", "0".repeat(missing)))
}

fn pad(text: &str, width: usize, fill: &str, method: &str) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(invalid("the fill must be one character"));
    }
    let missing = checked(width)?.saturating_sub(text.chars().count());
    // As in CPython, the odd character goes to the left if the width is odd.
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn swapped(letter: char) -> String {
    if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let size = checked(size)?;
    let (mut out, mut column) = (String::new(), 0);
    for letter in text.chars() {
        match letter {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(width));
                checked(out.len())?;
                column += width;
            }
            '\n' | '\r' => {
                out.push(letter);
                column = 0;
            }
            _ => {
                out.push(letter);
                column += 1;
            }
        }
    }
    Ok(out)
}

fn is_identifier(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
}

fn is_title(text: &str) -> bool {
    let (mut in_word, mut any) = (false, false);
    for letter in text.chars() {
        let is_cased = letter.is_uppercase() || letter.is_lowercase();
        if is_cased && letter.is_uppercase() == in_word {
            return false;
        }
        in_word = is_cased;
        any |= is_cased;
    }
    any
}

fn index_of(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (item, _): (&Value, Rest<Value>) = from_args(args)?;
    let place = list.try_iter()?.position(|one| one == *item);
    place.map(Value::from).ok_or_else(|| invalid("the value is not in the list"))
}
