//! Filters and tests of Jinja that minijinja lacks or has in another form, and the filter that `transformers` has of its
//! own.
//! Knows nothing of templates.

use std::collections::BTreeSet;

use minijinja::value::{Kwargs, Tuple, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::text_filters;
use crate::python_json::Style;

/// Adds the filters to an environment.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("float", float);
    environment.add_filter("int", int);
    environment.add_filter("pprint", pprint);
    environment.add_filter("unique", unique);
    environment.add_test("callable", |value: &Jinja| is_callable(value));
    environment.add_test("sequence", |value: &Jinja| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    text_filters::add_to(environment);
}

/// The sign of a function, a macro or a class: an object that has neither items nor text.
fn is_callable(value: &Jinja) -> bool {
    value.as_object().is_some() && value.kind() == ValueKind::Plain
}

/// The `tojson` filter of `transformers`. Jinja's own filter would escape HTML.
fn tojson(
    value: &Jinja,
    ensure_ascii: Option<bool>,
    indent: Option<usize>,
    named: Kwargs,
) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value"));
    }
    let mut style = Style::new(indent.or(named.get("indent")?));
    style.ensure_ascii = ensure_ascii.or(named.get("ensure_ascii")?).unwrap_or(false);
    style.sort_keys = named.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    if let Some(separators) = named.get::<Option<Vec<String>>>("separators")? {
        let [item, key] = <[String; 2]>::try_from(separators)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "separators is not a pair"))?;
        (style.item_separator, style.key_separator) = (item, key);
    }
    named.assert_all_used()?;
    let value = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(style.dumps(&value))
}

/// What two texts are compared by: their lower case unless `case_sensitive`.
fn folded(value: &Jinja, case_sensitive: bool) -> Jinja {
    match value.as_str() {
        Some(text) if !case_sensitive => text.to_lowercase().into(),
        _ => value.clone(),
    }
}

fn dictsort(
    map: &Jinja,
    case_sensitive: Option<bool>,
    by: Option<&str>,
    reverse: Option<bool>,
    named: Kwargs,
) -> Result<Jinja, Error> {
    let case_sensitive = case_sensitive.or(named.get("case_sensitive")?).unwrap_or(false);
    let by_value = by.or(named.get("by")?) == Some("value");
    let reverse = reverse.or(named.get("reverse")?).unwrap_or(false);
    named.assert_all_used()?;
    let mut pairs = Vec::new();
    for key in map.try_iter()? {
        let value = map.get_item(&key)?;
        let sorted_by = folded(if by_value { &value } else { &key }, case_sensitive);
        pairs.push((sorted_by, Jinja::from(Tuple::from([key, value]))));
    }
    pairs.sort_by(|(a, _), (b, _)| if reverse { b.cmp(a) } else { a.cmp(b) });
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().into())
}

fn float(value: &Jinja, default: Option<f64>, named: Kwargs) -> Result<f64, Error> {
    let default = default.or(named.get("default")?).unwrap_or(0.0);
    named.assert_all_used()?;
    let parsed = value.as_str().map(|text| text.trim().parse::<f64>().ok());
    Ok(parsed.unwrap_or_else(|| f64::try_from(value.clone()).ok()).unwrap_or(default))
}

fn int(value: &Jinja, default: Option<i64>, base: Option<u32>, named: Kwargs) -> Result<i64, Error> {
    let default = default.or(named.get("default")?).unwrap_or(0);
    let base = base.or(named.get("base")?).unwrap_or(10);
    named.assert_all_used()?;
    let Some(text) = value.as_str() else {
        return Ok(f64::try_from(value.clone()).ok().map_or(default, whole));
    };
    if !(2..=36).contains(&base) {
        return Ok(default);
    }
    let digits = text.trim().replace('_', "");
    let digits =
        ["0x", "0o", "0b"].into_iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(&digits);
    let parsed = i64::from_str_radix(digits, base).ok();
    Ok(parsed.or_else(|| digits.parse::<f64>().ok().map(whole)).unwrap_or(default))
}

#[expect(clippy::cast_possible_truncation, reason = "it is cut off on purpose, as in Python")]
fn whole(number: f64) -> i64 {
    number as i64
}

/// Writes a value as Python's `repr` does. Long values are not broken into lines.
fn pprint(value: &Jinja) -> String {
    let list = Jinja::from(vec![value.clone()]).to_string();
    list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(&list).to_owned()
}

fn unique(
    list: &Jinja,
    case_sensitive: Option<bool>,
    attribute: Option<&str>,
    named: Kwargs,
) -> Result<Jinja, Error> {
    let case_sensitive = case_sensitive.or(named.get("case_sensitive")?).unwrap_or(false);
    let attribute = attribute.or(named.get("attribute")?);
    named.assert_all_used()?;
    let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
    for item in list.try_iter()? {
        let key = match attribute {
            Some(name) => item.get_attr(name)?,
            None => item.clone(),
        };
        if seen.insert(folded(&key, case_sensitive)) {
            kept.push(item);
        }
    }
    Ok(kept.into())
}
