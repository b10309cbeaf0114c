//! `report.md`: the report for a review or a model card.
//! Knows nothing of HTML.

use std::fmt::Write;

use super::Report;
use super::table::HEADINGS;

impl Report<'_> {
    /// Returns the report as Markdown: the table, then every question with each configuration's answer.
    pub fn markdown(&self) -> String {
        let mut out =
            format!("# {}\n\n| {} |\n|---{}|\n", self.results.suite, HEADINGS.join(" | "), "|---:".repeat(8));
        for row in self.rows() {
            let _ = writeln!(out, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        let _ = writeln!(out, "\nMeasured on {}.\n", self.timings.machine);
        for index in 0..self.results.configs.first().map_or(0, |(_, first)| first.answers.len()) {
            for (position, (name, results)) in self.results.configs.iter().enumerate() {
                let Some(answer) = results.answers.get(index) else { continue };
                if position == 0 {
                    let _ = writeln!(out, "## {}\n", answer.prompt);
                }
                let mark = if answer.pass { "pass" } else { "**fail**" };
                let _ = writeln!(out, "- {name}, {mark}: `{}`", answer.text.trim().replace('`', "'"));
            }
            out.push('\n');
        }
        out
    }
}
