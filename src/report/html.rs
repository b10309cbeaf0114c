//! `report.html`: the report as one page that loads nothing.
//! Knows nothing of Markdown.

use std::fmt::Write;

use super::Report;
use super::table::HEADINGS;

impl Report<'_> {
    /// Returns the report as one page of HTML that loads nothing.
    pub fn html(&self) -> String {
        let cells = |row: &[String], tag: &str| {
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>()
        };
        let head = cells(&HEADINGS.map(str::to_owned), "th");
        let rows: String = self.rows().iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
        let answers = self.answers_html();
        let (title, machine) = (escape(&self.results.suite), escape(&self.timings.machine.to_string()));
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<div class=\"wide\"><table>\n\
             <tr>{head}</tr>\n{rows}</table></div>\n<p>Measured on {machine}.</p>\n{answers}</html>\n"
        )
    }

    fn answers_html(&self) -> String {
        let mut out = String::new();
        for index in 0..self.results.configs.first().map_or(0, |(_, first)| first.answers.len()) {
            for (position, (name, results)) in self.results.configs.iter().enumerate() {
                let Some(answer) = results.answers.get(index) else { continue };
                if position == 0 {
                    let _ = write!(out, "<h2>{}</h2>\n<dl>\n", escape(&answer.prompt));
                }
                let class = if answer.pass { "pass" } else { "fail" };
                let text = escape(answer.text.trim());
                let _ = writeln!(
                    out,
                    "<dt>{} <b class=\"{class}\">{class}</b></dt><dd><code>{text}</code></dd>",
                    escape(name)
                );
            }
            out.push_str("</dl>\n");
        }
        out
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color-scheme:light dark}.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem .7rem;text-align:right;\
border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:left}h2{font-size:1.1rem;margin-top:2rem}\
dt{margin-top:.5rem}dd{margin:0;overflow-x:auto}.pass{color:#2a8a4a}.fail{color:#d0452f}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
