//! Completes the metadata in the model card, `README.md`, and leaves the card's text alone.
//! Knows nothing of the weights.

use super::ModelOrigin;
use text::yaml::{Tree, Value};

/// The line that opens and the line that closes the head of a card.
const FENCE: &str = "---";

/// Returns the card with its head, the YAML metadata for the hub, completed as `mlx_lm.convert` does. It gets
/// the library, the task, the tag `mlx`, and the model it was made from with its commit, if that is known.
/// Returns `None` if the head is not a YAML mapping; then the card must stay as it is.
pub(super) fn complete(card: &str, origin: Option<&ModelOrigin>) -> Option<String> {
    let (head, body) = split(card);
    let tree = Tree::parse(head).ok()?;
    let entries = match tree.value {
        Value::Map(entries) => entries,
        Value::Null => Vec::new(),
        _ => return None,
    };
    let get = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, tree)| &tree.value);
    let mut lines = Head { lines: head.lines().map(str::to_owned).collect() };
    lines.set("library_name", "library_name: mlx");
    if get("pipeline_tag").is_none() {
        lines.set("pipeline_tag", "pipeline_tag: text-generation");
    }
    if let Some(ModelOrigin { commit, repo }) = origin {
        lines.set("base_model", &format!("base_model: {repo}"));
        lines.set("base_model_revision", &format!("base_model_revision: {commit}"));
    }
    let mut tags: Vec<_> = match get("tags") {
        Some(Value::List(tags)) => tags.iter().filter_map(|tag| text(&tag.value)).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    };
    if !tags.iter().any(|tag| tag == "mlx") {
        tags.push("mlx".to_owned());
        let tags: String = tags.iter().map(|tag| format!("\n- {}", quoted(tag))).collect();
        lines.set("tags", &format!("tags:{tags}"));
    }
    let head = lines.lines.join("\n");
    // The head is edited as text, so that comments and quotes stay. If the result is not a YAML mapping, it
    // is dropped.
    matches!(Tree::parse(&head).ok()?.value, Value::Map(_))
        .then(|| format!("{FENCE}\n{head}\n{FENCE}\n{body}"))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns a tag as YAML. It is quoted unless it begins with a letter and has only letters, digits and
/// `-_./`.
fn quoted(tag: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let word = tag.starts_with(|c: char| c.is_ascii_alphabetic()) && tag.chars().all(plain);
    if word { tag.to_owned() } else { serde_json::Value::from(tag).to_string() }
}

/// Splits a card into head and text. The head is empty if the card has none.
fn split(card: &str) -> (&str, &str) {
    let begin = card.strip_prefix("---\n").or_else(|| card.strip_prefix("---\r\n"));
    let Some(rest) = begin else { return ("", card) };
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == FENCE {
            return (&rest[..end], &rest[end + line.len()..]);
        }
        end += line.len();
    }
    ("", card)
}

/// The lines of a head.
struct Head {
    lines: Vec<String>,
}

impl Head {
    /// Replaces the top-level key `name` and its value with `entry`, or appends `entry` if the key is
    /// missing.
    fn set(&mut self, name: &str, entry: &str) {
        let begins = |line: &String| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let Some(start) = self.lines.iter().position(begins) else {
            self.lines.push(entry.to_owned());
            return;
        };
        // A line belongs to a key if it is indented, a list item or blank.
        let belongs = |line: &&String| line.starts_with([' ', '\t', '-']) || line.trim().is_empty();
        let more = self.lines[start + 1..].iter().take_while(belongs).count();
        self.lines.splice(start..=start + more, [entry.to_owned()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_a_head_and_leaves_the_text() {
        let card = "---\nlicense: apache-2.0 # ours\nbase_model:\n- Qwen/Qwen2.5-0.5B\ntags: [chat, \"1\"]\n---\n# Title\n\n---\nmore\n";
        let expected = "---\nlicense: apache-2.0 # ours\nbase_model: Q/I\ntags:\n- chat\n- \"1\"\n- mlx\nlibrary_name: mlx\n\
                        pipeline_tag: text-generation\nbase_model_revision: 0123456789012345678901234567890123456789\n---\n# Title\n\n---\nmore\n";
        let commit = "0123456789012345678901234567890123456789".to_owned();
        let origin = ModelOrigin { commit, repo: "Q/I".to_owned() };
        let done = complete(card, Some(&origin)).unwrap();
        assert_eq!(done, expected);
        assert_eq!(complete(&done, Some(&origin)).unwrap(), done);
        // If the origin is not known, the one in the card stays.
        assert_eq!(complete(&done, None).unwrap(), done);
    }

    #[test]
    fn makes_a_head_where_there_is_none() {
        let head = "library_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx";
        assert_eq!(complete("", None).unwrap(), format!("---\n{head}\n---\n"));
        assert_eq!(complete("text", None).unwrap(), format!("---\n{head}\n---\ntext"));
        assert_eq!(complete("---\nno: [end", None).unwrap(), format!("---\n{head}\n---\n---\nno: [end"));
        assert_eq!(complete("---\na: [\n---\n", None), None);
    }
}
