//! `report.md`: the report for a review or a model card.
//! Knows nothing of HTML.

use std::fmt::Write;

use super::answers::Score;
use super::judgement::State;
use super::layers::Layers;
use super::outcome::Outcome;
use super::{Conclusion, Finding, Report};
use weights::survival::Survival;

impl Report<'_> {
    /// Returns the report as Markdown: the outcome, figures, decisions, and every query with its answers.
    pub fn markdown(&self) -> String {
        let Outcome { headline, detail, .. } = self.outcome();
        let mut out = format!("# {}\n\n**{}**", escape(&self.results.suite), prose(&headline));
        if !detail.is_empty() {
            let _ = write!(out, " {}", prose(&detail));
        }
        out.push_str("\n\n");
        self.write_table(&mut out);
        self.write_judgement(&mut out);
        self.write_survival(&mut out);
        self.write_readings(&mut out);
        self.write_queries(&mut out);
        for note in self.code_notes() {
            let _ = writeln!(out, "{}.\n", prose(&note));
        }
        let asked_by = self.timings.run.as_ref().and_then(|run| run.asked_by.as_ref());
        let asked_by =
            asked_by.map_or_else(String::new, |machine| format!(", for a build on {}", escape(machine)));
        let _ = writeln!(out, "---\n\nMeasured on {}{asked_by}.", escape(&self.timings.machine.to_string()));
        out
    }

    fn write_table(&self, out: &mut String) {
        let columns = self.columns();
        let headings: Vec<_> = columns.iter().map(|column| column.heading).collect();
        let _ = writeln!(out, "| {} |", headings.join(" | "));
        let _ = writeln!(out, "|---{}|", "|---:".repeat(columns.len().saturating_sub(1)));
        for row in 0..self.results.configs.len() {
            let cells = columns.iter().map(|column| {
                let cell = &column.cells[row];
                let note = cell.note.as_ref().map(|note| match note.starts_with('±') {
                    true => format!(" {note}"),
                    false => format!(" ({})", note.replace('-', "–")),
                });
                escape(&cell.value) + &note.unwrap_or_default()
            });
            let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        if self.results.configs.values().any(|results| results.total > 0) {
            out.push_str("\nIn parentheses: the 95% interval of the accuracy (Wilson).\n");
        }
        out.push('\n');
    }

    fn write_judgement(&self, out: &mut String) {
        if !self.is_judged() {
            return;
        }
        out.push_str("## Gates and verdicts\n\n");
        for gate in &self.judgement.gates {
            let word = match gate.state() {
                State::Holds => "holds",
                State::Fails => "**failed**",
                State::WithinError => "within the error",
            };
            let _ = writeln!(out, "Gate on {}: {word}.\n", code(&gate.config));
            write_findings(out, &[("", &gate.criteria)]);
            write_advice(out, &gate.advice);
        }
        for verdict in &self.judgement.verdicts {
            let against = verdict.against.as_ref().map(|other| format!(", against {}", code(other)));
            let otherwise = verdict.otherwise.as_ref();
            let otherwise = otherwise.filter(|_| verdict.conclusion == Conclusion::Otherwise);
            let otherwise = otherwise.map(|text| format!(": {}", escape(text)));
            let (against, otherwise) = (against.unwrap_or_default(), otherwise.unwrap_or_default());
            let (config, words) = (code(&verdict.config), verdict.words());
            let _ = writeln!(out, "Verdict on {config}{against}: **{words}**{otherwise}.\n");
            write_findings(out, &[("best choice", &verdict.optimal), ("good enough", &verdict.minimum)]);
            write_advice(out, &verdict.advice);
        }
    }

    fn write_survival(&self, out: &mut String) {
        let configs = self.results.configs.iter();
        let configs: Vec<_> =
            configs.filter_map(|(name, results)| Some((name, results.survival.as_ref()?))).collect();
        if configs.is_empty() {
            return;
        }
        out.push_str(
            "## What quantizing left of the fine-tuning\n\n\
             | config | rounding | survival | cosine | noise to signal | reverted | delta per step | worst layers |\n\
             |---|---|---:|---:|---:|---:|---:|---|\n",
        );
        for (name, survival) in &configs {
            let all = survival.overall;
            let _ = writeln!(
                out,
                "| {} | {} | {:.2} | {:.2} | {:.2} | {:.1}% | {} | {} |",
                escape(name),
                all.rounding.map_or_else(|| "by layer".to_owned(), |rounding| rounding.to_string()),
                all.survival,
                all.cosine,
                all.noise_to_signal,
                all.reverted * 100.0,
                all.delta_per_step.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                worst(survival)
            );
        }
        out.push('\n');
        for (name, survival) in configs {
            let said = [survival.cause.as_deref(), survival.explanation()];
            for sentence in said.into_iter().flatten() {
                let _ = writeln!(out, "{}: {}.\n", code(name), prose(sentence.trim_end_matches('.')));
            }
        }
    }

    fn write_readings(&self, out: &mut String) {
        let configs = self.results.configs.iter();
        let read: Vec<_> =
            configs.filter_map(|(name, results)| Some((name, results, results.perplexity?))).collect();
        if read.is_empty() {
            return;
        }
        out.push_str("## Texts\n\n");
        if let Some(reference) = &self.results.reference {
            let _ = writeln!(out, "KL is the divergence from {}, in nats per token.\n", code(reference));
        }
        out.push_str("| config | perplexity | KL | median | 99 % | 99.9 % | largest | Δp | top-1 agreement | tokens |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for (name, results, perplexity) in read {
            let divergence = results.divergence.map_or_else(
                || ["-"; 7].join(" | "),
                |it| {
                    let spread = it.spread.map_or(["-"; 5].map(str::to_owned), |spread| {
                        let error = spread.errors;
                        [
                            with_error(spread.median, error.median),
                            with_error(spread.p99, error.p99),
                            with_error(spread.p99_9, error.p99_9),
                            with_error(spread.max, error.max),
                            format!("{:.2}% ±{:.2}", spread.delta_p * 100.0, error.delta_p * 100.0),
                        ]
                    });
                    let agreement = format!("{:.1}%", it.top1_agreement * 100.0);
                    format!(
                        "{} | {} | {agreement}",
                        with_error(it.mean_kl, it.standard_error),
                        spread.join(" | ")
                    )
                },
            );
            let _ = writeln!(
                out,
                "| {} | {:.3} ±{:.3} | {divergence} | {} |",
                escape(name),
                perplexity.value,
                perplexity.standard_error,
                perplexity.tokens
            );
        }
        out.push('\n');
    }

    fn write_queries(&self, out: &mut String) {
        let queries = self.queries();
        if !queries.is_empty() {
            out.push_str("## Answers\n\n");
        }
        for (index, query) in queries.iter().enumerate() {
            let (passed, of) = (query.passed(), query.scored());
            let _ = writeln!(out, "### {}. {} ({passed}/{of})\n", index + 1, escape(query.prompt));
            for same in &query.answers {
                let names: Vec<_> = same.configs.iter().map(|name| code(name)).collect();
                let mark = match same.answer.verdict() {
                    Score::Pass => "pass".to_owned(),
                    Score::Fail(failed) if failed.is_empty() => "**fail**".to_owned(),
                    Score::Fail(failed) => {
                        let failed: Vec<_> = failed.into_iter().map(code).collect();
                        format!("**fail** ({})", failed.join(", "))
                    }
                    Score::None(reason) => format!("not scored ({})", escape(reason)),
                };
                let thought = same.answer.thought_note().map(|note| format!(", {note}")).unwrap_or_default();
                let _ =
                    writeln!(out, "- {}: {mark}{thought}\n\n{}", names.join(", "), fenced(&same.answer.text));
            }
        }
    }
}

/// Writes a divergence with its standard error.
fn with_error(value: f64, error: f64) -> String {
    format!("{value:.4} ±{error:.4}")
}

fn write_findings(out: &mut String, groups: &[(&str, &Vec<Finding>)]) {
    out.push_str("| | wanted | found | |\n|---|---|---|---|\n");
    for (group, findings) in groups {
        for finding in *findings {
            let mark = match finding.state() {
                State::Holds => "holds".to_owned(),
                State::Fails => "**fails**".to_owned(),
                State::WithinError => match &finding.needs {
                    Some(needs) => format!("within the error; {}", prose(needs)),
                    None => "within the error".to_owned(),
                },
            };
            let (wanted, found) = (escape(&finding.wanted), escape(&finding.found));
            let _ = writeln!(out, "| {group} | {wanted} | {found} | {mark} |");
        }
    }
    out.push('\n');
}

fn write_advice(out: &mut String, advice: &[String]) {
    for idea in advice {
        let _ = writeln!(out, "- {}", prose(idea));
    }
    if !advice.is_empty() {
        out.push('\n');
    }
}

fn worst(survival: &Survival) -> String {
    let layers = Layers::of(survival);
    let worst = layers.worst(5).into_iter();
    let worst = worst.map(|(layer, kind, value)| format!("{layer} ({} {value:.2})", escape(kind)));
    worst.collect::<Vec<_>>().join(", ")
}

/// Escapes text so that nothing in it is Markdown or HTML, and puts it on one line.
fn escape(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// Escapes a sentence of ours, except that text between backticks becomes code.
fn prose(text: &str) -> String {
    if text.matches('`').count() % 2 == 1 {
        return escape(text);
    }
    let parts = text.split('`').enumerate();
    // Spaces at the ends of a part separate it from the next one, so they are kept.
    let words = |part: &str| {
        let space = |is: bool| if is { " " } else { "" };
        let ends = (part.starts_with(' '), part.len() > 1 && part.ends_with(' '));
        format!("{}{}{}", space(ends.0), escape(part), space(ends.1))
    };
    parts.map(|(index, part)| if index % 2 == 1 { code(part) } else { words(part) }).collect()
}

/// Writes text as code within a line. It is not safe in a table.
fn code(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let ticks = "`".repeat(longest_run(&line) + 1);
    let pad = if line.is_empty() || line.starts_with('`') || line.ends_with('`') { " " } else { "" };
    format!("{ticks}{pad}{line}{pad}{ticks}")
}

/// Writes text as a code block within a list item.
fn fenced(text: &str) -> String {
    let fence = "`".repeat((longest_run(text) + 1).max(3));
    // A lone carriage return ends a line too.
    let text = text.trim().replace("\r\n", "\n").replace('\r', "\n");
    let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("  {fence}text\n{lines}  {fence}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_users_write_stays_text() {
        assert_eq!(escape("a|b `c`\n*d* <e>"), "a\\|b \\`c\\` \\*d\\* &lt;e>");
        assert_eq!([code("a"), code("a`b"), code("``a")], ["`a`", "``a`b``", "``` ``a ```"]);
        assert_eq!(fenced("a\r```\rb"), "  ````text\n  a\n  ```\n  b\n  ````\n");
        assert_eq!(prose("more: with `bits: 5` <b>"), "more: with `bits: 5` &lt;b>");
        assert_eq!(prose("one ` alone"), "one \\` alone");
    }

    #[test]
    fn hostile_words_make_no_markup() {
        let sample = sample::rich();
        let text = sample.report().markdown();
        let mut fence = None;
        for line in text.lines() {
            let ticks = line.trim_start().chars().take_while(|c| *c == '`').count();
            match fence {
                None if ticks >= 3 => fence = Some(ticks),
                Some(open) if ticks >= open && line.trim().len() == ticks => fence = None,
                None => assert!(!line.contains("<script>"), "{line}"),
                Some(_) => {}
            }
        }
        assert_eq!(fence, None);
        let tables = text.lines().filter(|line| line.starts_with("| base"));
        assert!(tables.count() >= 2);
    }

    #[test]
    fn it_tells_the_whole_story() {
        let text = sample::rich().report().markdown();
        for expected in [
            "# discrimination\n\n**The gate on `4bit` failed. Ship `6bit`.** `6bit` meets",
            "| config | correct | accuracy | exact | perplexity | KL | survival | disk | bits/weight | load | memory |",
            "| base | 3/5 | 60% (23–88) | 3/5 | 14.21 ±0.30 | 0.9131 ±0.0457 | - | 1.9 MB | 4.52 |",
            "Gate on `4bit`: **failed**.",
            "|  | accuracy >= 90.0% | 60.0% (3/5, 95%: 23 to 88%) | **fails** |",
            "Verdict on `4bit`, against `fused-f16`: **not good enough**: ship the adapter beside the base, unfused.",
            "- more bits: with `bits: 5` the steps are 2.1 times as fine",
            "`4bit`: the update is 0.19 of a quantization step",
            "### 2. What is 7 times 8? (6/6)",
            "- `base`, `4bit`: **fail** (`expect`)",
            "Measured on linux x86\\_64, 2 threads",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }
}
