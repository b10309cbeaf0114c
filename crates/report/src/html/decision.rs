//! Gates and verdicts on the page: a table of configs by criteria, and what to try.
//! Knows nothing of how they were decided.

use std::fmt::Write;

use super::super::judgement::State;
use super::super::{Conclusion, Finding, Report};
use super::figures::open;
use super::text::{escape, prose};

/// One row: a configuration and what was found of it.
struct Row<'a> {
    config: &'a str,
    against: Option<&'a str>,
    state: State,
    words: String,
    /// The findings. Those with one quantity differ in their bounds only.
    findings: Vec<&'a Finding>,
    advice: &'a [String],
}

impl Report<'_> {
    /// Returns a table of the gates and one of the verdicts; empty if there are none.
    pub(super) fn decision(&self) -> String {
        let gates = self.judgement.gates.iter().map(|gate| Row {
            config: &gate.config,
            against: None,
            state: gate.state(),
            words: words_of(gate.state(), ["holds", "failed"]).to_owned(),
            findings: gate.criteria.iter().collect(),
            advice: &gate.advice,
        });
        let verdicts = self.judgement.verdicts.iter().map(|verdict| {
            let is_good = verdict.conclusion != Conclusion::Otherwise;
            let otherwise = verdict.otherwise.as_ref().filter(|_| !is_good);
            let otherwise = otherwise.map_or_else(String::new, |text| format!(": {text}"));
            Row {
                config: &verdict.config,
                against: verdict.against.as_deref(),
                state: if is_good { State::Holds } else { State::Fails },
                words: format!("{}{otherwise}", verdict.words()),
                findings: verdict.optimal.iter().chain(&verdict.minimum).collect(),
                advice: &verdict.advice,
            }
        });
        let (gates, verdicts): (Vec<_>, Vec<_>) = (gates.collect(), verdicts.collect());
        let mut out = String::new();
        write_table(&mut out, "Gates", &gates);
        write_table(&mut out, "Verdicts", &verdicts);
        out
    }
}

fn write_table(out: &mut String, label: &str, rows: &[Row<'_>]) {
    if rows.is_empty() {
        return;
    }
    let mut columns: Vec<&str> = Vec::new();
    for finding in rows.iter().flat_map(|row| &row.findings) {
        if !columns.contains(&name(finding)) {
            columns.push(name(finding));
        }
    }
    out.push_str(&open(label, "figures judged"));
    let _ = write!(out, "<thead><tr><th scope=\"col\">{label}</th><th scope=\"col\">result</th>");
    for column in &columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(column));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        write_row(out, row, &columns);
    }
    out.push_str("</tbody>\n</table></div>\n");
    write_against(out, rows);
    for row in rows.iter().filter(|row| !row.advice.is_empty()) {
        let ideas: String = row.advice.iter().map(|idea| format!("<li>{}</li>\n", prose(idea))).collect();
        let config = escape(row.config);
        let _ = write!(
            out,
            "<details class=\"advice\"><summary>What to try instead of <b>{config}</b></summary>\n<ul>\n{ideas}</ul></details>\n"
        );
    }
}

fn write_row(out: &mut String, row: &Row<'_>, columns: &[&str]) {
    let (class, words) = (class(row.state), escape(&row.words));
    let _ = write!(
        out,
        "<tr class=\"{class}\"><th scope=\"row\">{}</th><td class=\"conclusion\">{} {words}</td>",
        escape(row.config),
        mark(row.state)
    );
    for column in columns {
        let findings: Vec<_> = row.findings.iter().filter(|finding| name(finding) == *column).collect();
        let Some(first) = findings.first() else {
            out.push_str("<td>–</td>");
            continue;
        };
        let (found, note) = first.found.split_once(" (").unwrap_or((&first.found, ""));
        let note = note.trim_end_matches(')');
        let _ = write!(out, "<td><span class=\"found\">{}</span>", escape(found));
        if !note.is_empty() {
            let _ = write!(out, "<small>{}</small>", escape(note));
        }
        for finding in findings {
            let bound = finding.wanted.strip_prefix(column).unwrap_or(&finding.wanted).trim();
            let needs = finding.needs.as_ref().map(|needs| format!(" title=\"{}\"", escape(needs)));
            let _ = write!(
                out,
                "<span class=\"bound {}\"{}>{} {}<span class=\"unseen\"> {}</span></span>",
                self::class(finding.state()),
                needs.unwrap_or_default(),
                mark(finding.state()),
                escape(bound),
                words_of(finding.state(), ["holds", "fails"])
            );
        }
        out.push_str("</td>");
    }
    out.push_str("</tr>\n");
}

/// Says what factors compare with, and what the signs mean.
fn write_against(out: &mut String, rows: &[Row<'_>]) {
    let mut others: Vec<_> = rows.iter().filter_map(|row| row.against).collect();
    others.dedup();
    let mut notes = Vec::new();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|other| format!("<code>{}</code>", escape(other))).collect();
        notes.push(format!("Factors are against {}.", names.join(", ")));
    }
    let unsure = rows.iter().flat_map(|row| &row.findings).filter(|finding| finding.within_error);
    let mut needs: Vec<_> = unsure
        .map(|finding| {
            let needs =
                finding.needs.as_ref().map_or_else(String::new, |needs| format!(" ({})", escape(needs)));
            format!("{}{needs}", escape(&finding.wanted))
        })
        .collect();
    needs.dedup();
    if !needs.is_empty() {
        notes.push(format!("≈ within the error of what was measured: {}.", needs.join(", ")));
    }
    if !notes.is_empty() {
        let _ = writeln!(out, "<p class=\"aside\">{}</p>", notes.join(" "));
    }
}

/// The quantity of a finding, with its category: what comes before the bound.
fn name(finding: &Finding) -> &str {
    let wanted = finding.wanted.as_str();
    // A category may have any name, so the bound is looked for from the end.
    let end = [" >", " <"].into_iter().filter_map(|sign| wanted.rfind(sign)).max();
    wanted.get(..end.unwrap_or(wanted.len())).unwrap_or(wanted)
}

fn class(state: State) -> &'static str {
    match state {
        State::Holds => "good",
        State::Fails => "bad",
        State::WithinError => "unsure",
    }
}

fn words_of(state: State, [holds, fails]: [&'static str; 2]) -> &'static str {
    match state {
        State::Holds => holds,
        State::Fails => fails,
        State::WithinError => "within the error",
    }
}

/// Returns a sign that can be read without colour.
fn mark(state: State) -> &'static str {
    match state {
        State::Holds => "<span class=\"mark\" aria-hidden=\"true\">✓</span>",
        State::Fails => "<span class=\"mark\" aria-hidden=\"true\">✗</span>",
        State::WithinError => "<span class=\"mark\" aria-hidden=\"true\">≈</span>",
    }
}
