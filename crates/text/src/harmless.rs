//! Texts that others wrote, made harmless for a terminal and for a message.
//! Knows nothing of where the text came from.

use std::borrow::Cow;

/// The most characters of an untrusted text that are shown in a message.
const SHOWN_CHARS: usize = 80;

/// Returns a text that a terminal shows and does not obey: control characters and those that turn the
/// direction of writing are escaped. Line feeds and tabs stay.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Returns JSON that a terminal shows and does not obey. It means the same.
pub fn harmless_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(obeyed) {
        return Cow::Borrowed(json);
    }
    // JSON itself has no such characters, so each of them is in a text. None is beyond U+FFFF.
    let escaped = |c: char| if obeyed(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(json.chars().map(escaped).collect())
}

/// Whether a terminal does something else with the character than to show it.
fn obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Returns an untrusted text in a form that is safe in a message: control characters are escaped, line feeds
/// too, and a long text is cut after 80 characters.
pub fn shown(text: &str) -> String {
    let mut chars = text.chars().flat_map(char::escape_debug);
    let mut out: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing() {
        assert_eq!(harmless("naïve `x`\n\ttab"), "naïve `x`\n\ttab");
        assert_eq!(harmless("\u{1b}[2Jx\r\u{9b}31m"), "\\u{1b}[2Jx\\u{d}\\u{9b}31m");
        assert_eq!(harmless("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn json_means_the_same() {
        let text = "a\u{9b}31m\u{202e}\u{7f}é";
        let json = serde_json::to_string(text).unwrap();
        let safe = harmless_json(&json);
        assert_eq!(safe, "\"a\\u009b31m\\u202e\\u007fé\"");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown("ana"), "ana");
        assert_eq!(shown("\u{1b}[2J\n\u{202e}"), "\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(shown(&"a".repeat(1 << 20)), "a".repeat(80) + "…");
    }
}
