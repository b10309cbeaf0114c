//! Converts text to token ids and back, and knows which ids end an answer.
//! Knows nothing of chat templates or models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use protocol::ModelFolders;
use serde_json::Value;

use super::config::{read_json, read_json_if_present};

/// The folders that the files of a tokenizer and of its chat templates are looked for in.
#[derive(Clone, Copy, Debug)]
pub struct TextFolders<'a> {
    /// The folder of the model.
    pub model: &'a Path,
    /// A folder whose files come before those of the model, if there is one.
    pub own: Option<&'a Path>,
}

impl<'a> From<&'a ModelFolders> for TextFolders<'a> {
    fn from(folders: &'a ModelFolders) -> Self {
        Self { model: &folders.model, own: folders.tokenizer.as_deref() }
    }
}

impl<'a> From<&'a Path> for TextFolders<'a> {
    fn from(model: &'a Path) -> Self {
        Self { model, own: None }
    }
}

impl TextFolders<'_> {
    /// Returns the path of a file: in the model's folder unless there is one that comes before it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let own = self.own.map(|own| own.join(name)).filter(|path| path.exists());
        own.unwrap_or_else(|| self.model.join(name))
    }
}

/// The tokenizer of a model folder.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    eos_token_ids: BTreeSet<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and the end-of-sequence ids from all files that may name one.
    ///
    /// # Errors
    /// Fails if `tokenizer.json` or `config.json` is missing, or if one of the files cannot be read.
    pub fn load<'a>(folders: impl Into<TextFolders<'a>>) -> Result<Self> {
        let folders = folders.into();
        let path = folders.file("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
        let eos_token_ids = eos_token_ids(folders, &inner)?;
        Ok(Self { path, inner, eos_token_ids })
    }

    /// Encodes a rendered prompt. Special tokens in the text are recognized, but none are added: the chat
    /// template has already placed them.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    /// Encodes a plain text, and adds the special tokens that the tokenizer puts around a text.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot encode the text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, true)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|error| anyhow!("{} cannot encode the text: {error}", self.path.display()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes an answer up to its end-of-sequence token, which is left out.
    ///
    /// Other special tokens are kept, as in mlx-lm's output: some models mark tool calls with one.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot decode the tokens.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let end = tokens.iter().position(|token| self.eos_token_ids.contains(token));
        let answer = tokens.get(..end.unwrap_or(tokens.len())).unwrap_or(tokens);
        self.inner
            .decode(answer, false)
            .map_err(|error| anyhow!("{} cannot decode the answer: {error}", self.path.display()))
    }

    /// Returns the ids that end an answer.
    pub fn eos_token_ids(&self) -> &BTreeSet<u32> {
        &self.eos_token_ids
    }
}

/// Returns the special tokens of a `tokenizer_config.json`, by the names that templates use for them.
pub(crate) fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    const NAMES: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    NAMES
        .into_iter()
        .filter_map(|name| {
            let token = config.get(name)?;
            // A token is either its text or an `AddedToken` written out as an object.
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect()
}

fn eos_token_ids(folders: TextFolders<'_>, tokenizer: &tokenizers::Tokenizer) -> Result<BTreeSet<u32>> {
    let mut ids = named_ids(&read_json(&folders.model.join("config.json"))?);
    if let Some(config) = read_json_if_present(&folders.file("generation_config.json"))? {
        ids.append(&mut named_ids(&config));
    }
    if let Some(config) = read_json_if_present(&folders.file("tokenizer_config.json"))? {
        let token = special_tokens(&config).remove("eos_token");
        ids.extend(token.and_then(|token| tokenizer.token_to_id(&token)));
    }
    Ok(ids)
}

/// Reads `eos_token_id`, which is one id, a list of ids, or absent.
fn named_ids(config: &Value) -> BTreeSet<u32> {
    let value = config.get("eos_token_id").unwrap_or(&Value::Null);
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    values.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn eos_token_id_is_one_or_many() {
        assert_eq!(named_ids(&json!({"eos_token_id": 2})), BTreeSet::from([2]));
        assert_eq!(named_ids(&json!({"eos_token_id": [2, 7]})), BTreeSet::from([2, 7]));
        assert_eq!(named_ids(&json!({"eos_token_id": null})), BTreeSet::new());
    }

    #[test]
    fn special_tokens_are_text_or_written_out() {
        let config = json!({"bos_token": null, "eos_token": {"content": "</s>", "lstrip": false}});
        let expected = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
        assert_eq!(special_tokens(&config), expected);
    }
}
