//! One query of a suite: what is asked, and how the answer is scored.
//! Knows nothing of models or of the other queries.

use fancy_regex::{Regex, RegexBuilder};
use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};

use super::Common;
use super::call::{Call, Calls, Format, calls};
use crate::Answer;
use protocol::{Conversation, Spoken, THOUGHT_TAGS, end_of_thought};
use text::yaml::{Fields, Problem, Tree, Value};

/// One query.
#[derive(Debug)]
pub struct Query {
    /// What is asked.
    pub conversation: Conversation,
    scorers: Vec<Scorer>,
    /// How the model writes tool calls; in any form if the suite does not say.
    tool_format: Option<Format>,
}

/// How many steps back a regular expression may take on one answer.
const BACKTRACKS: usize = 1_000_000;

/// A regular expression took more steps than it may, so it is not known whether it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its `regex` ran out of its budget of {BACKTRACKS} steps")]
struct OutOfBudget;

/// One requirement on an answer.
#[derive(Debug)]
enum Scorer {
    /// `expect`: whether the answer must contain a tool call.
    Kind { tool: bool },
    /// `answer`: exactly this text, apart from white space around it.
    Exact(String),
    /// `contains`: all of these texts.
    Contains(Vec<String>),
    /// `regex`: a match anywhere in the answer.
    Regex(Box<Regex>),
    /// `tool_call`: a call of this tool, with these arguments if any are given.
    Call(Call),
}

impl Query {
    /// Reads a query from its fields. `common` applies where the query does not say otherwise.
    pub(super) fn read(mut fields: Fields, common: &Common) -> Result<Self, Problem> {
        let system = fields.optional_text("system")?.map(|(text, _)| text);
        let system = system.or_else(|| common.system.clone());
        let tools = fields.take("tools").map(|tree| tree.to_json()).or_else(|| common.tools.clone());
        let tool_format = fields.word("tool_format", &Format::WORDS)?.or(common.tool_format);
        let mut template_args = common.template_args.clone();
        template_args.extend(read_template_args(&mut fields)?);
        let messages = read_messages(&mut fields, system)?;
        let scorers = read_scorers(&mut fields)?;
        let at = fields.at();
        // Unknown keys are checked first: "did you mean" about a misspelt scorer helps more than "there is no
        // scorer".
        fields.finish()?;
        if scorers.is_empty() {
            let message = "a query needs one of `expect`, `answer`, `contains`, `regex` and `tool_call`";
            return Err(Problem::new(at, message));
        }
        Ok(Self {
            conversation: Conversation { messages, tools, date: common.date, template_args },
            scorers,
            tool_format,
        })
    }

    /// Returns what is asked after this was said, or `None` at the end of the conversation.
    pub fn next(&self, said: &[Spoken]) -> Option<Conversation> {
        said.is_empty().then(|| self.conversation.clone())
    }

    /// Whether the query gives the exact answer.
    pub fn has_exact(&self) -> bool {
        self.scorers.iter().any(|scorer| matches!(scorer, Scorer::Exact(_)))
    }

    /// Whether `text` is the exact answer, apart from white space around it; false if the query gives none.
    pub fn is_exact(&self, text: &str) -> bool {
        let is_it = |scorer: &Scorer| matches!(scorer, Scorer::Exact(answer) if answer.trim() == text.trim());
        self.scorers.iter().any(is_it)
    }

    /// Scores an answer, without what the model thought before. It passes if all scorers pass. If there are other
    /// scorers, the exact text is scored too, but it does not decide whether the answer passes. A thought that does
    /// not end is no answer, and passes nothing.
    pub fn score(&self, spoken: &Spoken) -> Answer {
        let Some(said) = said(spoken) else {
            let why = if spoken.is_cut { "cut off by max_tokens" } else { "its thought has no end" };
            let scores = self.scorers.iter().map(|scorer| (scorer.word().to_owned(), false)).collect();
            return Answer { scores, no_answer: Some(why.to_owned()), ..self.answer(spoken) };
        };
        let calls = calls(said, self.tool_format, self.conversation.tools.as_ref());
        let scored =
            self.scorers.iter().map(|scorer| Ok((scorer.word().to_owned(), scorer.holds(said, &calls)?)));
        let scores = match scored.collect::<Result<IndexMap<String, bool>, OutOfBudget>>() {
            Ok(scores) => scores,
            Err(problem) => return self.not_scored(&spoken.text, problem.to_string()),
        };
        let alone = scores.len() == 1;
        let pass = scores.iter().all(|(word, holds)| *holds || (word == EXACT && !alone));
        Answer { tool_call: calls.is_meant, pass, scores, ..self.answer(spoken) }
    }

    /// Returns an answer that is wrong in every respect.
    fn answer(&self, spoken: &Spoken) -> Answer {
        Answer {
            prompt: self.prompt(),
            text: spoken.text.clone(),
            thought_tokens: spoken.thought_tokens,
            no_answer: None,
            tool_call: false,
            pass: false,
            scores: IndexMap::new(),
            not_scored: None,
        }
    }

    /// Returns an answer that is not scored. `text` is what was answered, if anything was.
    pub fn not_scored(&self, text: &str, reason: String) -> Answer {
        let spoken = Spoken { text: text.to_owned(), ..Spoken::default() };
        Answer { not_scored: Some(reason), ..self.answer(&spoken) }
    }

    fn prompt(&self) -> String {
        let users = self.conversation.messages.iter().rev();
        let last = users.into_iter().find(|message| message.get("role") == Some(&json!("user")));
        last.and_then(|message| message.get("content")?.as_str()).unwrap_or_default().to_owned()
    }
}

/// Returns what is said after the thought; `None` if the thought has no end.
fn said(spoken: &Spoken) -> Option<&str> {
    let Spoken { text, opens_thought, .. } = spoken;
    let begins = || THOUGHT_TAGS.iter().any(|[open, _]| text.trim_start().starts_with(open));
    let rest = match end_of_thought(text, *opens_thought) {
        Some(end) => &text[end..],
        None if *opens_thought || begins() => return None,
        None => text,
    };
    // gpt-oss names the channel of its answer.
    Some(rest.rsplit_once(FINAL).map_or(rest, |(_, answer)| answer))
}

/// What gpt-oss writes before an answer to the user.
const FINAL: &str = "<|channel|>final<|message|>";

/// The key of the scorer that compares the exact text.
const EXACT: &str = "answer";

impl Scorer {
    fn word(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "expect",
            Self::Exact(_) => EXACT,
            Self::Contains(_) => "contains",
            Self::Regex(_) => "regex",
            Self::Call(_) => "tool_call",
        }
    }

    fn holds(&self, text: &str, calls: &Calls) -> Result<bool, OutOfBudget> {
        Ok(match self {
            Self::Kind { tool } => calls.is_meant == *tool,
            Self::Exact(answer) => answer.trim() == text.trim(),
            Self::Contains(parts) => parts.iter().all(|part| text.contains(part)),
            Self::Regex(regex) => regex.is_match(text).map_err(|_| OutOfBudget)?,
            Self::Call(call) => calls.read.iter().any(|made| call.is_made_by(made)),
        })
    }
}

/// Reads `chat_template_args`, a map. Its values are what the template gets under these names.
pub(super) fn read_template_args(fields: &mut Fields) -> Result<Map<String, Json>, Problem> {
    let Some(tree) = fields.take("chat_template_args") else { return Ok(Map::new()) };
    let at = tree.at;
    let Json::Object(arguments) = tree.to_json() else {
        return Err(Problem::new(
            at,
            "`chat_template_args` must be a map, such as `{enable_thinking: false}`",
        ));
    };
    // The template gets these from the query itself.
    let own = ["messages", "tools", "documents", "add_generation_prompt"];
    match arguments.keys().find(|key| own.contains(&key.as_str())) {
        Some(key) => Err(Problem::new(at, format!("`chat_template_args` cannot set `{key}`"))),
        None => Ok(arguments),
    }
}

/// Reads `prompt` or `messages` and puts the system message before them. If `messages` begins with a system
/// message of its own, that one replaces it.
fn read_messages(fields: &mut Fields, system: Option<String>) -> Result<Vec<Json>, Problem> {
    let mut messages: Vec<Json> = Vec::new();
    messages.extend(system.map(|system| json!({"role": "system", "content": system})));
    let Some(tree) = fields.take("messages") else {
        let (prompt, _) = fields.text("prompt")?;
        messages.push(json!({"role": "user", "content": prompt}));
        return Ok(messages);
    };
    if let Some(prompt) = fields.take("prompt") {
        return Err(Problem::new(prompt.at, "a query has either `prompt` or `messages`"));
    }
    let at = tree.at;
    let Value::List(written) = tree.value else {
        return Err(Problem::new(at, "`messages` must be a list, such as `- {role: user, content: Hello}`"));
    };
    for (index, tree) in written.iter().enumerate() {
        let message = tree.to_json();
        let role = message.get("role").and_then(Json::as_str);
        let role = role.ok_or_else(|| Problem::new(tree.at, "a message must be a map with a `role`"))?;
        if index == 0 && role == "system" {
            messages.clear();
        }
        messages.push(message);
    }
    match messages.last().and_then(|last| last.get("role")?.as_str()) {
        None | Some("system") => Err(Problem::new(at, "`messages` asks nothing")),
        Some("assistant") => {
            Err(Problem::new(at, "`messages` ends with an answer; what is expected belongs into `answer`"))
        }
        Some(_) => Ok(messages),
    }
}

fn read_scorers(fields: &mut Fields) -> Result<Vec<Scorer>, Problem> {
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
    scorers.extend(fields.take("tool_call").map(read_call).transpose()?);
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

fn read_call(tree: Tree) -> Result<Scorer, Problem> {
    let mut fields = Fields::open(tree, "`tool_call`")?;
    let (name, _) = fields.text("name")?;
    let arguments = fields.take("arguments").map(|tree| tree.to_json());
    fields.finish()?;
    Ok(Scorer::Call(Call { name, arguments }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer without a thought.
    fn plain(text: &str) -> Spoken {
        Spoken { text: text.to_owned(), ..Spoken::default() }
    }

    fn query(text: &str) -> Query {
        Query::read(Fields::open(Tree::parse(text).unwrap(), "a query").unwrap(), &Common::default()).unwrap()
    }

    fn problem(text: &str) -> String {
        let fields = Fields::open(Tree::parse(text).unwrap(), "a query").unwrap();
        Query::read(fields, &Common::default()).unwrap_err().message
    }

    #[test]
    fn a_regex_that_runs_without_end_is_not_scored() {
        let query = query("{prompt: p, regex: '(?=(a+)+\\1b)x', contains: a}");
        let answer = query.score(&plain(&"a".repeat(60)));
        assert_eq!(answer.not_scored.as_deref(), Some("its `regex` ran out of its budget of 1000000 steps"));
        assert!(!answer.pass && answer.scores.is_empty());
        assert_eq!(query.score(&plain("nothing")).not_scored, None);
    }

    #[test]
    fn the_very_text_is_scored_apart_unless_it_is_all_that_is_asked() {
        let both = query("{prompt: p, expect: direct, answer: Black.}");
        let wrong = both.score(&plain("White."));
        assert!(wrong.pass && !wrong.scores["answer"]);
        assert!(!both.score(&plain("<tool_call>{}</tool_call>")).pass);
        assert!(both.score(&plain(" Black.\n")).scores["answer"]);
        assert!(!query("{prompt: p, answer: Black.}").score(&plain("White.")).pass);
    }

    #[test]
    fn what_the_model_thinks_is_not_scored() {
        let direct = query("{prompt: p, expect: direct}");
        let contains = query("{prompt: p, contains: Paris}");
        let call = "{\"name\": \"look_up\", \"arguments\": {\"place\": \"Paris\"}}";
        let thought = plain(&format!("<think>\nNot Paris? {call} would be wrong.\n</think>\n\nLyon."));
        assert!(direct.score(&thought).pass && !contains.score(&thought).pass);
        assert!(query("{prompt: p, answer: Lyon.}").score(&thought).pass);
        // The prompt opened the block.
        let opened = Spoken { opens_thought: true, ..plain("Paris?</think>Lyon.") };
        assert!(!contains.score(&opened).pass);
        // gpt-oss thinks in one channel and answers in another.
        let harmony =
            "<|channel|>analysis<|message|>Paris?<|end|><|start|>assistant<|channel|>final<|message|>Lyon.";
        assert!(query("{prompt: p, answer: Lyon.}").score(&plain(harmony)).pass);
    }

    #[test]
    fn a_thought_without_an_end_is_no_answer() {
        let direct = query("{prompt: p, expect: direct}");
        let cut = Spoken { is_cut: true, thought_tokens: 9, ..plain("<think>\nIt is") };
        let answer = direct.score(&cut);
        assert_eq!((answer.pass, answer.scores["expect"], answer.thought_tokens), (false, false, 9));
        assert_eq!(answer.no_answer.as_deref(), Some("cut off by max_tokens"));
        let ended = Spoken { opens_thought: true, ..plain("It is Paris.") };
        assert_eq!(direct.score(&ended).no_answer.as_deref(), Some("its thought has no end"));
    }

    #[test]
    fn all_scorers_must_agree() {
        let query = query("{prompt: p, contains: [Paris, France], regex: '^[A-Z]'}");
        assert!(query.score(&plain("Paris is in France.")).pass);
        let answer = query.score(&plain("in Paris, France"));
        assert!(!answer.pass && answer.scores["contains"] && !answer.scores["regex"]);
    }

    #[test]
    fn a_call_is_compared_as_json() {
        let query = query("{prompt: p, tool_call: {name: weather, arguments: {city: Paris, days: 2}}}");
        let call = r#"{"name": "weather", "arguments": {"days": 2.0, "city": "Paris"}}"#;
        assert!(query.score(&plain(&format!("<tool_call>\n{call}\n</tool_call>"))).pass);
        assert!(!query.score(&plain(&call.replace('2', "3"))).pass);
        assert!(!query.score(&plain("It rains.")).pass);
    }

    #[test]
    fn messages_may_bring_their_own_system() {
        let common = Common { system: Some("short".to_owned()), ..Common::default() };
        let read = |text: &str| {
            let fields = Fields::open(Tree::parse(text).unwrap(), "a query").unwrap();
            Query::read(fields, &common).unwrap().conversation.messages.len()
        };
        assert_eq!(read("{prompt: p, contains: x}"), 2);
        assert_eq!(read("{messages: [{role: user, content: p}], contains: x}"), 2);
        assert_eq!(
            read("{messages: [{role: system, content: s}, {role: user, content: p}], contains: x}"),
            2
        );
    }

    #[test]
    fn a_query_may_have_template_arguments_of_its_own() {
        let template_args =
            Map::from_iter([("enable_thinking".to_owned(), json!(false)), ("a".to_owned(), json!(1))]);
        let common = Common { template_args, ..Common::default() };
        let text = "{prompt: p, contains: x, chat_template_args: {a: 2, b: [3]}}";
        let read =
            Query::read(Fields::open(Tree::parse(text).unwrap(), "a query").unwrap(), &common).unwrap();
        let arguments = Json::Object(read.conversation.template_args);
        assert_eq!(arguments, json!({"enable_thinking": false, "a": 2, "b": [3]}));
        assert!(
            problem("{prompt: p, contains: x, chat_template_args: {tools: []}}")
                .contains("cannot set `tools`")
        );
        assert!(problem("{prompt: p, contains: x, chat_template_args: no}").contains("must be a map"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        assert_eq!(
            problem("{prompt: p, regexp: x}"),
            "unknown key `regexp` in a query; did you mean `regex`?"
        );
        assert!(problem("{prompt: p, regex: '('}").starts_with("`regex` cannot be read"));
        assert_eq!(problem("{messages: [], contains: x}"), "`messages` asks nothing");
        assert!(
            problem("{messages: [{role: assistant, content: a}], contains: x}")
                .contains("belongs into `answer`")
        );
        assert_eq!(
            problem("{prompt: p, messages: [], contains: x}"),
            "a query has either `prompt` or `messages`"
        );
    }
}
