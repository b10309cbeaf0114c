//! What tools return, so that a conversation goes on after a call.
//! Knows nothing of how an answer is scored.

use serde_json::{Value as Json, json};

use super::call::Call;
use protocol::Conversation;
use text::yaml::{Fields, Problem, Tree, Value};

/// How many times a model may speak, if the query does not say.
const ROUNDS: usize = 8;

/// The most rounds of a query.
const MOST_ROUNDS: usize = 1000;

/// What the tools of a query return.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    results: Vec<ToolResult>,
    /// How many times the model may speak.
    rounds: usize,
}

/// What one call returns.
#[derive(Clone, Debug)]
struct ToolResult {
    call: Call,
    content: String,
}

impl Tools {
    /// Reads `tool_results` and `rounds`. Where the query does not say, `common` applies.
    pub(super) fn read(fields: &mut Fields, common: Option<&Self>) -> Result<Option<Self>, Problem> {
        let tree = fields.take("tool_results");
        let at = fields.at();
        let rounds = fields.count("rounds")?;
        let results = match tree {
            Some(tree) => read_results(tree)?,
            None => match common {
                Some(common) => common.results.clone(),
                None if rounds.is_some() => {
                    return Err(Problem::new(
                        at,
                        "`rounds` needs `tool_results`: without them there is one round",
                    ));
                }
                None => return Ok(None),
            },
        };
        if rounds.is_some_and(|rounds| rounds > MOST_ROUNDS) {
            return Err(Problem::new(at, format!("`rounds` must be at most {MOST_ROUNDS}")));
        }
        let rounds = rounds.or(common.map(|common| common.rounds)).unwrap_or(ROUNDS);
        Ok(Some(Self { results, rounds }))
    }

    /// Returns the conversation after the model has made some calls in each of its turns; `None` if it ends there: the
    /// last turn has no call, a call has no result, or there were enough rounds. `turns` has what was called, turn by
    /// turn.
    pub(super) fn after(&self, begin: &Conversation, turns: &[Vec<Call>]) -> Option<Conversation> {
        let mut conversation = begin.clone();
        let mut number = 0;
        for calls in turns {
            let results = calls.iter().map(|call| self.result(call)).collect::<Option<Vec<_>>>()?;
            if calls.is_empty() {
                return None;
            }
            let ids: Vec<_> = calls.iter().map(|_| id(&mut number)).collect();
            let made = calls.iter().zip(&ids).map(|(call, id)| {
                let arguments = call.arguments.clone().unwrap_or_else(|| json!({}));
                json!({"type": "function", "id": id, "function": {"name": call.name, "arguments": arguments}})
            });
            let made: Vec<Json> = made.collect();
            conversation.messages.push(json!({"role": "assistant", "content": "", "tool_calls": made}));
            for ((call, id), result) in calls.iter().zip(&ids).zip(results) {
                let message =
                    json!({"role": "tool", "name": call.name, "tool_call_id": id, "content": result});
                conversation.messages.push(message);
            }
        }
        (turns.len() < self.rounds).then_some(conversation)
    }

    fn result(&self, made: &Call) -> Option<&str> {
        let result = self.results.iter().find(|result| result.call.is_made_by(made));
        result.map(|result| result.content.as_str())
    }
}

/// Returns the next name of a call. Some templates ask for nine letters and digits.
fn id(number: &mut usize) -> String {
    *number += 1;
    format!("call{number:05}")
}

/// Reads what calls return: a map from the name of a tool, or a list with arguments too. The first that fits counts.
fn read_results(tree: Tree) -> Result<Vec<ToolResult>, Problem> {
    match tree.value {
        Value::Map(_) => {
            let named = Fields::open(tree, "`tool_results`")?.rest();
            let result = |(key, tree): (text::yaml::Key, Tree)| ToolResult {
                call: Call { name: key.text, arguments: None },
                content: content(&tree),
            };
            Ok(named.into_iter().map(result).collect())
        }
        Value::List(results) => results.into_iter().map(read_result).collect(),
        _ => Err(Problem::new(
            tree.at,
            "`tool_results` must be a map from tools to what they return, such as `{get_weather: sunny}`, or a list",
        )),
    }
}

fn read_result(tree: Tree) -> Result<ToolResult, Problem> {
    let mut fields = Fields::open(tree, "a tool result")?;
    let (name, _) = fields.text("name")?;
    let arguments = fields.take("arguments").map(|tree| tree.to_json());
    let content = content(&fields.need("result")?);
    fields.finish()?;
    Ok(ToolResult { call: Call { name, arguments }, content })
}

/// Returns the text of a result: a text as it is, everything else as JSON.
fn content(tree: &Tree) -> String {
    match tree.to_json() {
        Json::String(text) => text,
        other => other.to_string(),
    }
}
