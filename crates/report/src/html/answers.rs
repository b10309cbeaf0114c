//! Every query with its answers, folded so that hundreds of queries fit on one page.
//! Knows nothing of scorers.

use std::fmt::Write;

use super::super::Report;
use super::super::answers::{Query, Same, Score};
use super::text::{escape, prose};

impl Report<'_> {
    /// Returns a line for each query, which unfolds to its answers. It is empty if there are no queries.
    pub(super) fn answers(&self) -> String {
        let queries = self.queries();
        if queries.is_empty() {
            return String::new();
        }
        let split = queries.iter().filter(|query| query.is_split()).count();
        let missed = queries.iter().filter(|query| query.passed() == 0).count();
        let missed = if missed > 0 { format!(", and {missed} nobody got right") } else { String::new() };
        let mut out = format!(
            "<p>The configs differ on {split} of {} queries{missed}. One sign for each config, in \
             the order of the table: <span class=\"dot good\">✓</span> pass, <span class=\"dot bad\">✗</span> fail. \
             Where answers are the same they are shown once.</p>\n<div class=\"queries\">\n",
            queries.len()
        );
        for (index, query) in queries.iter().enumerate() {
            write_query(&mut out, index + 1, query);
        }
        out.push_str("</div>\n");
        out
    }
}

fn write_query(out: &mut String, number: usize, query: &Query<'_>) {
    let class = if query.is_split() { " class=\"split\"" } else { "" };
    let prompt = escape(query.prompt.trim());
    let (passed, of) = (query.passed(), query.scored());
    let _ = write!(
        out,
        "<details{class}>\n<summary><span class=\"number\">{number}</span>\
         <span class=\"prompt\" dir=\"auto\">{prompt}</span><span class=\"unseen\">{passed} of {of} passed</span>\
         <span class=\"dots\" aria-hidden=\"true\">"
    );
    for (name, pass) in &query.passes {
        let (class, sign, word) = match pass {
            Some(true) => ("good", "✓", "pass"),
            Some(false) => ("bad", "✗", "fail"),
            None => ("none", "–", "not scored"),
        };
        let _ = write!(out, "<span class=\"dot {class}\" title=\"{}: {word}\">{sign}</span>", escape(name));
    }
    out.push_str("</span></summary>\n<div class=\"answers\">\n");
    for same in &query.answers {
        write_answer(out, same);
    }
    out.push_str("</div>\n</details>\n");
}

fn write_answer(out: &mut String, Same { configs, answer }: &Same<'_>) {
    let names: String = configs.iter().map(|name| format!("<li>{}</li>", escape(name))).collect();
    let mark = |sign: char| format!("<span class=\"mark\" aria-hidden=\"true\">{sign}</span>");
    let (class, words) = match answer.verdict() {
        Score::Pass => ("good", format!("{} pass", mark('✓'))),
        Score::Fail(failed) if failed.is_empty() => ("bad", format!("{} fail", mark('✗'))),
        Score::Fail(failed) => ("bad", format!("{} fail: {}", mark('✗'), escape(&failed.join(", ")))),
        Score::None(reason) => ("none", format!("{} not scored: {}", mark('–'), prose(reason))),
    };
    let thought =
        answer.thought_note().map(|note| format!(" <span class=\"aside\">{}</span>", escape(&note)));
    let thought = thought.unwrap_or_default();
    let text = answer.text.trim();
    let text = match text.is_empty() {
        true => "<p class=\"aside\">(nothing)</p>".to_owned(),
        false => format!("<pre dir=\"auto\">{}</pre>", escape(text)),
    };
    let _ = write!(
        out,
        "<article class=\"answer {class}\">\n<p class=\"conclusion\">{words}{thought}</p>\n<ul class=\"names\">{names}</ul>\n\
         {text}\n</article>\n"
    );
}
