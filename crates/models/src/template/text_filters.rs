//! Filters of Jinja that make a text from a text.
//! Knows nothing of templates.

use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind};

/// The most characters that a text may be padded to.
const WIDEST: usize = 1 << 20;

/// Adds the filters to an environment.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("center", center);
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_filter("forceescape", escape);
    environment.add_filter("replace", replace);
    environment.add_filter("truncate", truncate);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("wordwrap", wordwrap);
    environment.add_filter("xmlattr", xmlattr);
}

fn center(text: String, width: Option<usize>) -> Result<String, Error> {
    let width = width.unwrap_or(80);
    if width > WIDEST {
        return Err(Error::new(ErrorKind::InvalidOperation, "the text would be too wide"));
    }
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left)))
}

fn escape(value: &Jinja) -> Jinja {
    Jinja::from_safe_string(escaped(&value.to_string()))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
    out
}

fn replace(text: String, old: String, new: String, count: Option<usize>) -> String {
    count.map_or_else(|| text.replace(&old, &new), |count| text.replacen(&old, &new, count))
}

fn truncate(
    text: String,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<&str>,
    named: Kwargs,
) -> Result<String, Error> {
    let length = length.or(named.get("length")?).unwrap_or(255);
    let killwords = killwords.or(named.get("killwords")?).unwrap_or(false);
    let end = end.or(named.get("end")?).unwrap_or("...").to_owned();
    let leeway = named.get::<Option<usize>>("leeway")?.unwrap_or(5);
    named.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let begin: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = if killwords {
        begin.as_str()
    } else {
        begin.rsplit_once(' ').map_or(begin.as_str(), |(kept, _)| kept)
    };
    Ok(format!("{kept}{end}"))
}

/// Encodes a text for a path, or a dictionary for a query.
fn urlencode(value: &Jinja) -> Result<String, Error> {
    if value.as_str().is_some() || value.as_object().is_none() {
        return Ok(percent_encoded(&value.to_string(), false));
    }
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        pairs.push([key, item].map(|part| percent_encoded(&part.to_string(), true)).join("="));
    }
    Ok(pairs.join("&"))
}

fn percent_encoded(text: &str, is_query: bool) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => char::from(byte).to_string(),
        b'/' if !is_query => "/".to_owned(),
        b' ' if is_query => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encoded).collect()
}

fn wordwrap(text: &Jinja, width: Option<usize>, named: Kwargs) -> Result<Jinja, Error> {
    let width = width.or(named.get("width")?).unwrap_or(79);
    let width = Kwargs::from_iter([("width", Jinja::from(width))]);
    minijinja_contrib::filters::wordwrap(text, width)
}

fn xmlattr(attributes: &Jinja, autospace: Option<bool>) -> Result<String, Error> {
    let mut written = Vec::new();
    for name in attributes.try_iter()? {
        let value = attributes.get_item(&name)?;
        if !value.is_none() && !value.is_undefined() {
            written.push(format!("{name}=\"{}\"", escaped(&value.to_string())));
        }
    }
    let space = if autospace.unwrap_or(true) && !written.is_empty() { " " } else { "" };
    Ok(format!("{space}{}", written.join(" ")))
}
