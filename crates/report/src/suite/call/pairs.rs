//! Calls with keys and values by turns: GLM, Laguna, LongCat.
//! Knows nothing of other forms.

use super::Call;
use super::schema::{Schemas, object};

/// The tags of a form.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::suite) struct Pairs {
    /// What opens and closes a call.
    call: [&'static str; 2],
    /// What opens a key.
    pub(super) key: &'static str,
    key_end: &'static str,
    value: [&'static str; 2],
}

pub(super) const GLM47: Pairs = Pairs {
    call: ["<tool_call>", "</tool_call>"],
    key: "<arg_key>",
    key_end: "</arg_key>",
    value: ["<arg_value>", "</arg_value>"],
};

pub(super) const LONGCAT: Pairs = Pairs {
    call: ["<longcat_tool_call>", "</longcat_tool_call>"],
    key: "<longcat_arg_key>",
    key_end: "</longcat_arg_key>",
    value: ["<longcat_arg_value>", "</longcat_arg_value>"],
};

impl Pairs {
    /// Returns the calls in a text.
    pub(super) fn calls(&self, text: &str, schemas: &Schemas<'_>) -> Vec<Call> {
        let parts = text.split(self.call[0]).skip(1);
        parts.filter_map(|part| self.call(part.split(self.call[1]).next()?, schemas)).collect()
    }

    fn call(&self, part: &str, schemas: &Schemas<'_>) -> Option<Call> {
        let (name, pairs) = part.split_once(self.key)?;
        let name = name.trim();
        let arguments = pairs.split(self.key).filter_map(|pair| {
            let (key, rest) = pair.split_once(self.key_end)?;
            let (_, value) = rest.split_once(self.value[0])?;
            let (key, value) = (key.trim(), value.split(self.value[1]).next()?.trim());
            Some((key.to_owned(), schemas.read(name, key, value)))
        });
        Some(Call { name: name.to_owned(), arguments: Some(object(arguments)) })
    }
}
