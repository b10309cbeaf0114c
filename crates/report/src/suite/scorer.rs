//! What is expected of an answer, and how much of it an answer has.
//! Knows nothing of how an answer was got.

use fancy_regex::{Regex, RegexBuilder};

use super::call::{Call, Calls};
use text::yaml::{Fields, Problem, Tree, Value};

/// How many steps back a regular expression may take on one answer.
const BACKTRACKS: usize = 1_000_000;

/// A regular expression took more steps than it may, so it is not known whether it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its `regex` ran out of its budget of {BACKTRACKS} steps")]
pub(super) struct OutOfBudget;

/// One requirement on an answer.
#[derive(Debug)]
pub(super) enum Scorer {
    /// `expect`: whether the model must call a tool.
    Kind { tool: bool },
    /// `answer`: exactly this text, apart from white space around it.
    Exact(String),
    /// `contains`: all of these texts.
    Contains(Vec<String>),
    /// `regex`: a match anywhere in the answer.
    Regex(Box<Regex>),
    /// `tool_call`: a call of this tool, with these arguments if any are given.
    Call(Call),
    /// `tool_calls`: these calls and no others, in this order.
    Calls(Vec<Call>),
}

/// The key of the scorer that compares the exact text.
pub(super) const EXACT: &str = "answer";

impl Scorer {
    /// Returns its key in a suite.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "expect",
            Self::Exact(_) => EXACT,
            Self::Contains(_) => "contains",
            Self::Regex(_) => "regex",
            Self::Call(_) => "tool_call",
            Self::Calls(_) => "tool_calls",
        }
    }

    /// Returns how much of what is wanted an answer has, from 0 to 1. It passes if it has all. `text` is the last
    /// thing that was said, and `calls` are those of all rounds.
    pub(super) fn credit(&self, text: &str, calls: &Calls) -> Result<f64, OutOfBudget> {
        let all_or_nothing = |holds: bool| if holds { 1.0 } else { 0.0 };
        Ok(match self {
            Self::Kind { tool } => all_or_nothing(calls.is_meant == *tool),
            Self::Exact(answer) => all_or_nothing(answer.trim() == text.trim()),
            Self::Contains(parts) => {
                let found = parts.iter().filter(|part| text.contains(part.as_str())).count();
                found as f64 / parts.len().max(1) as f64
            }
            Self::Regex(regex) => all_or_nothing(regex.is_match(text).map_err(|_| OutOfBudget)?),
            Self::Call(call) => calls.read.iter().map(|made| call.credit(made)).fold(0.0, f64::max),
            Self::Calls(wanted) => in_order(wanted, &calls.read),
        })
    }

    /// Says what is wanted, for people.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Kind { tool: true } => "a tool call".to_owned(),
            Self::Kind { tool: false } => "no tool call".to_owned(),
            Self::Exact(answer) => answer.clone(),
            Self::Contains(parts) => parts.join(" … "),
            Self::Regex(regex) => format!("/{}/", regex.as_str()),
            Self::Call(call) => call.to_string(),
            Self::Calls(calls) => calls.iter().map(Call::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Returns the share of calls that were made in the wanted order: the longest common subsequence over the longer list.
fn in_order(wanted: &[Call], made: &[Call]) -> f64 {
    let mut above = vec![0_usize; made.len() + 1];
    for call in wanted {
        let mut row = vec![0];
        for (place, one) in made.iter().enumerate() {
            let left = row[place];
            row.push(if call.is_made_by(one) { above[place] + 1 } else { left.max(above[place + 1]) });
        }
        above = row;
    }
    let most = wanted.len().max(made.len()).max(1);
    above.last().copied().unwrap_or(0) as f64 / most as f64
}

/// Reads the scorers of a query.
pub(super) fn read_scorers(fields: &mut Fields) -> Result<Vec<Scorer>, Problem> {
    let mut scorers = Vec::new();
    let kind = fields.word("expect", &[("tool", true), ("direct", false)])?;
    scorers.extend(kind.map(|tool| Scorer::Kind { tool }));
    scorers.extend(fields.optional_text(EXACT)?.map(|(answer, _)| Scorer::Exact(answer)));
    scorers.extend(fields.take("contains").map(read_contains).transpose()?);
    if let Some((pattern, at)) = fields.optional_text("regex")? {
        let regex = RegexBuilder::new(&pattern).backtrack_limit(BACKTRACKS).build();
        let regex = regex.map_err(|error| Problem::new(at, format!("`regex` cannot be read: {error}")))?;
        scorers.push(Scorer::Regex(Box::new(regex)));
    }
    scorers.extend(fields.take("tool_call").map(|tree| read_call(tree).map(Scorer::Call)).transpose()?);
    if let Some(tree) = fields.take("tool_calls") {
        let Value::List(calls) = tree.value else {
            return Err(Problem::new(
                tree.at,
                "`tool_calls` must be a list, such as `- {name: get_weather}`",
            ));
        };
        scorers.push(Scorer::Calls(calls.into_iter().map(read_call).collect::<Result<_, _>>()?));
    }
    Ok(scorers)
}

fn read_contains(tree: Tree) -> Result<Scorer, Problem> {
    let at = tree.at;
    let parts = match tree.value {
        Value::List(parts) => parts,
        _ => vec![tree],
    };
    let texts = parts.into_iter().map(|part| match part.value {
        Value::Text(text) if !text.is_empty() => Ok(text),
        // YAML reads `contains: 4` as a number.
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(Problem::new(
            part.at,
            format!("`contains` must be a text or a list of texts, not {}", part.kind()),
        )),
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() {
        return Err(Problem::new(at, "`contains` is empty"));
    }
    Ok(Scorer::Contains(texts))
}

fn read_call(tree: Tree) -> Result<Call, Problem> {
    let mut fields = Fields::open(tree, "a tool call")?;
    let (name, _) = fields.text("name")?;
    let arguments = fields.take("arguments").map(|tree| tree.to_json());
    fields.finish()?;
    Ok(Call { name, arguments })
}
