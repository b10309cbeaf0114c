//! A benchmark suite as written: queries, and what is expected of each answer.
//! Knows nothing of models; scoring an answer needs only its text.

use std::path::Path;

use serde_json::Value as Json;

use crate::failure::AtPath;
use crate::yaml::{Fields, Problem, Tree, Value};

/// How many tokens an answer may have where the suite does not say.
const MAX_TOKENS: usize = 128;

/// A suite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suite {
    /// Its name in reports.
    pub name: String,
    /// The most tokens an answer may have.
    pub max_tokens: usize,
    /// The system message, if any.
    pub system: Option<String>,
    /// The tools the model is told of, as the chat template gets them.
    pub tools: Option<Json>,
    /// The queries, in order.
    pub queries: Vec<Query>,
}

/// One query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// What the user says.
    pub prompt: String,
    /// What kind of answer is right.
    pub expect: Expect,
    /// The very text that is right, if one is given.
    pub answer: Option<String>,
}

/// What kind of answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// One that holds a tool call.
    Tool,
    /// One that holds none.
    Direct,
}

impl Suite {
    /// Reads the suite at `path`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).at("read the suite", path)?;
        Self::parse(&text).map_err(|problem| anyhow::anyhow!(problem.render(path, &text)))
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let mut top = Fields::open(Tree::parse(text)?, "the suite")?;
        let (name, _) = top.text("name")?;
        let max_tokens = top.count("max_tokens")?.unwrap_or(MAX_TOKENS);
        let system = top.optional_text("system")?.map(|(text, _)| text);
        let tools = top.take("tools").map(|tree| tree.to_json());
        let queries = top.need("queries")?;
        top.finish()?;
        let at = queries.at;
        let Value::List(queries) = queries.value else {
            return Err(Problem::new(at, "`queries` must be a list"));
        };
        if queries.is_empty() {
            return Err(Problem::new(at, "`queries` is empty"));
        }
        let queries = queries.into_iter().map(read_query).collect::<Result<_, _>>()?;
        Ok(Self { name, max_tokens, system, tools, queries })
    }
}

fn read_query(tree: Tree) -> Result<Query, Problem> {
    let mut fields = Fields::open(tree, "a query")?;
    let (prompt, _) = fields.text("prompt")?;
    let expect = fields.word("expect", &[("tool", Expect::Tool), ("direct", Expect::Direct)])?;
    let expect = expect.ok_or_else(|| fields.missing("expect"))?;
    let answer = fields.optional_text("answer")?.map(|(text, _)| text);
    fields.finish()?;
    Ok(Query { prompt, expect, answer })
}

impl Query {
    /// Whether `text` is the kind of answer that is right.
    pub(super) fn passes(&self, text: &str) -> bool {
        holds_tool_call(text) == (self.expect == Expect::Tool)
    }

    /// Whether `text` is the very answer; none where no answer is given.
    pub(super) fn is_exact(&self, text: &str) -> Option<bool> {
        self.answer.as_ref().map(|answer| answer.trim() == text.trim())
    }
}

/// Whether an answer calls a tool, by the tag that Qwen, Hermes and their kin write.
pub(super) fn holds_tool_call(text: &str) -> bool {
    text.contains("<tool_call>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_kind_and_text_apart() {
        let suite = Suite::parse("name: s\nqueries: [{prompt: p, expect: direct, answer: Black.}]").unwrap();
        let query = &suite.queries[0];
        assert_eq!((query.passes("White."), query.is_exact("White.")), (true, Some(false)));
        assert_eq!(
            (query.passes("<tool_call>{}</tool_call>"), query.is_exact(" Black.\n")),
            (false, Some(true))
        );
        assert_eq!(suite.max_tokens, MAX_TOKENS);
    }

    #[test]
    fn names_the_place_of_a_mistake() {
        let problem = Suite::parse("name: s\nqueries:\n  - {prompt: p, expect: tools}\n").unwrap_err();
        assert_eq!(
            problem.to_string(),
            "3:25: `expect` must be one of tool, direct, not `tools`; did you mean `tool`?"
        );
    }
}
