//! The tables of the page: all figures, and how well the texts were predicted.
//! Knows nothing of plots.

use std::fmt::Write;

use super::super::table::percent;
use super::super::{Report, Spread};
use super::text::escape;

impl Report<'_> {
    /// Returns the table of all figures, in which the configuration to ship is marked.
    pub(super) fn figures(&self) -> String {
        let columns = self.columns();
        let mut out = open("All figures", "figures");
        out.push_str("<thead><tr>");
        for column in &columns {
            let _ = write!(out, "<th scope=\"col\">{}</th>", column.heading);
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        let choice = self.choice().map(|verdict| verdict.config.as_str());
        for (row, name) in self.results.configs.keys().enumerate() {
            let (class, mark) = match choice == Some(name) {
                true => (" class=\"choice\"", " <span class=\"tag\">ship</span>"),
                false => ("", ""),
            };
            let _ = write!(out, "<tr{class}><th scope=\"row\">{}{mark}</th>", escape(name));
            for column in columns.iter().skip(1) {
                let cell = &column.cells[row];
                let note = cell.note.as_ref().map(|note| {
                    let note = escape(&note.replace('-', "–"));
                    format!(" <small>{note}</small>")
                });
                let value = if cell.value == "-" { "–".to_owned() } else { escape(&cell.value) };
                let _ = write!(out, "<td>{value}{}</td>", note.unwrap_or_default());
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table></div>\n");
        if self.results.configs.values().any(|results| results.total > 0) {
            out.push_str(
                "<p class=\"aside\">Small beside accuracy: its 95 % interval in per cent (Wilson).</p>\n",
            );
        }
        out
    }

    /// Returns the table of accuracies by category; empty if no query has one.
    pub(super) fn categories(&self) -> String {
        let configs = || self.results.configs.iter();
        let Some((_, first)) = configs().find(|(_, results)| !results.categories.is_empty()) else {
            return String::new();
        };
        let mut out = open("Accuracy by category", "figures");
        out.push_str("<thead><tr><th scope=\"col\">config</th>");
        for name in first.categories.keys() {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (name, results) in configs() {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
            for category in first.categories.keys() {
                let cell = results.categories.get(category).map(|tally| {
                    let [low, high] = tally.accuracy_interval.map(|end| end * 100.0);
                    let (share, correct, total) = (percent(tally.accuracy), tally.correct, tally.total);
                    format!("<td>{share} <small>{correct}/{total}, {low:.0}–{high:.0}</small></td>")
                });
                out.push_str(&cell.unwrap_or_else(|| "<td>–</td>".to_owned()));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table></div>\n");
        out
    }

    /// Returns the table of how well each configuration predicted the texts; empty if there were none.
    pub(super) fn text_evals(&self) -> String {
        let configs = self.results.configs.iter();
        let read: Vec<_> =
            configs.filter_map(|(name, results)| Some((name, results, results.perplexity?))).collect();
        if read.is_empty() {
            return String::new();
        }
        let compared = read.iter().any(|(_, results, _)| results.divergence.is_some());
        let mut out = open("Perplexity and divergence", "figures");
        out.push_str("<thead><tr><th scope=\"col\">config</th><th scope=\"col\">perplexity</th>");
        if compared {
            for heading in ["KL, nats", "median", "99 %", "99.9 %", "largest", "Δp", "top-1 agreement"] {
                let _ = write!(out, "<th scope=\"col\">{heading}</th>");
            }
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        let tokens = read.iter().map(|(_, _, perplexity)| perplexity.tokens).max().unwrap_or(0);
        for (name, results, perplexity) in read {
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{:.3} <small>±{:.3}</small></td>",
                escape(name),
                perplexity.value,
                perplexity.standard_error
            );
            let divergence = results.divergence.map(|it| {
                let spread = it.spread.map_or_else(|| "<td>–</td>".repeat(5), spread_cells);
                let (agreement, error) =
                    (it.top1_agreement * 100.0, it.spread.map(|spread| spread.errors.flips * 100.0));
                let error = error.map_or_else(String::new, |error| format!(" <small>±{error:.1}</small>"));
                format!("{}{spread}<td>{agreement:.1}%{error}</td>", nats(it.mean_kl, it.standard_error))
            });
            let nothing = if compared { "<td>–</td>".repeat(7) } else { String::new() };
            let _ = writeln!(out, "{}</tr>", divergence.unwrap_or(nothing));
        }
        let _ = write!(
            out,
            "</tbody>\n</table></div>\n<p class=\"aside\">{tokens} tokens were predicted. ± one standard error."
        );
        if let Some(reference) = &self.results.reference {
            let _ = write!(
                out,
                " KL is the divergence from <code>{}</code>: its mean, the value that so many tokens do not exceed, and the largest. Δp is how much more likely the tokens of the text became.",
                escape(reference)
            );
        }
        out.push_str("</p>\n");
        out
    }
}

/// Writes a divergence with its error as a cell.
fn nats(value: f64, error: f64) -> String {
    format!("<td>{value:.4} <small>±{error:.4}</small></td>")
}

fn spread_cells(spread: Spread) -> String {
    let Spread { median, p99, p99_9, max, delta_p, errors, .. } = spread;
    let nats = [(median, errors.median), (p99, errors.p99), (p99_9, errors.p99_9), (max, errors.max)]
        .map(|(value, error)| nats(value, error));
    let (delta_p, error) = (signed(delta_p * 100.0), errors.delta_p * 100.0);
    format!("{}<td>{delta_p}% <small>±{error:.2}</small></td>", nats.concat())
}

/// Writes a number with two decimal places. What rounds to 0 has no sign.
fn signed(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    format!("{:.2}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// Opens a table that scrolls on its own if it is too wide for the page.
pub(super) fn open(label: &str, class: &str) -> String {
    format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table class=\"{class}\">\n"
    )
}
