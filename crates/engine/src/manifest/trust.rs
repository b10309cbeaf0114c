//! Adds a trusted key to the text of a pipeline file, and keeps its comments and its layout.
//! Knows nothing of the disk. Every edited text is parsed again and checked before it is returned.

use serde_json::Value as Json;

use super::cache::check_owner;
use super::{Manifest, TrustedKey};
use crate::sign::PublicKey;
use text::yaml::{Key, Problem, Tree, Value};

/// How many closing braces in one line are tried.
const TRIES: usize = 16;

/// Words that some YAML parsers do not read as text.
const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// Why a key cannot be added to a pipeline file.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    /// The file is not valid.
    #[error(transparent)]
    File(#[from] Problem),
    /// The name is not valid.
    #[error("{0}")]
    Name(String),
    /// The name belongs to another key.
    #[error("`{name}` is trusted with another key, {}: remove that line first if it is no longer theirs", .key.short())]
    Taken {
        /// The name.
        name: String,
        /// The key that has it.
        key: PublicKey,
    },
    /// The key is already trusted under another name.
    #[error("this key is trusted already, as `{0}`")]
    Known(String),
    /// The layout of the file is not understood well enough to change it.
    #[error("it is laid out in a way that only you should edit; nothing was written. Add these lines:\n{0}")]
    Layout(String),
}

/// Returns `text` with `key` added to the trusted keys as `name`, or `None` if it is there already.
///
/// # Errors
/// Fails if the file or the name is not valid, if the name belongs to another key or the key has another
/// name, or if the layout of the file is not understood.
pub fn trust(text: &str, name: &str, key: PublicKey) -> Result<Option<String>, NotTrusted> {
    check_owner(name).map_err(NotTrusted::Name)?;
    let old = Manifest::parse(text)?;
    for one in &old.cache.trusted_keys {
        match (one.name == name, one.key == key) {
            (true, true) => return Ok(None),
            (true, false) => return Err(NotTrusted::Taken { name: name.to_owned(), key: one.key }),
            (false, true) => return Err(NotTrusted::Known(one.name.clone())),
            (false, false) => {}
        }
    }
    let entry = format!("{}: \"{key}\"", yaml_name(name));
    let tree = Tree::parse(text)?;
    let added = TrustedKey { name: name.to_owned(), key };
    let found = edits(text, &tree, &entry).into_iter().find(|edit| is_but_for(&tree, &added, edit));
    found.map(Some).ok_or_else(|| NotTrusted::Layout(lines_to_add(&entry)))
}

/// Returns the lines to add to a pipeline file that has no `cache`.
fn lines_to_add(entry: &str) -> String {
    format!("cache:\n  trusted_keys:\n    {entry}")
}

/// Returns a name as YAML. A name that begins with a letter and is not one of [`WORDS`] needs no quotes.
/// Others are quoted, because a parser might read them as a number.
fn yaml_name(name: &str) -> String {
    let is_word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(name));
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_word;
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}

/// Whether `edit` differs from `old` only in that `added` is trusted.
fn is_but_for(old: &Tree, added: &TrustedKey, edit: &str) -> bool {
    let (Ok(tree), Ok(manifest)) = (Tree::parse(edit), Manifest::parse(edit)) else { return false };
    let (mut before, mut after) = (old.to_json(), tree.to_json());
    let keys = after.pointer_mut("/cache/trusted_keys").and_then(Json::as_object_mut);
    let Some(removed) = keys.and_then(|keys| keys.shift_remove(&added.name)) else { return false };
    drop_empty(&mut before);
    drop_empty(&mut after);
    // Compared as texts: the order of nodes and configurations has a meaning, but maps are equal in any
    // order.
    let (before, after) = (before.to_string(), after.to_string());
    removed == added.key.to_string() && manifest.cache.trusted_keys.contains(added) && before == after
}

/// Removes `cache` and `trusted_keys` if they are empty, because an empty map means the same as none.
fn drop_empty(file: &mut Json) {
    let is_empty = |value: &Json| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if let Some(cache) = file.pointer_mut("/cache").and_then(Json::as_object_mut)
        && cache.get("trusted_keys").is_some_and(is_empty)
    {
        cache.shift_remove("trusted_keys");
    }
    if let Some(top) = file.as_object_mut()
        && top.get("cache").is_some_and(is_empty)
    {
        top.shift_remove("cache");
    }
}

/// Returns candidates for the edited text, the nicest first. The caller checks them.
fn edits(text: &str, top: &Tree, entry: &str) -> Vec<String> {
    let Some((key, cache)) = field(top, "cache") else {
        let version = field(top, "version").map_or(1, |(_, version)| version.at.line);
        return add_lines(text, version, 0, &lines_to_add(entry)).into_iter().collect();
    };
    match field(cache, "trusted_keys") {
        Some((key, keys)) => add_entry(text, key, keys, entry, entry),
        None => {
            let flow = format!("trusted_keys: {{{entry}}}");
            add_entry(text, key, cache, &flow, &format!("trusted_keys:\n  {entry}"))
        }
    }
}

fn field<'a>(tree: &'a Tree, name: &str) -> Option<(&'a Key, &'a Tree)> {
    let Value::Map(entries) = &tree.value else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(key, tree)| (key, tree))
}

/// Adds an entry to the map that is the value of `key`: `flow` if the map is in braces, otherwise the lines
/// of `block`.
fn add_entry(text: &str, key: &Key, map: &Tree, flow: &str, block: &str) -> Vec<String> {
    let Value::Map(entries) = &map.value else {
        // The key has no map yet: the entry begins it.
        return add_lines(text, key.at.line, key.at.column.saturating_add(1), block).into_iter().collect();
    };
    if let Some(brace) = offset(text, map).filter(|brace| text.get(*brace..).unwrap_or("").starts_with('{')) {
        return add_in_braces(text, brace, entries.is_empty(), flow);
    }
    let indent = entries.first().map_or(0, |(first, _)| first.at.column.saturating_sub(1));
    add_lines(text, last_line(map), indent, block).into_iter().collect()
}

/// Returns where in the text a value begins, in bytes.
fn offset(text: &str, tree: &Tree) -> Option<usize> {
    let line = usize::try_from(tree.at.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(tree.at.column).ok()?.checked_sub(1)?;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let (start, _) = text.get(before..)?.char_indices().nth(column)?;
    Some(before + start)
}

fn last_line(tree: &Tree) -> u32 {
    let inner = match &tree.value {
        Value::List(items) => items.last(),
        Value::Map(entries) => entries.last().map(|(_, tree)| tree),
        _ => None,
    };
    inner.map_or(tree.at.line, |inner| last_line(inner).max(tree.at.line))
}

/// Adds `lines` after a line of the text, each with `indent` spaces before it.
fn add_lines(text: &str, after: u32, indent: u32, lines: &str) -> Option<String> {
    let after = usize::try_from(after).ok()?;
    let end: usize = text.split_inclusive('\n').take(after).map(str::len).sum();
    let (before, rest) = text.split_at_checked(end)?;
    let feed = if before.ends_with("\r\n") { "\r\n" } else { "\n" };
    let indent = " ".repeat(usize::try_from(indent).ok()?);
    let lines: String = lines.lines().map(|line| format!("{indent}{line}{feed}")).collect();
    let gap = if before.ends_with('\n') { "" } else { "\n" };
    Some(format!("{before}{gap}{lines}{rest}"))
}

/// Returns texts with an entry added to a map in braces. The first ones add it before each closing brace on
/// the line, any of which may be the right one. The last one adds it after the opening brace.
fn add_in_braces(text: &str, brace: usize, is_empty: bool, entry: &str) -> Vec<String> {
    let (before, rest) = text.split_at(brace + 1);
    if is_empty {
        return vec![format!("{before}{entry}{rest}")];
    }
    let line = rest.lines().next().unwrap_or("");
    let last = line.match_indices('}').take(TRIES).map(|(close, _)| {
        let (inside, outside) = rest.split_at(close);
        let end = inside.trim_end().len();
        let (inside, space) = inside.split_at(end);
        format!("{before}{inside}, {entry}{space}{outside}")
    });
    last.chain([format!("{before}{entry}, {rest}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "nodes:\n  m: {stage: base, source: s}   # the model\n";
    /// RFC 8032, section 7.1, tests 1 and 2.
    const ANA: &str = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const CI: &str = "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

    fn file(cache: &str) -> String {
        format!("# mine\nversion: 1  # the only one\n{cache}\n{NODES}")
            .replace("ANA", &format!("\"{ANA}\""))
            .replace("CI", &format!("\"{CI}\""))
    }

    fn trusted(text: &str) -> Result<Option<String>, NotTrusted> {
        trust(text, "ci", CI.parse().unwrap())
    }

    #[track_caller]
    fn becomes(before: &str, after: &str) {
        assert_eq!(trusted(&file(before)).unwrap().as_deref(), Some(file(after).as_str()));
        assert!(trusted(&file(after)).unwrap().is_none(), "twice is once");
    }

    #[test]
    fn a_file_without_a_cache_gets_one() {
        let after = trusted(&file("\n# the nodes")).unwrap().unwrap();
        assert_eq!(after, file(&format!("cache:\n  trusted_keys:\n    ci: \"{CI}\"\n\n# the nodes")));
        let last = "nodes: {m: {stage: base, source: s}}\nversion: 1";
        let after = trusted(last).unwrap().unwrap();
        assert_eq!(after, format!("{last}\ncache:\n  trusted_keys:\n    ci: \"{CI}\"\n"));
        let windows = file("").replace('\n', "\r\n");
        let after = trusted(&windows).unwrap().unwrap();
        assert!(after.contains(&format!("cache:\r\n  trusted_keys:\r\n    ci: \"{CI}\"\r\n")), "{after}");
    }

    #[test]
    fn a_cache_in_lines() {
        becomes("cache:\n  dir: cache  # here", "cache:\n  dir: cache  # here\n  trusted_keys:\n    ci: CI");
        becomes(
            "cache:\n    # why\n    dir: c\n",
            "cache:\n    # why\n    dir: c\n    trusted_keys:\n      ci: CI\n",
        );
        becomes("cache:  # shared", "cache:  # shared\n  trusted_keys:\n    ci: CI");
        becomes(
            "cache:\n  trusted_keys:\n    # from the office\n    ana: ANA  # Ana\n  dir: c",
            "cache:\n  trusted_keys:\n    # from the office\n    ana: ANA  # Ana\n    ci: CI\n  dir: c",
        );
        becomes(
            "cache:\n  trusted_keys: {ana: ANA}  # }\n  dir: c",
            "cache:\n  trusted_keys: {ana: ANA, ci: CI}  # }\n  dir: c",
        );
        becomes("cache:\n  trusted_keys:\n  dir: c", "cache:\n  trusted_keys:\n    ci: CI\n  dir: c");
        becomes("cache:\n  trusted_keys: {}", "cache:\n  trusted_keys: {ci: CI}");
    }

    #[test]
    fn a_cache_in_braces() {
        becomes("cache: {dir: c}  # {}", "cache: {dir: c, trusted_keys: {ci: CI}}  # {}");
        becomes("cache: { dir: '}' }", "cache: { dir: '}', trusted_keys: {ci: CI} }");
        becomes("cache: {}", "cache: {trusted_keys: {ci: CI}}");
        becomes(
            "cache: {trusted_keys: {ana: ANA}, dir: é}",
            "cache: {trusted_keys: {ana: ANA, ci: CI}, dir: é}",
        );
        becomes(
            "cache: {dir: c,\n  compress: true}",
            "cache: {trusted_keys: {ci: CI}, dir: c,\n  compress: true}",
        );
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_user() {
        for text in
            [&format!("{{version: 1, {}}}", "nodes: {}"), &file("cache: null"), &file("cache: ~  # none")]
        {
            let error = trusted(text).unwrap_err();
            assert!(matches!(error, NotTrusted::Layout(_)), "{error}");
            assert!(
                error.to_string().ends_with(&format!("cache:\n  trusted_keys:\n    ci: \"{CI}\"")),
                "{error}"
            );
        }
    }

    #[test]
    fn nobody_is_replaced_and_nobody_has_two_names() {
        let taken = trusted(&file("cache: {trusted_keys: {ci: ANA}}")).unwrap_err().to_string();
        assert!(taken.starts_with("`ci` is trusted with another key, ed25519:11qYAYKx…"), "{taken}");
        let known = trusted(&file("cache: {trusted_keys: {ana: CI}}")).unwrap_err().to_string();
        assert_eq!(known, "this key is trusted already, as `ana`");
        assert!(matches!(trusted("version: 2"), Err(NotTrusted::File(_))));
        for name in ["", "a b", "a: b", "a\"", "a\n"] {
            assert!(
                matches!(trust(&file(""), name, CI.parse().unwrap()), Err(NotTrusted::Name(_))),
                "{name}"
            );
        }
        for name in ["8", "null", "No", "true", "-", "+1", "@home", "1e3", ".inf"] {
            let after = trust(&file(""), name, CI.parse().unwrap()).unwrap().unwrap();
            assert_eq!(Manifest::parse(&after).unwrap().cache.trusted_keys[0].name, name);
        }
    }
}
