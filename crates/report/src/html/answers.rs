//! Every query with its answers, folded so that hundreds of queries fit on one page.
//! Knows nothing of scorers.

use std::fmt::Write;

use super::super::Report;
use super::super::answers::{Query, Same, Score};
use super::text::{escape, prose, shorten};
use super::words::compared;

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
            "<p>The configs differ on {split} of {} queries{missed}. <span class=\"dot good\">✓</span> pass, \
             <span class=\"dot bad\">✗</span> fail. Where answers are the same they are shown once. What an answer says \
             that a right one beside it does not is marked.</p>\n<div class=\"queries\">\n",
            queries.len()
        );
        let names: String = self
            .results
            .configs
            .keys()
            .map(|name| format!("<span>{}</span>", escape(&shorten(name, 14))))
            .collect();
        let _ = writeln!(
            out,
            "<div class=\"columns\" aria-hidden=\"true\"><div class=\"dots\">{names}</div></div>"
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
    write_wanted(out, query);
    for (index, same) in query.answers.iter().enumerate() {
        write_answer(out, same, beside(query, index).as_deref());
    }
    out.push_str("</div>\n</details>\n");
}

/// Compares an answer with a right one, or two answers with each other. Returns its words, and whether the other has them;
/// `None` if there is nothing to compare with, or if the two have little in common.
fn beside<'a>(query: &Query<'a>, index: usize) -> Option<Vec<(&'a str, bool)>> {
    let right = query.answers.iter().position(|same| same.answer.pass);
    let other = match (right, query.answers.len()) {
        (Some(right), _) if right != index => right,
        (_, 2) => 1 - index,
        _ => return None,
    };
    let text = |at: usize| Some(query.answers.get(at)?.answer.text.trim());
    let [own, _] = compared(text(index)?, text(other)?)?;
    let same = own.iter().filter(|(_, same)| *same).count();
    (5 * same >= 2 * own.len()).then_some(own)
}

/// Says what is wanted of an answer.
fn write_wanted(out: &mut String, query: &Query<'_>) {
    let Some(same) = query.answers.first() else { return };
    let wanted = same.answer.wanted.iter().map(|(scorer, text)| {
        format!("<div><dt>{}</dt><dd dir=\"auto\">{}</dd></div>", escape(scorer), escape(text))
    });
    let wanted: String = wanted.collect();
    if !wanted.is_empty() {
        let _ = writeln!(out, "<dl class=\"facts wanted\">{wanted}</dl>");
    }
}

/// Returns a text as HTML. If it was compared with another, the words that only this one has are marked.
fn text_of(text: &str, compared: Option<&[(&str, bool)]>) -> String {
    let Some(words) = compared else { return escape(text) };
    let word = |(word, same): &(&str, bool)| match same {
        true => escape(word),
        false => {
            let (kept, space) = word.split_at(word.trim_end().len());
            format!("<mark>{}</mark>{space}", escape(kept))
        }
    };
    words.iter().map(word).collect()
}

fn write_answer(out: &mut String, Same { configs, answer }: &Same<'_>, compared: Option<&[(&str, bool)]>) {
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
        false => format!("<pre dir=\"auto\">{}</pre>", text_of(text, compared)),
    };
    let earlier = answer.turns.iter().enumerate().map(|(index, turn)| {
        let turn = escape(turn.trim());
        format!("<p class=\"aside\">round {}</p><pre dir=\"auto\">{turn}</pre>\n", index + 1)
    });
    let earlier: String = earlier.collect();
    let samples = match answer.samples.len() {
        0 => String::new(),
        count => {
            let right = answer.samples.iter().filter(|sample| sample.pass).count();
            format!(" <span class=\"aside\">{right} of {count} samples right; the first:</span>")
        }
    };
    let _ = write!(
        out,
        "<article class=\"answer {class}\">\n<p class=\"conclusion\">{words}{thought}{samples}</p>\n<ul class=\"names\">{names}</ul>\n\
         {earlier}{text}\n</article>\n"
    );
}
