//! A benchmark suite, read from YAML or JSON lines: queries, what is expected of each answer, and texts.
//! Knows nothing of models; scoring an answer needs only its text.

mod call;
mod query;
mod sampling;
mod scorer;
mod text;
mod tools;

pub use query::{Query, read_template_args};
pub use text::SuiteText;

use call::Format;
use sampling::Samples;
use std::path::{Path, PathBuf};
use tools::Tools;

use serde_json::{Map, Value as Json};

use crate::Error;
use ::text::yaml::{At, Fields, Problem, Tree, Value};
use artifact::AtPath;
use protocol::Date;

/// The maximum number of tokens in an answer, if the suite does not say.
const MAX_TOKENS: usize = 128;

/// The window size for texts in tokens, if the suite does not say.
const CONTEXT: usize = 512;

/// The highest values of `repeats` and `warmup` that a suite may have.
const MOST_RUNS: usize = 1000;

/// Returns the tool calls in an answer, as name and arguments: in the form with this name, or in any. `tools` are those
/// that the model was given. A form that is not known reads nothing.
pub fn tool_calls(answer: &str, format: Option<&str>, tools: &Json) -> Vec<(String, Json)> {
    let known =
        |word: &str| Format::WORDS.iter().find(|(known, _)| *known == word).map(|(_, format)| *format);
    let format = match format.map(known) {
        Some(None) => return Vec::new(),
        Some(known) => known,
        None => None,
    };
    let calls = call::calls(answer, format, Some(tools)).read.into_iter();
    calls.map(|call| (call.name, call.arguments.unwrap_or(Json::Null))).collect()
}

/// A suite.
#[derive(Debug)]
pub struct Suite {
    /// Its name in reports.
    pub name: String,
    /// The maximum number of tokens in an answer.
    pub max_tokens: usize,
    /// How many times each query is answered, for the timings.
    pub repeats: usize,
    /// How many answers are generated, but not timed, before the first timed one.
    pub warmup: usize,
    /// The window size for texts, in tokens.
    pub context: usize,
    /// The queries, in order.
    pub queries: Vec<Query>,
    /// The texts, in order.
    pub texts: Vec<SuiteText>,
}

/// Whether messages may quote the file of a suite. A file outside the project may be one that must not be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quoting {
    /// They may.
    #[default]
    Allowed,
    /// They say the place only.
    Forbidden,
}

/// What applies to every query that does not say otherwise.
#[derive(Debug, Default)]
struct Common {
    system: Option<String>,
    tools: Option<Json>,
    tool_format: Option<Format>,
    tool_results: Option<Tools>,
    samples: Option<Samples>,
    date: Date,
    template_args: Map<String, Json>,
}

impl Suite {
    /// Reads the suite at `path`: as JSON lines if the extension is `.jsonl`, otherwise as YAML.
    ///
    /// # Errors
    /// Fails when the file cannot be read, or when it is not a valid suite. In the second case the message
    /// shows the wrong line, if that is allowed.
    pub fn read(path: &Path, quoting: Quoting) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).at("read the suite", path)?;
        let lines = path.extension().is_some_and(|extension| extension == "jsonl");
        let folder =
            Some(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        let suite = if lines {
            let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            Self::parse_lines(&text, name, folder)
        } else {
            Self::parse(&text, folder)
        };
        suite.map_err(|problem| {
            Error::Suite(match quoting {
                Quoting::Allowed => problem.render(path, &text),
                Quoting::Forbidden => problem.without_quotes().render_without_text(path),
            })
        })
    }

    /// Returns the files that the suite at `path` names, relative to its folder and whole. There are none if it is no valid
    /// suite. A file that it may not name is left out: reading the suite says why.
    pub fn files(path: &Path) -> Vec<(PathBuf, PathBuf)> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // Most suites name none, and then nothing is parsed.
        if !text.contains("file") {
            return Vec::new();
        }
        let lines = path.extension().is_some_and(|extension| extension == "jsonl");
        let suite =
            if lines { Self::parse_lines(&text, String::new(), None) } else { Self::parse(&text, None) };
        let Ok(suite) = suite else { return Vec::new() };
        let folder = path.parent().unwrap_or(Path::new(""));
        let files = suite.texts.into_iter().filter_map(|text| text.file);
        files.filter_map(|file| text::beside(folder, &file).ok().map(|whole| (file, whole))).collect()
    }

    fn parse(text: &str, folder: Option<&Path>) -> Result<Self, Problem> {
        let mut top = Fields::open(Tree::parse(text)?, "the suite")?;
        let (name, _) = top.text("name")?;
        let (mut suite, common) = Self::head(&mut top, name)?;
        let at = top.at();
        for tree in top.list("queries")? {
            suite.queries.push(Query::read(Fields::open(tree, "a query")?, &common)?);
        }
        for tree in read_texts(&mut top)? {
            suite.texts.push(SuiteText::read(tree, folder)?);
        }
        top.finish()?;
        suite.check(at)
    }

    /// Reads one JSON object per line: a query, or a text in the form of mlx-lm's data sets, `{"text": …}`.
    /// The first line may hold the settings of the suite, `{"suite": {…}}`.
    fn parse_lines(text: &str, name: String, folder: Option<&Path>) -> Result<Self, Problem> {
        let mut suite = None;
        let mut common = Common::default();
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let mut fields = Fields::open(Tree::parse_json(text, line)?, "a line of the suite")?;
            if suite.is_none() {
                let mut head = match fields.take("suite") {
                    Some(tree) => Fields::open(tree, "`suite`")?,
                    None => Fields::open(Tree { at: fields.at(), value: Value::Map(Vec::new()) }, "`suite`")?,
                };
                let own = head.optional_text("name")?.map(|(name, _)| name);
                let (read, all) = Self::head(&mut head, own.unwrap_or_else(|| name.clone()))?;
                head.finish()?;
                (suite, common) = (Some(read), all);
            }
            let Some(suite) = &mut suite else { continue };
            if let Some(tree) = fields.take("text") {
                suite.texts.push(SuiteText::read(tree, folder)?);
                fields.finish()?;
            } else if !fields.is_empty() {
                suite.queries.push(Query::read(fields, &common)?);
            }
        }
        let at = At { line: 1, column: 1 };
        suite.ok_or_else(|| Problem::new(at, "the suite is empty"))?.check(at)
    }

    fn head(fields: &mut Fields, name: String) -> Result<(Self, Common), Problem> {
        let system = fields.optional_text("system")?.map(|(text, _)| text);
        let tools = fields.take("tools").map(|tree| tree.to_json());
        let tool_format = fields.word("tool_format", &Format::WORDS)?;
        let tool_results = Tools::read(fields, None)?;
        let samples = Samples::read(fields, None)?;
        let date = fields.optional_text("date")?.map(|(text, at)| {
            Date::try_from(text).map_err(|problem| Problem::new(at, format!("`date`: {problem}")))
        });
        let date = date.transpose()?.unwrap_or_default();
        let template_args = query::read_template_args(fields)?;
        let suite = Self {
            name,
            max_tokens: fields.count("max_tokens")?.unwrap_or(MAX_TOKENS),
            repeats: fields.count("repeats")?.unwrap_or(1),
            warmup: fields.whole("warmup")?.unwrap_or(1),
            context: fields.count("context")?.unwrap_or(CONTEXT),
            queries: Vec::new(),
            texts: Vec::new(),
        };
        Ok((suite, Common { system, tools, tool_format, tool_results, samples, date, template_args }))
    }

    fn check(self, at: At) -> Result<Self, Problem> {
        if self.queries.is_empty() && self.texts.is_empty() {
            return Err(Problem::new(at, "the suite has neither `queries` nor `texts`"));
        }
        for (word, count) in [("repeats", self.repeats), ("warmup", self.warmup)] {
            if count > MOST_RUNS {
                return Err(Problem::new(at, format!("`{word}` must be at most {MOST_RUNS}, not {count}")));
            }
        }
        if self.context < 2 {
            return Err(Problem::new(at, "`context` must be at least 2: the first token is not foreseen"));
        }
        Ok(self)
    }
}

/// Returns the items of `texts`: a list, or one text.
fn read_texts(top: &mut Fields) -> Result<Vec<Tree>, Problem> {
    match top.take("texts") {
        Some(tree) if matches!(tree.value, Value::Map(_)) => Ok(vec![tree]),
        Some(tree) => match tree.value {
            Value::List(items) if !items.is_empty() => Ok(items),
            Value::List(_) => Err(Problem::new(tree.at, "`texts` is empty")),
            _ => Err(Problem::new(tree.at, format!("`texts` must be a list, not {}", tree.kind()))),
        },
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_yaml_say_the_same() {
        let yaml =
            "name: s\nmax_tokens: 9\nsystem: be short\nqueries:\n  - {prompt: p, contains: x}\ntexts: [once]";
        let lines = "{\"suite\": {\"name\": \"s\", \"max_tokens\": 9, \"system\": \"be short\"}}\n\n\
                     {\"prompt\": \"p\", \"contains\": \"x\"}\n{\"text\": \"once\"}\n";
        let (yaml, lines) =
            (Suite::parse(yaml, None).unwrap(), Suite::parse_lines(lines, "file".into(), None).unwrap());
        assert_eq!(format!("{yaml:?}"), format!("{lines:?}"));
        assert_eq!(Suite::parse_lines("{\"text\": \"t\"}", "file".into(), None).unwrap().name, "file");
    }

    #[test]
    fn names_the_place_of_a_mistake() {
        let problem = Suite::parse("name: s\nqueries:\n  - {prompt: p, expect: tools}\n", None).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "3:25: `expect` must be one of tool, direct, not `tools`; did you mean `tool`?"
        );
        let wrong = |text: &str| Suite::parse_lines(text, "s".into(), None).unwrap_err().to_string();
        assert_eq!(
            wrong("{\"text\": \"t\"}\n{\"prompt\": \"p\"}"),
            "2:1: a query needs one of `expect`, `answer`, `contains`, `regex`, `tool_call` and `tool_calls`"
        );
        assert_eq!(wrong("{\"text\": \"t\"}\n{\"text\": }").split(':').next(), Some("2"));
        let endless = Suite::parse("name: s\nrepeats: 9000000000000000000\ntexts: [once]", None).unwrap_err();
        assert_eq!(endless.to_string(), "1:1: `repeats` must be at most 1000, not 9000000000000000000");
        assert_eq!(wrong(""), "1:1: the suite is empty");
        assert_eq!(wrong("{\"suite\": {}}"), "1:1: the suite has neither `queries` nor `texts`");
    }
}
