//! The report as text for a terminal of 80 columns.
//! Knows nothing of the terminal itself.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::judgement::State;
use super::outcome::{Outcome, quoted};
use super::table::Column;
use super::{Conclusion, Report};

const WIDTH: usize = 80;

impl Report<'_> {
    /// Returns the table, and below it the decisions and what quantizing lost of a fine-tuning.
    pub fn table(&self) -> String {
        let mut out = draw(self.columns());
        if self.is_judged() {
            let Outcome { headline, detail, .. } = self.outcome();
            out += &paragraph("\n", &headline, "");
            out += &paragraph("", &detail, "");
            out.push('\n');
        }
        let mut advised = BTreeSet::new();
        self.gates(&mut out, &mut advised);
        self.verdicts(&mut out, &mut advised);
        let losses = self.losses();
        if !losses.is_empty() {
            out.push('\n');
        }
        out += &losses;
        for note in self.code_notes() {
            out += &paragraph("", &note, "");
        }
        out
    }

    fn gates<'a>(&'a self, out: &mut String, advised: &mut BTreeSet<&'a str>) {
        for gate in &self.judgement.gates {
            let word = match gate.state() {
                State::Holds => "holds",
                State::Fails => "failed",
                State::WithinError => "within the error",
            };
            *out += &paragraph("", &format!("gate on {}: {word}", quoted(&gate.config)), "");
            write_lines(out, "  ", &gate.missed());
            self.advise(out, &gate.config, &gate.advice, advised);
        }
    }

    fn verdicts<'a>(&'a self, out: &mut String, advised: &mut BTreeSet<&'a str>) {
        for verdict in &self.judgement.verdicts {
            let otherwise = verdict.otherwise.as_ref();
            let otherwise = otherwise.filter(|_| verdict.conclusion == Conclusion::Otherwise);
            let otherwise = otherwise.map(|text| format!(": {text}")).unwrap_or_default();
            let config = quoted(&verdict.config);
            *out += &paragraph("", &format!("verdict on {config}: {}{otherwise}", verdict.words()), "  ");
            write_lines(out, "  ", &verdict.missed());
            self.advise(out, &verdict.config, &verdict.advice, advised);
        }
    }

    /// Says what to try, once for each configuration. The cause of a lost fine-tuning is left out, because it
    /// is printed further below.
    fn advise<'a>(
        &self,
        out: &mut String,
        config: &'a str,
        advice: &[String],
        advised: &mut BTreeSet<&'a str>,
    ) {
        let survival = self.results.configs.get(config).and_then(|results| results.survival.as_ref());
        let cause = survival.and_then(|survival| survival.cause.as_ref());
        let ideas: Vec<_> = advice.iter().filter(|idea| Some(*idea) != cause).cloned().collect();
        if !ideas.is_empty() && advised.insert(config) {
            write_lines(out, "  try: ", &ideas);
        }
    }

    fn losses(&self) -> String {
        let mut out = String::new();
        for (name, results) in &self.results.configs {
            let Some(survival) = results.survival.as_ref().filter(|survival| !survival.is_intact()) else {
                continue;
            };
            let cause = survival.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
            let figure = survival.overall.survival;
            out += &paragraph("", &format!("survival of {} is {figure:.2}{cause}", quoted(name)), "  ");
        }
        let kept =
            self.results.configs.iter().filter_map(|(name, results)| {
                Some((quoted(name), results.survival.as_ref()?.explanation()?))
            });
        let (names, explanations): (Vec<_>, Vec<_>) = kept.unzip();
        if let Some(explanation) = explanations.first() {
            out += &paragraph("", &format!("{}: {explanation}", names.join(", ")), "  ");
        }
        out
    }
}

fn write_lines(out: &mut String, first: &str, lines: &[String]) {
    for line in lines {
        *out += &paragraph(first, line, "    ");
    }
}

/// Draws the columns and leaves out those that do not fit.
fn draw(mut columns: Vec<Column>) -> String {
    let width = |column: &Column| {
        let cells = (0..column.cells.len()).map(|row| text(column, row).chars().count());
        cells.chain([column.heading.chars().count()]).max().unwrap_or(0)
    };
    // Prefill speed is never shown here, because not all columns fit. The HTML page has it.
    columns.retain(|column| column.heading != "prefill");
    while columns.iter().map(|column| width(column) + 1).sum::<usize>() > WIDTH + 1 {
        let Some(least) = columns.iter().map(|column| column.yields).max().filter(|yields| *yields > 0)
        else {
            break;
        };
        columns.retain(|column| column.yields != least);
    }
    let widths: Vec<_> = columns.iter().map(width).collect();
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let mut out = String::new();
    for row in 0..=rows {
        let mut line = String::new();
        for (index, (column, width)) in columns.iter().zip(&widths).enumerate() {
            let cell = if row == 0 { column.heading.to_owned() } else { text(column, row - 1) };
            let _ = if index == 0 { write!(line, "{cell:<width$}") } else { write!(line, " {cell:>width$}") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Returns the text of a cell. The standard error of KL is left out, because there is no room for it.
fn text(column: &Column, row: usize) -> String {
    let cell = &column.cells[row];
    match cell.note.as_ref().filter(|_| column.heading != "KL") {
        Some(note) => format!("{} {note}", cell.value),
        None => cell.value.clone(),
    }
}

/// Breaks words into lines of at most 80 characters. `first` begins the first line, and `indent` the others.
///
/// A word is never broken, so a long word makes a long line. The text is empty if there are no words.
pub fn paragraph(first: &str, words: &str, indent: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let mut lines = vec![first.to_owned()];
    let mut is_fresh = true;
    for word in words.split_whitespace() {
        let line = lines.last_mut().expect("BUG: there is a first line");
        let length = line.chars().count() + usize::from(!is_fresh) + word.chars().count();
        if length > WIDTH && !is_fresh {
            lines.push(format!("{indent}{word}"));
            continue;
        }
        if !is_fresh {
            line.push(' ');
        }
        line.push_str(word);
        is_fresh = false;
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for sample in [sample::plain(), sample::rich(), sample::texts(), sample::sweep()] {
            for line in sample.report().table().lines() {
                let width = line.chars().count();
                assert!(width <= WIDTH, "{width} columns:\n{line}");
            }
        }
    }

    #[test]
    fn columns_that_matter_less_give_way() {
        let first = |sample: sample::Sample| sample.report().table().lines().next().unwrap().to_owned();
        let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(first(sample::plain())),
            "config correct accuracy exact disk bits/weight load memory decode"
        );
        assert_eq!(
            words(first(sample::rich())),
            "config correct accuracy perplexity KL survival disk memory decode"
        );
    }

    #[test]
    fn words_are_broken_between_and_not_within() {
        let long = "a".repeat(90);
        let text = paragraph("  ", &format!("one {} two {long} three", "b".repeat(75)), "    ");
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [5, 79, 7, 94, 9], "{text}");
        assert_eq!(paragraph("", "", ""), "");
    }
}
