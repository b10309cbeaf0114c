//! Calls in tags that name the function and each parameter: Qwen3-Coder, MiniMax, MiniCPM5, Muse Spark, and Llama's
//! `<function=NAME>{…}</function>`.
//! Knows nothing of other forms.

use serde_json::Value as Json;

use super::Call;
use super::schema::{Schemas, object};

/// The tags of a form. An opening tag ends with the first `>` after its name.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::suite) struct Tags {
    /// What an answer has if it means to call a tool.
    pub(super) mark: &'static str,
    /// What comes before the name of a function, and what ends the call.
    function: [&'static str; 2],
    /// What comes before the name of a parameter, and what ends its value.
    parameter: [&'static str; 2],
    /// Whether values are JSON where they can be read as such, not of the types that the tools declare.
    reads_json: bool,
}

pub(super) const QWEN3_CODER: Tags = Tags {
    mark: "<function=",
    function: ["<function=", "</function>"],
    parameter: ["<parameter=", "</parameter>"],
    reads_json: false,
};

pub(super) const MINIMAX_M2: Tags = Tags {
    mark: "<minimax:tool_call>",
    function: ["<invoke name=", "</invoke>"],
    parameter: ["<parameter name=", "</parameter>"],
    reads_json: false,
};

pub(super) const MINICPM5: Tags = Tags {
    mark: "<function name=",
    function: ["<function name=", "</function>"],
    parameter: ["<param name=", "</param>"],
    reads_json: false,
};

pub(super) const MUSE_SPARK: Tags = Tags {
    mark: "<atem:function_calls>",
    function: ["<atem:invoke name=", "</atem:invoke>"],
    parameter: ["<atem:parameter name=", "</atem:parameter>"],
    reads_json: true,
};

impl Tags {
    /// Returns the calls in a text.
    pub(super) fn calls(&self, text: &str, schemas: &Schemas<'_>) -> Vec<Call> {
        let parts = text.split(self.function[0]).skip(1);
        parts.filter_map(|part| self.call(part.split(self.function[1]).next()?, schemas)).collect()
    }

    /// Reads what follows the opening of a function's tag.
    fn call(&self, part: &str, schemas: &Schemas<'_>) -> Option<Call> {
        let (name, body) = part.split_once('>')?;
        let name = bare(name);
        if name.is_empty() {
            return None;
        }
        // Llama writes the arguments as JSON.
        if let Some(arguments) = serde_json::from_str::<Json>(body.trim()).ok().filter(Json::is_object) {
            return Some(Call { name: name.to_owned(), arguments: Some(arguments) });
        }
        let parameters = body.split(self.parameter[0]).skip(1).filter_map(|parameter| {
            let (key, rest) = parameter.split_once('>')?;
            let value = self.value(rest.split(self.parameter[1]).next()?);
            let key = bare(key);
            let value = if self.reads_json {
                serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.trim().to_owned()))
            } else {
                schemas.typed(name, key, value)
            };
            Some((key.to_owned(), value))
        });
        Some(Call { name: name.to_owned(), arguments: Some(object(parameters)) })
    }

    /// Returns a value without the line breaks around it, and without the mark of text that has tags in it.
    fn value<'a>(&self, text: &'a str) -> &'a str {
        let marked = text.trim().strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>"));
        let inner = text.strip_prefix('\n').unwrap_or(text);
        marked.unwrap_or_else(|| inner.strip_suffix('\n').unwrap_or(inner))
    }
}

/// Returns a name without the quotes around it.
fn bare(name: &str) -> &str {
    name.trim().trim_matches(['"', '\''])
}
