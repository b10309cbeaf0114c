//! The files of a tokenizer and of its chat template, of which an adapter may have its own.
//! Knows nothing of how a text becomes tokens.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::read_json;
use crate::error::Result;

const CONFIG: &str = "tokenizer_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TEMPLATE: &str = "chat_template.jinja";

/// The other files that belong to a tokenizer.
const OTHERS: [&str; 8] = [
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_templates.json",
];

/// How answers are generated, and where they end.
pub(super) const GENERATION: &str = "generation_config.json";

/// The folder of further templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// Whether a file, by its name in the folder of a model or of an adapter, belongs to the tokenizer.
pub(super) fn is_of_tokenizer(name: &str) -> bool {
    [CONFIG, TOKENIZER, TEMPLATE].contains(&name) || OTHERS.contains(&name) || name.starts_with(TEMPLATES)
}

/// Whether a file holds chat templates and nothing else.
pub(super) fn is_template(name: &str) -> bool {
    name.starts_with("chat_template") || name.starts_with(TEMPLATES)
}

/// What an adapter's folder has of a tokenizer.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    /// Whether it has a whole tokenizer, so that nothing of the model's is needed.
    pub(super) is_whole: bool,
    /// Whether it has a chat template.
    pub(super) has_template: bool,
}

impl TokenizerFiles {
    /// Looks what there is in `folder`; returns `None` if there is neither a tokenizer nor a template.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub(super) fn of(folder: &Path) -> Result<Option<Self>> {
        let is_whole = folder.join(TOKENIZER).exists();
        let has_template = template(folder)?.is_some();
        Ok((is_whole || has_template).then_some(Self { is_whole, has_template }))
    }
}

/// Says in what the files that a trainer saved beside an adapter differ from those of the model, in ways that change
/// what the model reads or where its answers end. Returns `None` if they do not, or if the adapter has none.
///
/// # Errors
/// Fails if a file cannot be read.
pub(crate) fn difference(model: &Path, adapter: &Path) -> Result<Option<String>> {
    let mut found = Vec::new();
    let own = template(adapter)?.filter(|own| !own.is_empty());
    if own.is_some() && template(model)? != own {
        found.push("a chat template");
    }
    let both = |name: &str| {
        Ok::<_, crate::Error>((read_if_there(&adapter.join(name))?, read_if_there(&model.join(name))?))
    };
    if let (Some(own), usual) = both(TOKENIZER)? {
        let usual = usual.unwrap_or_default();
        if own.get("added_tokens") != usual.get("added_tokens") {
            found.push("added tokens");
        }
        let rest = |tokenizer: &Map<String, Value>| {
            let mut rest = tokenizer.clone();
            rest.remove("added_tokens");
            rest
        };
        if rest(&own) != rest(&usual) {
            found.push("a tokenizer");
        }
    }
    if let (Some(own), usual) = both(CONFIG)? {
        let end = |config: &Map<String, Value>| config.get("eos_token").map(token_text);
        if end(&own).is_some_and(|own| usual.as_ref().and_then(end) != Some(own)) {
            found.push("an end token");
        }
    }
    if let (Some(own), usual) = both(GENERATION)?
        && usual.as_ref() != Some(&own)
    {
        found.push("a generation config");
    }
    Ok(match found.as_slice() {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first @ .., last] => Some(format!("{} and {last}", first.join(", "))),
    })
}

/// Returns the text of a token, which is written as it is or as an object.
fn token_text(token: &Value) -> String {
    let content = token.get("content").unwrap_or(token);
    content.as_str().map_or_else(|| content.to_string(), str::to_owned)
}

/// Returns the chat template of a folder as it is written: in a file of its own, which comes first, or in the
/// tokenizer's configuration.
fn template(folder: &Path) -> Result<Option<String>> {
    if let Ok(text) = fs::read_to_string(folder.join(TEMPLATE)) {
        return Ok(Some(text));
    }
    let config = read_if_there(&folder.join(CONFIG))?.unwrap_or_default();
    let template = config.get("chat_template").filter(|template| !template.is_null());
    Ok(template.map(|template| template.as_str().map_or_else(|| template.to_string(), str::to_owned)))
}

fn read_if_there(path: &Path) -> Result<Option<Map<String, Value>>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}
