//! Text as HTML, escaped so that only our own text can become markup.
//! Knows nothing of what it says.

/// Escapes text for the contents of elements, and for attributes between either kind of quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // HTML does not allow this character.
            '\0' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// Escapes a sentence of ours, except that text between backticks becomes code.
pub(super) fn prose(text: &str) -> String {
    if text.matches('`').count() % 2 == 1 {
        return escape(text);
    }
    let parts = text.split('`').enumerate();
    let part = |(index, part): (usize, &str)| match index % 2 {
        1 => format!("<code>{}</code>", escape(part)),
        _ => escape(part),
    };
    parts.map(part).collect()
}

/// Returns at most `most` characters of a name, with `…` in the middle if some are left out.
pub(super) fn shorten(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    // The names of a sweep differ at their ends.
    let tail = most / 2;
    let head = name.chars().take(most - tail - 1);
    head.chain(['…']).chain(name.chars().skip(count - tail)).collect()
}

/// Returns how many bytes all names share at their beginning, up to a separator such as `-`. It is 0 if they
/// share fewer than 8 bytes, or if there is only one name.
pub(super) fn alike<'a>(mut names: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = names.next() else { return 0 };
    let (mut length, mut count) = (first.len(), 1);
    for name in names {
        let same = first.char_indices().zip(name.chars()).find(|((_, a), b)| a != b);
        length = length.min(same.map_or(name.len().min(first.len()), |((at, _), _)| at));
        count += 1;
    }
    let end = first[..length].rfind(['-', '_', '.', '/']).map_or(0, |at| at + 1);
    if count > 1 && end >= 8 { end } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(escape("<a href='\"&\"'>\0"), "&lt;a href=&#39;&quot;&amp;&quot;&#39;&gt;\u{FFFD}");
        assert_eq!(prose("use `bits: 5` & <b>"), "use <code>bits: 5</code> &amp; &lt;b&gt;");
        assert_eq!(prose("a ` alone"), "a ` alone");
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!([shorten("8bit", 10), shorten("qwen-lora-4bit", 10)], ["8bit", "qwen…-4bit"]);
    }

    #[test]
    fn a_long_beginning_that_all_share_is_found() {
        let alike = |names: &[&str]| alike(names.iter().copied());
        assert_eq!(alike(&["qwen-lora-4bit", "qwen-lora-8bit"]), 10);
        assert_eq!(alike(&["qwen-löra-4bit", "qwen-löra-4bit-64"]), "qwen-löra-".len());
        assert_eq!([alike(&["a-4", "a-8"]), alike(&["qwen-lora-4bit"]), alike(&[])], [0, 0, 0]);
    }
}
