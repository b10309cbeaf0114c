//! `report.html`: the report as one HTML page that loads no other file and runs no script.
//! Knows nothing of Markdown.

mod answers;
mod axis;
mod bars;
mod decision;
mod figures;
mod heat;
mod label;
mod plot;
mod run;
mod scatter;
mod text;
mod words;

use std::fmt::Write;

use super::Report;
use super::judgement::State;
use super::outcome::{Outcome, Tone};
use text::{escape, prose};

/// The Content-Security-Policy: the page may use its own styles and `data:` images, and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("style.css");

/// One part of the page: its name in addresses, its heading and its HTML, which is empty if there is nothing
/// to show.
struct Section {
    id: &'static str,
    heading: &'static str,
    body: String,
}

impl Report<'_> {
    /// Returns the report as one HTML page that loads no other file and runs no script.
    pub fn html(&self) -> String {
        let title = escape(&self.results.suite);
        let sections: Vec<_> =
            self.sections().into_iter().filter(|section| !section.body.is_empty()).collect();
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
             <title>{title} · benchmark</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<p class=\"kind\">Benchmark</p>\n<h1>{title}</h1>\n{}</header>\n{}",
            self.counts(),
            self.banner() + &self.about()
        );
        out.push_str("<nav aria-label=\"Sections\">\n");
        for Section { id, heading, .. } in &sections {
            let _ = writeln!(out, "<a href=\"#{id}\">{heading}</a>");
        }
        out.push_str("</nav>\n<main>\n");
        for Section { id, heading, body } in &sections {
            let _ = write!(out, "<section id=\"{id}\">\n<h2>{heading}</h2>\n{body}</section>\n");
        }
        out.push_str("</main>\n</body>\n</html>\n");
        out
    }

    fn sections(&self) -> [Section; 10] {
        let section = |id, heading, body| Section { id, heading, body };
        let (plot, plotted) = self.scatter();
        [
            section("changes", "Since the last run", self.changes()),
            section("figures", "Figures", self.figures()),
            section("categories", "By category", self.categories()),
            section("size", plotted, plot),
            section("decision", "Gates and verdicts", self.decision()),
            section("speed", "Speed", self.bars()),
            section("texts", "Perplexity and divergence", self.text_evals()),
            section("survival", "What quantizing left of the fine-tuning", self.heat()),
            section("answers", "Answers", self.answers()),
            section("machine", "Machine", self.machine()),
        ]
    }

    /// Says how many configurations, queries and tokens were measured.
    fn counts(&self) -> String {
        let count = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let mut parts = vec![count(self.results.configs.len(), "config", "configs")];
        let queries = self.results.configs.values().map(|results| results.total).max().unwrap_or(0);
        if queries > 0 {
            parts.push(count(queries, "query", "queries"));
        }
        let read = self.results.configs.values().filter_map(|results| results.perplexity);
        if let Some(tokens) = read.map(|perplexity| perplexity.tokens).max() {
            parts.push(format!("texts of {}", count(tokens, "token", "tokens")));
        }
        format!("<p class=\"counts\">{}</p>\n", parts.join(" · "))
    }

    /// Writes the outcome, and which gates failed and why.
    fn banner(&self) -> String {
        let Outcome { tone, headline, detail } = self.outcome();
        let (class, mark) = match tone {
            Tone::Good => ("good", "✓"),
            Tone::Plain => ("plain", ""),
            Tone::Bad => ("bad", "✗"),
        };
        let mark = match mark {
            "" => String::new(),
            mark => format!("<span class=\"mark\" aria-hidden=\"true\">{mark}</span> "),
        };
        let mut out = format!(
            "<div class=\"outcome {class}\">\n<p class=\"headline\">{mark}{}</p>\n",
            prose(&headline)
        );
        for gate in self.failed_gates() {
            for finding in gate.criteria.iter().filter(|finding| finding.state() == State::Fails) {
                let (config, wanted) = (escape(&gate.config), escape(&finding.wanted));
                let found = escape(&finding.found);
                let _ = writeln!(
                    out,
                    "<p class=\"broken\"><b>{config}</b> must have {wanted}, but it is <b>{found}</b></p>"
                );
            }
        }
        if !detail.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", prose(&detail));
        }
        out.push_str("</div>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, HOSTILE};

    #[test]
    fn what_users_write_stays_text() {
        let mut sample = sample::rich();
        sample.results.suite = HOSTILE.to_owned();
        sample.timings.machine.backend = HOSTILE.to_owned();
        sample.results.configs[0].code = vec![HOSTILE.to_owned()];
        // A name appears in tables, in the plot, in attributes and in sentences.
        let (_, mut results) = sample.results.configs.shift_remove_entry("4bit").unwrap();
        results.survival.as_mut().unwrap().cause = Some(HOSTILE.to_owned());
        let tensors = &mut results.survival.as_mut().unwrap().tensors;
        let figures = *tensors.values().next().unwrap();
        tensors.insert(format!("model.layers.0.{HOSTILE}"), figures);
        tensors.insert(HOSTILE.to_owned(), figures);
        let timings = sample.timings.configs.shift_remove("4bit").unwrap();
        sample.results.configs.insert(HOSTILE.to_owned(), results);
        sample.timings.configs.insert(HOSTILE.to_owned(), timings);
        sample.judgement.gates[0].config = HOSTILE.to_owned();
        sample.judgement.verdicts[2].config = HOSTILE.to_owned();
        sample.judgement.verdicts[2].otherwise = Some(HOSTILE.to_owned());
        let html = sample.report().html();
        assert!(!html.contains("<script") && !html.contains("\"1\""), "a script got through");
        assert_eq!((html.matches("</style>").count(), html.matches("'quoted'").count()), (1, 0));
        assert!(html.matches("&lt;script&gt;").count() > 10);
    }

    #[test]
    fn it_is_the_same_every_time_and_names_no_address() {
        for make in [sample::plain, sample::rich, sample::texts, sample::sweep] {
            let html = make().report().html();
            assert_eq!(html, make().report().html());
            for outside in ["http://", "https://", "src=", "url(", "@import", "style=", "NaN", "inf"] {
                let html = html.replace("prefill", "").replace("http-equiv", "");
                assert!(!html.contains(outside), "{outside} is in the page");
            }
        }
    }

    #[test]
    fn what_there_is_nothing_of_has_no_section() {
        let html = sample::texts().report().html();
        assert!(html.contains("id=\"size\"") && html.contains("Perplexity against size"));
        for absent in ["id=\"answers\"", "id=\"speed\"", "id=\"decision\""] {
            assert!(!html.contains(absent), "{absent} is in the page");
        }
    }
}
