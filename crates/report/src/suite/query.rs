//! One query of a suite: what is asked, what tools return, and how the answers are scored.
//! Knows nothing of models or of the other queries.

use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};

use super::Common;
use super::call::{Calls, Format, calls};
use super::sampling::Samples;
use super::scorer::{EXACT, OutOfBudget, Scorer, read_scorers};
use super::tools::Tools;
use crate::{Answer, Sample};
use protocol::{Conversation, Sampling, Spoken, THOUGHT_TAGS, end_of_thought};
use text::yaml::{Fields, Problem, Value};

/// One query.
#[derive(Debug)]
pub struct Query {
    /// What is asked first.
    pub conversation: Conversation,
    scorers: Vec<Scorer>,
    /// How the model writes tool calls; as its chat template says, or in any form, if the suite does not say.
    tool_format: Option<Format>,
    tools: Option<Tools>,
    samples: Option<Samples>,
    category: Option<String>,
    weight: f64,
}

/// The largest weight of a query. The smallest is 1 over it.
const MOST_WEIGHT: f64 = 1e6;

/// How one answer was scored.
struct Scored {
    text: String,
    scores: IndexMap<String, bool>,
    credit: f64,
    pass: bool,
    is_call: bool,
    no_answer: Option<&'static str>,
}

impl Query {
    /// Reads a query from its fields. `common` applies where the query does not say otherwise.
    pub(super) fn read(mut fields: Fields, common: &Common) -> Result<Self, Problem> {
        let system = fields.optional_text("system")?.map(|(text, _)| text);
        let system = system.or_else(|| common.system.clone());
        let tools = fields.take("tools").map(|tree| tree.to_json()).or_else(|| common.tools.clone());
        let tool_format = fields.word("tool_format", &Format::WORDS)?.or(common.tool_format);
        let results = Tools::read(&mut fields, common.tool_results.as_ref())?;
        let samples = Samples::read(&mut fields, common.samples)?;
        let category = fields.optional_text("category")?.map(|(text, _)| text);
        let weight = fields.positive("weight")?.unwrap_or(1.0);
        if !(1.0 / MOST_WEIGHT..=MOST_WEIGHT).contains(&weight) {
            let message = format!("`weight` must be between {} and {MOST_WEIGHT}", 1.0 / MOST_WEIGHT);
            return Err(Problem::new(fields.at(), message));
        }
        let mut template_args = common.template_args.clone();
        template_args.extend(read_template_args(&mut fields)?);
        let messages = read_messages(&mut fields, system)?;
        let scorers = read_scorers(&mut fields)?;
        let at = fields.at();
        // Unknown keys are checked first: "did you mean" about a misspelt scorer helps more than "there is no
        // scorer".
        fields.finish()?;
        if scorers.is_empty() {
            let message =
                "a query needs one of `expect`, `answer`, `contains`, `regex`, `tool_call` and `tool_calls`";
            return Err(Problem::new(at, message));
        }
        let conversation = Conversation { messages, tools, date: common.date, template_args };
        Ok(Self { conversation, scorers, tool_format, tools: results, samples, category, weight })
    }

    /// Returns how the tokens of each sample are drawn. A query that is answered greedily has one.
    pub fn samplings(&self) -> Vec<Option<Sampling>> {
        self.samples.map_or_else(|| vec![None], |samples| samples.each().map(Some).collect())
    }

    /// Returns what is asked after this was said, or `None` at the end of the conversation.
    pub fn next(&self, said: &[Spoken]) -> Option<Conversation> {
        if said.is_empty() {
            return Some(self.conversation.clone());
        }
        let turns: Option<Vec<_>> =
            said.iter().map(|spoken| Some(self.calls(spoken, after_thought(spoken)?).read)).collect();
        self.tools.as_ref()?.after(&self.conversation, &turns?)
    }

    /// Whether it is answered at random, perhaps several times.
    pub fn has_samples(&self) -> bool {
        self.samples.is_some()
    }

    /// Whether it belongs to a category.
    pub fn is_in(&self, category: &str) -> bool {
        self.category.as_deref() == Some(category)
    }

    /// Whether the query gives the exact answer.
    pub fn has_exact(&self) -> bool {
        self.scorers.iter().any(|scorer| matches!(scorer, Scorer::Exact(_)))
    }

    /// Scores what was said, turn by turn, in each sample.
    ///
    /// A sample passes if all scorers pass. If there are other scorers, the exact text is scored too, but it does not
    /// decide whether the sample passes. A thought that does not end is no answer, and passes nothing. The answer passes
    /// if at least half of its samples do.
    pub fn score(&self, samples: &[Vec<Spoken>]) -> Answer {
        let scored: Result<Vec<_>, OutOfBudget> = samples.iter().map(|turns| self.score_one(turns)).collect();
        let first = samples.first().map_or(&[][..], Vec::as_slice);
        let answer = self.answer(first);
        let scored = match scored {
            Ok(scored) => scored,
            Err(problem) => return Answer { not_scored: Some(problem.to_string()), ..answer },
        };
        let Some(Scored { text, scores, is_call, no_answer, .. }) = scored.first() else { return answer };
        let count = scored.len() as f64;
        let passed = scored.iter().filter(|one| one.pass).count();
        let credit = scored.iter().map(|one| one.credit).sum::<f64>() / count;
        let pass = 2 * passed >= scored.len();
        let sample = |one: &Scored| Sample { text: one.text.clone(), pass: one.pass };
        Answer {
            text: text.clone(),
            no_answer: no_answer.map(str::to_owned),
            tool_call: *is_call,
            pass,
            scores: scores.clone(),
            credit: (credit != f64::from(u8::from(pass))).then_some(credit),
            samples: if self.samples.is_some() { scored.iter().map(sample).collect() } else { Vec::new() },
            ..answer
        }
    }

    fn score_one(&self, turns: &[Spoken]) -> Result<Scored, OutOfBudget> {
        let text = turns.last().map_or_else(String::new, |spoken| spoken.text.clone());
        let said: Option<Vec<_>> = turns.iter().map(after_thought).collect();
        let Some(said) = said else {
            let is_cut = turns.last().is_some_and(|spoken| spoken.is_cut);
            let why = if is_cut { "cut off by max_tokens" } else { "its thought has no end" };
            let scores = self.scorers.iter().map(|scorer| (scorer.word().to_owned(), false)).collect();
            return Ok(Scored {
                text,
                scores,
                credit: 0.0,
                pass: false,
                is_call: false,
                no_answer: Some(why),
            });
        };
        let mut calls = Calls::default();
        for (spoken, said) in turns.iter().zip(&said) {
            let Calls { read, is_meant } = self.calls(spoken, said);
            calls.read.extend(read);
            calls.is_meant |= is_meant;
        }
        let last = said.last().copied().unwrap_or_default();
        let credits = self.scorers.iter().map(|scorer| Ok((scorer, scorer.credit(last, &calls)?)));
        let credits = credits.collect::<Result<Vec<_>, OutOfBudget>>()?;
        let alone = credits.len() == 1;
        let decides = |scorer: &Scorer| scorer.word() != EXACT || alone;
        let deciding: Vec<_> =
            credits.iter().filter(|(scorer, _)| decides(scorer)).map(|(_, credit)| *credit).collect();
        Ok(Scored {
            text,
            pass: deciding.iter().all(|credit| *credit >= 1.0),
            credit: deciding.iter().sum::<f64>() / deciding.len().max(1) as f64,
            scores: credits
                .iter()
                .map(|(scorer, credit)| (scorer.word().to_owned(), *credit >= 1.0))
                .collect(),
            is_call: calls.is_meant,
            no_answer: None,
        })
    }

    /// Reads the calls in what was said after the thought.
    fn calls(&self, spoken: &Spoken, said: &str) -> Calls {
        let of_template = || {
            let name = spoken.tool_format.as_deref()?;
            Format::WORDS.iter().find(|(word, _)| *word == name).map(|(_, format)| *format)
        };
        calls(said, self.tool_format.or_else(of_template), self.conversation.tools.as_ref())
    }

    /// Returns an answer that is wrong in every respect.
    fn answer(&self, turns: &[Spoken]) -> Answer {
        let earlier = turns.split_last().map_or(&[][..], |(_, earlier)| earlier);
        Answer {
            prompt: self.prompt(),
            text: turns.last().map_or_else(String::new, |spoken| spoken.text.clone()),
            turns: earlier.iter().map(|spoken| spoken.text.clone()).collect(),
            thought_tokens: turns.iter().map(|spoken| spoken.thought_tokens).sum(),
            no_answer: None,
            tool_call: false,
            pass: false,
            scores: IndexMap::new(),
            wanted: self.scorers.iter().map(|scorer| (scorer.word().to_owned(), scorer.wanted())).collect(),
            credit: None,
            category: self.category.clone(),
            weight: (self.weight != 1.0).then_some(self.weight),
            samples: Vec::new(),
            not_scored: None,
        }
    }

    /// Returns an answer that is not scored, for this reason.
    pub fn not_scored(&self, reason: String) -> Answer {
        Answer { not_scored: Some(reason), ..self.answer(&[]) }
    }

    fn prompt(&self) -> String {
        let users = self.conversation.messages.iter().rev();
        let last = users.into_iter().find(|message| message.get("role") == Some(&json!("user")));
        last.and_then(|message| message.get("content")?.as_str()).unwrap_or_default().to_owned()
    }
}

/// Returns what is said after the thought; `None` if the thought has no end.
fn after_thought(spoken: &Spoken) -> Option<&str> {
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

/// Reads `chat_template_args`, a map. Its values are what the template gets under these names.
///
/// # Errors
/// Fails when it is not a map, or when it has a name that the query itself sets.
pub fn read_template_args(fields: &mut Fields) -> Result<Map<String, Json>, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use text::yaml::Tree;

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
        let answer = query.score(&[vec![plain(&"a".repeat(60))]]);
        assert_eq!(answer.not_scored.as_deref(), Some("its `regex` ran out of its budget of 1000000 steps"));
        assert!(!answer.pass && answer.scores.is_empty());
        assert_eq!(query.score(&[vec![plain("nothing")]]).not_scored, None);
    }

    #[test]
    fn the_very_text_is_scored_apart_unless_it_is_all_that_is_asked() {
        let both = query("{prompt: p, expect: direct, answer: Black.}");
        let wrong = both.score(&[vec![plain("White.")]]);
        assert!(wrong.pass && !wrong.scores["answer"]);
        assert!(!both.score(&[vec![plain("<tool_call>{}</tool_call>")]]).pass);
        assert!(both.score(&[vec![plain(" Black.\n")]]).scores["answer"]);
        assert!(!query("{prompt: p, answer: Black.}").score(&[vec![plain("White.")]]).pass);
    }

    #[test]
    fn what_the_model_thinks_is_not_scored() {
        let direct = query("{prompt: p, expect: direct}");
        let contains = query("{prompt: p, contains: Paris}");
        let call = "{\"name\": \"look_up\", \"arguments\": {\"place\": \"Paris\"}}";
        let thought = plain(&format!("<think>\nNot Paris? {call} would be wrong.\n</think>\n\nLyon."));
        assert!(
            direct.score(&[vec![thought.clone()]]).pass && !contains.score(&[vec![thought.clone()]]).pass
        );
        assert!(query("{prompt: p, answer: Lyon.}").score(&[vec![thought.clone()]]).pass);
        // The prompt opened the block.
        let opened = Spoken { opens_thought: true, ..plain("Paris?</think>Lyon.") };
        assert!(!contains.score(&[vec![opened]]).pass);
        // gpt-oss thinks in one channel and answers in another.
        let harmony =
            "<|channel|>analysis<|message|>Paris?<|end|><|start|>assistant<|channel|>final<|message|>Lyon.";
        assert!(query("{prompt: p, answer: Lyon.}").score(&[vec![plain(harmony)]]).pass);
    }

    #[test]
    fn a_thought_without_an_end_is_no_answer() {
        let direct = query("{prompt: p, expect: direct}");
        let cut = Spoken { is_cut: true, thought_tokens: 9, ..plain("<think>\nIt is") };
        let answer = direct.score(&[vec![cut]]);
        assert_eq!((answer.pass, answer.scores["expect"], answer.thought_tokens), (false, false, 9));
        assert_eq!(answer.no_answer.as_deref(), Some("cut off by max_tokens"));
        let ended = Spoken { opens_thought: true, ..plain("It is Paris.") };
        assert_eq!(direct.score(&[vec![ended]]).no_answer.as_deref(), Some("its thought has no end"));
    }

    #[test]
    fn all_scorers_must_agree() {
        let query = query("{prompt: p, contains: [Paris, France], regex: '^[A-Z]'}");
        assert!(query.score(&[vec![plain("Paris is in France.")]]).pass);
        let answer = query.score(&[vec![plain("in Paris, France")]]);
        assert!(!answer.pass && answer.scores["contains"] && !answer.scores["regex"]);
    }

    #[test]
    fn a_call_is_compared_as_json() {
        let query = query("{prompt: p, tool_call: {name: weather, arguments: {city: Paris, days: 2}}}");
        let call = r#"{"name": "weather", "arguments": {"days": 2.0, "city": "Paris"}}"#;
        assert!(query.score(&[vec![plain(&format!("<tool_call>\n{call}\n</tool_call>"))]]).pass);
        assert!(!query.score(&[vec![plain(&call.replace('2', "3"))]]).pass);
        assert!(!query.score(&[vec![plain("It rains.")]]).pass);
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

    fn say(query: &Query, turns: &[&str]) -> Vec<Spoken> {
        let said: Vec<_> = turns.iter().map(|text| plain(text)).collect();
        assert!(query.next(&said[..said.len() - 1]).is_some(), "the last turn was not asked for");
        said
    }

    const WEATHER: &str = "{prompt: p, tool_results: {weather: {sky: clear}}, rounds: 3, \
         tool_calls: [{name: weather, arguments: {city: Oslo}}, {name: weather}], contains: clear}";

    #[test]
    fn the_conversation_goes_on_until_an_answer() {
        let query = query(WEATHER);
        let call = |city: &str| {
            format!(
                "<tool_call>{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{city}\"}}}}</tool_call>"
            )
        };
        let next = query.next(&[plain(&call("Oslo"))]).unwrap();
        let [_, made, result] = &next.messages[..] else { panic!("{:?}", next.messages) };
        assert_eq!(
            made["tool_calls"][0]["function"],
            json!({"name": "weather", "arguments": {"city": "Oslo"}})
        );
        assert_eq!(result["content"], json!("{\"sky\":\"clear\"}"));
        assert_eq!(result["tool_call_id"], made["tool_calls"][0]["id"]);
        let said = say(&query, &[&call("Oslo"), &call("Rome"), "Both are clear."]);
        assert_eq!(query.next(&said), None);
        let answer = query.score(&[said]);
        assert!(answer.pass && answer.tool_call && answer.credit.is_none(), "{answer:?}");
        assert_eq!((answer.turns.len(), answer.text.as_str()), (2, "Both are clear."));
        assert_eq!(answer.wanted["tool_calls"], "weather(city=\"Oslo\"), weather(…)");
        // In another order, the first wanted call comes second, and one of two is right.
        let other = query.score(&[say(&query, &[&call("Rome"), &call("Oslo"), "clear"])]);
        assert_eq!((other.pass, other.credit, other.scores["tool_calls"]), (false, Some(0.75), false));
        // After three rounds it ends, and so it does at a call without a result.
        assert_eq!(query.next(&[(); 3].map(|()| plain(&call("Oslo")))), None);
        assert_eq!(query.next(&[plain(&call("Oslo").replace("weather", "time"))]), None);
        assert!(problem("{prompt: p, contains: x, rounds: 2}").contains("needs `tool_results`"));
    }

    #[test]
    fn what_is_half_right_has_credit() {
        let credit = |text: &str, said: &str| query(text).score(&[vec![plain(said)]]).credit;
        assert_eq!(credit("{prompt: p, contains: [a, b, c]}", "a b"), Some(2.0 / 3.0));
        assert_eq!(credit("{prompt: p, contains: [a, b]}", "a b"), None);
        let call = "{prompt: p, tool_call: {name: f, arguments: {a: 1, b: 2}}}";
        assert_eq!(
            credit(call, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>"),
            Some(2.0 / 3.0)
        );
        assert_eq!(credit(call, "<tool_call>{\"name\": \"g\", \"arguments\": {\"a\": 1}}</tool_call>"), None);
    }

    #[test]
    fn half_of_the_samples_must_be_right() {
        let query = query("{prompt: p, contains: x, samples: 3, temperature: 0.5, category: git, weight: 2}");
        assert_eq!(query.samplings().len(), 3);
        let answer = query.score(&["x", "y", "x"].map(|text| vec![plain(text)]));
        assert_eq!((answer.pass, answer.credit, answer.samples.len()), (true, Some(2.0 / 3.0), 3));
        assert_eq!((answer.category.as_deref(), answer.weight), (Some("git"), Some(2.0)));
        assert!(!query.score(&["y", "y", "x"].map(|text| vec![plain(text)])).pass);
    }

    #[test]
    fn the_form_of_calls_is_that_of_the_template() {
        let query = query("{prompt: p, expect: tool}");
        let said = "[TOOL_CALLS]weather[ARGS]{\"city\": \"Oslo\"}";
        let of_template = |form: &str| Spoken { tool_format: Some(form.to_owned()), ..plain(said) };
        assert!(query.score(&[vec![plain(said)]]).pass && query.score(&[vec![of_template("mistral")]]).pass);
        assert!(!query.score(&[vec![of_template("gemma4")]]).pass);
    }
}
