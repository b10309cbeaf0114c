//! The chat template of a model, which renders messages as the text of a prompt.
//! Knows nothing of tokens.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protocol::Conversation;
use serde_json::{Map, Value, json};

use super::config::read_json_if_present;
pub use super::template::OutOfBudget;
use super::template::render;
use super::tokenizer::{TextFolders, special_tokens};

/// The templates of one model by name, and the special tokens that they may name.
pub struct ChatTemplate {
    folder: PathBuf,
    templates: BTreeMap<String, String>,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else `chat_template` of `tokenizer_config.json`.
    ///
    /// # Errors
    /// Fails if a file cannot be read or if no folder has a chat template.
    pub fn load<'a>(folders: impl Into<TextFolders<'a>>) -> Result<Self> {
        let folders = folders.into();
        let config = read_json_if_present(&folders.file(CONFIG))?.unwrap_or(Value::Null);
        let special_tokens = special_tokens(&config);
        for folder in folders.own.into_iter().chain([folders.model]) {
            let templates = templates_in(folder)?;
            if !templates.is_empty() {
                return Ok(Self { folder: folder.to_path_buf(), templates, special_tokens });
            }
        }
        bail!("{} has no chat template", folders.model.display())
    }

    /// Renders the messages as a prompt that ends where the assistant's answer begins.
    ///
    /// Each message has a `role` and whatever else the template reads, such as `content` or `tool_calls`. The tools
    /// are a list of JSON schemas, as `transformers` takes them.
    ///
    /// # Errors
    /// Fails if the folder has no default template, if the template cannot be rendered, or with
    /// [`OutOfBudget`].
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let Conversation { messages, tools, date, template_args } = conversation;
        let source = self.source(tools.is_some())?;
        let tokens =
            self.special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str())));
        let mut variables: Map<String, Value> = tokens.collect();
        variables.extend(template_args.clone());
        let own = [
            ("messages", json!(messages)),
            ("tools", tools.clone().unwrap_or_default()),
            ("documents", Value::Null),
            ("add_generation_prompt", true.into()),
        ];
        variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let rendered = render(source, &variables, *date);
        if rendered.as_ref().is_err_and(|error| error.is::<OutOfBudget>()) {
            return rendered;
        }
        rendered.with_context(|| format!("cannot render the chat template of {}", self.folder.display()))
    }

    /// Returns the form in which the template shows tool calls, by the name of mlx-lm's parser. Source:
    /// `_infer_tool_parser` of mlx-lm's `tokenizer_utils.py`; it has no parser for gpt-oss.
    pub fn tool_format(&self, with_tools: bool) -> Option<&'static str> {
        let source = self.source(with_tools).ok()?;
        let has = |marks: &[&str]| marks.iter().all(|mark| source.contains(mark));
        const FORMS: [(&[&str], &str); 15] = [
            (&["<minimax:tool_call>"], "minimax_m2"),
            (&["<|tool_call>", "<tool_call|>"], "gemma4"),
            (&["<start_function_call>"], "function_gemma"),
            (&["<longcat_tool_call>"], "longcat"),
            (&["<arg_key>"], "glm47"),
            (&["<|tool_list_start|>"], "pythonic"),
            (&["<|tool_call_start|>"], "pythonic"),
            (&["<tool_call>\\n<function="], "qwen3_coder"),
            (&["<tool_call>\n<function="], "qwen3_coder"),
            (&["<|tool_calls_section_begin|>"], "kimi_k2"),
            (&["<function name=\"", "<param name=\""], "minicpm5"),
            (&["[TOOL_CALLS]"], "mistral"),
            (&["<atem:function_calls>"], "muse_spark"),
            (&["<tool_call>", "tool_call.name"], "json_tools"),
            (&["<|channel|>commentary", "to=functions."], "harmony"),
        ];
        FORMS.iter().find(|(marks, _)| has(marks)).map(|(_, form)| *form)
    }

    fn source(&self, with_tools: bool) -> Result<&str> {
        let for_tools = self.templates.get(TOOL_USE).filter(|_| with_tools);
        let source = for_tools.or_else(|| self.templates.get(DEFAULT));
        source
            .map(String::as_str)
            .with_context(|| format!("{} has no default chat template", self.folder.display()))
    }
}

const CONFIG: &str = "tokenizer_config.json";

/// Returns the templates of a folder by name; none if it has none. A file comes before what the configuration says.
fn templates_in(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join(CONFIG);
    let config = read_json_if_present(&path)?.unwrap_or(Value::Null);
    let beside = folder.join("chat_template.jinja");
    let mut found = if beside.exists() {
        BTreeMap::from([(DEFAULT.to_owned(), read_template(&beside)?)])
    } else {
        templates(&config).with_context(|| path.display().to_string())?
    };
    let named = folder.join("additional_chat_templates");
    if named.is_dir() {
        for entry in fs::read_dir(&named).with_context(|| format!("cannot read {}", named.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", named.display()))?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jinja"));
            if let Some(name) = name.map(str::to_owned) {
                found.insert(name, read_template(&path)?);
            }
        }
    }
    Ok(found)
}

fn read_template(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

fn templates(config: &Value) -> Result<BTreeMap<String, String>> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(source)) => Ok(BTreeMap::from([(DEFAULT.to_owned(), source.clone())])),
        Some(Value::Array(named)) => named.iter().map(named_template).collect(),
        Some(_) => bail!("chat_template is neither a string nor a list"),
    }
}

fn named_template(entry: &Value) -> Result<(String, String)> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    text("name").zip(text("template")).context("a chat_template without name or template")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(messages: &[Value]) -> Conversation {
        Conversation {
            messages: messages.to_vec(),
            tools: None,
            date: protocol::Date::default(),
            template_args: Map::new(),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests write scratch files")]
    fn tools_take_the_template_for_tools_and_arguments_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("chat_template.jinja"), "{{ enable_thinking is defined }}").unwrap();
        fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
        fs::write(
            folder.path().join("additional_chat_templates/tool_use.jinja"),
            "tools, {{ enable_thinking }}",
        )
        .unwrap();
        let template = ChatTemplate::load(folder.path()).unwrap();
        let mut conversation = asked(&[]);
        assert_eq!(template.render(&conversation).unwrap(), "False");
        conversation.template_args.insert("enable_thinking".to_owned(), json!(false));
        assert_eq!(template.render(&conversation).unwrap(), "True");
        conversation.tools = Some(json!([]));
        assert_eq!(template.render(&conversation).unwrap(), "tools, False");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests write scratch files")]
    fn the_template_of_an_adapter_comes_first_with_the_tokens_of_the_model() {
        let (model, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(model.path().join("chat_template.jinja"), "of the model").unwrap();
        fs::write(model.path().join(CONFIG), r#"{"bos_token": "<s>"}"#).unwrap();
        let rendered = || {
            let folders = TextFolders { model: model.path(), own: Some(own.path()) };
            ChatTemplate::load(folders).unwrap().render(&asked(&[])).unwrap()
        };
        assert_eq!(rendered(), "of the model");
        fs::write(own.path().join("chat_template.jinja"), "{{ bos_token }}of the adapter").unwrap();
        assert_eq!(rendered(), "<s>of the adapter");
        fs::remove_file(own.path().join("chat_template.jinja")).unwrap();
        fs::write(own.path().join(CONFIG), r#"{"bos_token": "<b>", "chat_template": "{{ bos_token }}"}"#)
            .unwrap();
        assert_eq!(rendered(), "<b>");
    }
}
