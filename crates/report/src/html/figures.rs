//! The tables of the page: all figures, and how well the texts were predicted.
//! Knows nothing of plots.

use std::fmt::Write;

use super::super::Report;
use super::text::escape;

impl Report<'_> {
    /// Returns the table of all figures, in which the configuration to ship is marked.
    pub(super) fn figures(&self) -> String {
        let columns = self.columns();
        let mut out = open("All figures");
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

    /// Returns the table of how well each configuration predicted the texts; empty if there were none.
    pub(super) fn text_evals(&self) -> String {
        let configs = self.results.configs.iter();
        let read: Vec<_> =
            configs.filter_map(|(name, results)| Some((name, results, results.perplexity?))).collect();
        if read.is_empty() {
            return String::new();
        }
        let compared = read.iter().any(|(_, results, _)| results.divergence.is_some());
        let mut out = open("Perplexity and divergence");
        out.push_str("<thead><tr><th scope=\"col\">config</th><th scope=\"col\">perplexity</th>");
        if compared {
            out.push_str("<th scope=\"col\">KL, nats</th><th scope=\"col\">same first token</th>");
        }
        out.push_str("<th scope=\"col\">tokens</th></tr></thead>\n<tbody>\n");
        for (name, results, perplexity) in read {
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{:.3} <small>±{:.3}</small></td>",
                escape(name),
                perplexity.value,
                perplexity.standard_error
            );
            let divergence = results.divergence.map(|it| {
                let (kl, error, same) = (it.mean_kl, it.standard_error, it.top1_agreement * 100.0);
                format!("<td>{kl:.4} <small>±{error:.4}</small></td><td>{same:.1}%</td>")
            });
            let nothing = if compared { "<td>–</td><td>–</td>" } else { "" };
            let _ = writeln!(
                out,
                "{}<td>{}</td></tr>",
                divergence.unwrap_or_else(|| nothing.to_owned()),
                perplexity.tokens
            );
        }
        out.push_str("</tbody>\n</table></div>\n<p class=\"aside\">± one standard error.");
        if let Some(reference) = &self.results.reference {
            let _ =
                write!(out, " KL is the mean divergence from <code>{}</code> per token.", escape(reference));
        }
        out.push_str("</p>\n");
        out
    }
}

/// Opens a table that scrolls on its own if it is too wide for the page.
fn open(label: &str) -> String {
    format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table class=\"figures\">\n"
    )
}
