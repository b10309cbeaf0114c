//! Gates and verdicts on the page: each criterion, what was wanted, what was found, and what to try.
//! Knows nothing of how they were decided.

use std::fmt::Write;

use super::super::{Conclusion, Finding, Report};
use super::text::{escape, prose};

impl Report<'_> {
    /// Returns a card for each gate and verdict; empty if there are none.
    pub(super) fn decision(&self) -> String {
        if !self.is_judged() {
            return String::new();
        }
        let mut out = String::from("<div class=\"cards\">\n");
        for gate in &self.judgement.gates {
            let (class, words) = if gate.pass { ("good", "holds") } else { ("bad", "failed") };
            let _ = write!(out, "<article class=\"card {class}\">\n{}", heading("Gate", &gate.config, None));
            let _ = writeln!(out, "<p class=\"conclusion\">{} {words}</p>", mark(gate.pass));
            write_findings(&mut out, &gate.config, &[("", &gate.criteria)]);
            write_advice(&mut out, &gate.advice);
            out.push_str("</article>\n");
        }
        for verdict in &self.judgement.verdicts {
            let good = verdict.conclusion != Conclusion::Otherwise;
            let class = if good { "good" } else { "bad" };
            let against = verdict.against.as_deref();
            let heading = heading("Verdict", &verdict.config, against);
            let _ = write!(out, "<article class=\"card {class}\">\n{heading}");
            let otherwise = verdict.otherwise.as_ref().filter(|_| !good);
            let otherwise = otherwise.map(|text| format!(": {}", escape(text))).unwrap_or_default();
            let _ =
                writeln!(out, "<p class=\"conclusion\">{} {}{otherwise}</p>", mark(good), verdict.words());
            let groups = [("Best choice", &verdict.optimal), ("Good enough", &verdict.minimum)];
            write_findings(&mut out, &verdict.config, &groups);
            write_advice(&mut out, &verdict.advice);
            out.push_str("</article>\n");
        }
        out.push_str("</div>\n");
        out
    }
}

fn heading(kind: &str, config: &str, against: Option<&str>) -> String {
    let against = against.map(|other| format!(" <small>against {}</small>", escape(other)));
    let against = against.unwrap_or_default();
    format!("<h3><span class=\"kind\">{kind}</span> {}{against}</h3>\n", escape(config))
}

/// Returns a sign that can be read without colour.
fn mark(good: bool) -> &'static str {
    match good {
        true => "<span class=\"mark\" aria-hidden=\"true\">✓</span>",
        false => "<span class=\"mark\" aria-hidden=\"true\">✗</span>",
    }
}

fn write_findings(out: &mut String, config: &str, groups: &[(&str, &Vec<Finding>)]) {
    let _ = write!(
        out,
        "<table class=\"findings\" aria-label=\"Criteria of {}\">\n<thead><tr><th scope=\"col\">wanted</th>\
         <th scope=\"col\">found</th><th scope=\"col\"><span class=\"unseen\">result</span></th></tr></thead>\n",
        escape(config)
    );
    for (group, findings) in groups.iter().filter(|(_, findings)| !findings.is_empty()) {
        out.push_str("<tbody>\n");
        if !group.is_empty() {
            let _ =
                writeln!(out, "<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"3\">{group}</th></tr>");
        }
        for finding in *findings {
            let (class, words) = if finding.pass { ("good", "holds") } else { ("bad", "fails") };
            let (wanted, found) = (escape(&finding.wanted), escape(&finding.found));
            let _ = writeln!(
                out,
                "<tr class=\"{class}\"><th scope=\"row\">{wanted}</th><td>{found}</td><td>{} {words}</td></tr>",
                mark(finding.pass)
            );
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table>\n");
}

fn write_advice(out: &mut String, advice: &[String]) {
    if advice.is_empty() {
        return;
    }
    let ideas: String = advice.iter().map(|idea| format!("<li>{}</li>\n", prose(idea))).collect();
    let _ = write!(out, "<p class=\"advice\">What to try</p>\n<ul class=\"advice\">\n{ideas}</ul>\n");
}
