//! Tokens per second as bars in a table.
//! Knows nothing of the other figures.

use std::fmt::Write;

use super::super::Report;
use super::text::escape;
use crate::Timings;
use text::units::speed;

/// What is measured: its heading, its CSS class, and its value.
type Measure = (&'static str, &'static str, fn(&Timings) -> f64);

const MEASURES: [Measure; 2] = [
    ("decode", "decode", |timings| timings.decode_tokens_per_second),
    ("prefill", "prefill", |timings| timings.prefill_tokens_per_second),
];

impl Report<'_> {
    /// Returns a table row with two bars for each configuration; empty if none was timed.
    pub(super) fn bars(&self) -> String {
        let timed: Vec<_> = self.timings.configs.iter().collect();
        if timed.is_empty() {
            return String::new();
        }
        let mut out = String::from("<table class=\"bars\">\n<thead><tr><th scope=\"col\">config</th>");
        for (heading, _, _) in MEASURES {
            let _ = write!(out, "<th scope=\"col\">{heading}</th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (name, timings) in &timed {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
            for (_, class, value) in MEASURES {
                let most = timed.iter().map(|(_, timings)| value(timings)).fold(0.0, f64::max);
                let value = value(timings);
                let share = if most > 0.0 { (value / most * 100.0).clamp(0.0, 100.0) } else { 0.0 };
                let _ = write!(
                    out,
                    "<td><span>{}</span><svg class=\"bar {class}\" aria-hidden=\"true\" width=\"100%\" height=\"10\">\
                     <rect width=\"{share:.1}%\" height=\"10\" rx=\"2\"/></svg></td>",
                    speed(value)
                );
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
        let spread = timed.iter().filter_map(|(_, timings)| timings.spread).reduce(f64::max);
        if let Some(spread) = spread {
            let _ = writeln!(
                out,
                "<p class=\"aside\">Medians of the repeats, which differ by {:.1} % at most (standard deviation over \
                 mean). Each kind has a scale of its own.</p>",
                spread * 100.0
            );
        }
        out
    }
}
