//! What was measured, when and on what, and what changed since the last run.
//! Knows nothing of what was decided.

use std::fmt::Write;

use super::super::{Changes, Flip, Moved, Report, RunFacts, SourceFacts};
use super::text::{escape, prose};
use crate::Timings;

impl Report<'_> {
    /// Returns the facts that stand beside the decision: of what, when, and on which processor.
    pub(super) fn about(&self) -> String {
        let mut facts = Vec::new();
        if let Some(RunFacts { date, git_commit, sources, asked_by }) = &self.timings.run {
            for SourceFacts { node, stage, source, commit } in sources {
                let commit =
                    commit.as_ref().map_or_else(String::new, |commit| format!(" @ {}", short(commit)));
                let name = if node == source { source.clone() } else { format!("{node}: {source}") };
                facts.push((stage.as_str(), format!("{name}{commit}")));
            }
            facts.push(("date", date.clone()));
            facts.extend(asked_by.as_ref().map(|machine| ("asked by", machine.clone())));
            facts.extend(git_commit.as_ref().map(|commit| ("git commit", short(commit).to_owned())));
        }
        let machine = &self.timings.machine;
        let chip = machine.chip.clone().unwrap_or_else(|| machine.processor.clone());
        facts.push(("processor", format!("{chip}, {} threads", machine.threads)));
        let loads = self.timings.configs.values().filter_map(|timings| timings.load_average);
        facts.extend(loads.reduce(f64::max).map(|load| ("load", format!("{load:.1}"))));
        list("facts about", &facts)
    }

    /// Returns what changed since the last run; empty if nothing did.
    pub(super) fn changes(&self) -> String {
        let Some(Changes { since, added, gone, figures, flips }) = &self.judgement.changes else {
            return String::new();
        };
        let mut out = String::new();
        let names = |names: &[String]| {
            names.iter().map(|name| format!("<code>{}</code>", escape(name))).collect::<Vec<_>>().join(", ")
        };
        let since = since
            .as_ref()
            .map_or_else(String::new, |since| format!("The last run was at {}. ", escape(since)));
        let mut sentences = vec![since];
        if !added.is_empty() {
            sentences.push(format!("New: {}. ", names(added)));
        }
        if !gone.is_empty() {
            sentences.push(format!("Gone: {}. ", names(gone)));
        }
        let sentences: String = sentences.concat();
        if !sentences.is_empty() {
            let _ = writeln!(out, "<p>{sentences}</p>");
        }
        if figures.is_empty() && flips.is_empty() {
            return out;
        }
        out.push_str("<ul class=\"changes\">\n");
        for Moved { config, quantity, was, now } in figures {
            let (config, word) = (escape(config), quantity.word());
            let _ = writeln!(
                out,
                "<li><b>{config}</b> {word}: {} <span aria-label=\"became\">→</span> {}</li>",
                escape(was),
                escape(now)
            );
        }
        for Flip { config, prompt, pass } in flips {
            let (class, sign, word) = if *pass { ("good", "✓", "right") } else { ("bad", "✗", "wrong") };
            let _ = writeln!(
                out,
                "<li class=\"{class}\"><b>{}</b> is {word} now <span class=\"mark\" aria-hidden=\"true\">{sign}</span>: \
                 <span dir=\"auto\">{}</span></li>",
                escape(config),
                escape(prompt.trim())
            );
        }
        out.push_str("</ul>\n<p class=\"aside\">Only figures that moved by more than their error.</p>\n");
        out
    }

    /// Returns what else is known of the machine and the programs.
    pub(super) fn machine(&self) -> String {
        let machine = &self.timings.machine;
        let mut facts = vec![
            ("system", format!("{} {}", machine.system, machine.processor)),
            ("threads", machine.threads.to_string()),
            ("backend", machine.backend.clone()),
            ("pipeline", machine.pipeline.clone()),
        ];
        let mut differing = |name, of: fn(&Timings) -> String| {
            let mut values: Vec<_> = self.timings.configs.values().map(of).collect();
            values.dedup();
            if !values.is_empty() {
                facts.push((name, values.join(", ")));
            }
        };
        differing("device", |timings| timings.device.clone());
        differing("activations", |timings| timings.activation_dtype.clone());
        differing("repeats", |timings| timings.repeats.to_string());
        let notes = self.code_notes().into_iter().map(|note| format!("<p>{}</p>\n", prose(&note)));
        list("facts", &facts) + &notes.collect::<String>()
    }
}

/// The beginning of a commit, which is enough to find it.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn list(class: &str, facts: &[(&str, String)]) -> String {
    let facts = facts
        .iter()
        .map(|(name, value)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)));
    format!("<dl class=\"{class}\">\n{}</dl>\n", facts.collect::<String>())
}
