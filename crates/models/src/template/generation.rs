//! The tag `generation` of `transformers`. It marks what a model is trained on, and leaves the text as it is.
//! Knows nothing of what is rendered.

/// Returns the template with each `generation` block as a block that is always rendered. White space is trimmed as
/// before.
pub(super) fn without_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        out.push_str(&replaced(tag).unwrap_or_else(|| tag.to_owned()));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn replaced(tag: &str) -> Option<String> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let (left, inner) = trimmed(inner, str::strip_prefix);
    let (right, inner) = trimmed(inner, str::strip_suffix);
    let word = match inner.trim() {
        "generation" => "if true",
        "endgeneration" => "endif",
        _ => return None,
    };
    Some(format!("{{%{left} {word} {right}%}}"))
}

/// Takes off the mark for white space, if there is one.
fn trimmed<'t>(
    text: &'t str,
    strip: fn(&'t str, &'static str) -> Option<&'t str>,
) -> (&'static str, &'t str) {
    let mark = ["-", "+"].into_iter().find_map(|mark| Some((mark, strip(text, mark)?)));
    mark.unwrap_or(("", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_tag_is_replaced() {
        assert_eq!(
            without_tags("a {%- generation -%} b {% endgeneration %}{% set generation = 1 %}"),
            "a {%- if true -%} b {% endif %}{% set generation = 1 %}"
        );
        assert_eq!(without_tags("{% unclosed"), "{% unclosed");
    }
}
