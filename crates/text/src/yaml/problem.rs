//! An error at a place in a YAML or JSON file, shown with the line it is on.
//! Knows nothing of what caused it.

use std::fmt::Write;
use std::path::Path;

use super::At;

/// The most characters of a line that are shown.
const LONGEST_LINE: usize = 120;

/// The most characters of a message that are shown.
const LONGEST_MESSAGE: usize = 1200;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {message}", at.line, at.column)]
pub struct Problem {
    /// The place of the error.
    pub at: At,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Problem {
    /// Makes a problem at `at`.
    pub fn new(at: At, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// Returns `FILE:LINE:COLUMN: MESSAGE`, followed by that line of `text` and a caret below the column.
    pub fn render(&self, file: &Path, text: &str) -> String {
        let At { line, column } = self.at;
        let mut out = self.render_without_text(file);
        let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(offending) = text.lines().nth(index) {
            let before = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            let (offending, before) = around(offending, before);
            // Tabs are copied to the line of the caret, so that the caret is below the right column.
            let indent = offending.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' });
            let indent: String = indent.collect();
            let margin = " ".repeat(line.to_string().len());
            let _ = write!(out, "\n  {line} | {offending}\n  {margin} | {indent}^");
        }
        out
    }

    /// Returns `FILE:LINE:COLUMN: MESSAGE`. A long message is cut.
    pub fn render_without_text(&self, file: &Path) -> String {
        let At { line, column } = self.at;
        let mut message: String = self.message.chars().take(LONGEST_MESSAGE).collect();
        if message.len() < self.message.len() {
            message.push('…');
        }
        format!("{}:{line}:{column}: {message}", file.display())
    }

    /// Returns the problem without what it quotes, for a file whose content must not be shown.
    #[must_use]
    pub fn without_quotes(&self) -> Self {
        let parts = self.message.split('`').enumerate();
        let parts = parts.map(|(index, part)| if index % 2 == 1 { "…" } else { part });
        Self { at: self.at, message: parts.collect::<Vec<_>>().join("`") }
    }
}

/// Returns the part of a long line around the character at `index`, and the index in that part.
fn around(line: &str, index: usize) -> (String, usize) {
    let count = line.chars().count();
    if count <= LONGEST_LINE {
        return (line.to_owned(), index);
    }
    let start = index.saturating_sub(LONGEST_LINE / 2).min(count - LONGEST_LINE);
    let part: String = line.chars().skip(start).take(LONGEST_LINE).collect();
    let end = if start + LONGEST_LINE < count { "…" } else { "" };
    match start {
        0 => (format!("{part}{end}"), index),
        _ => (format!("…{part}{end}"), index - start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line() {
        let problem = Problem::new(At { line: 2, column: 4 }, "unknown key `bit`");
        let shown = problem.render(Path::new("pipeline.yaml"), "a:\n  {bit: 8}\n");
        assert_eq!(shown, "pipeline.yaml:2:4: unknown key `bit`\n  2 |   {bit: 8}\n    |    ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}bit{}", "a".repeat(5000), "b".repeat(5000));
        let shown = Problem::new(At { line: 1, column: 5001 }, "unknown key").render(Path::new("f"), &line);
        let [_, part, caret] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
        assert!(part.chars().count() < 140, "{shown}");
        let column = caret.chars().position(|c| c == '^').unwrap();
        assert!(part.chars().skip(column).collect::<String>().starts_with("bit"), "{shown}");
        let long = Problem::new(At { line: 1, column: 1 }, "x".repeat(5000)).render(Path::new("f"), "");
        assert!(long.chars().count() < LONGEST_MESSAGE + 100);
    }

    #[test]
    fn what_must_not_be_shown_is_left_out() {
        let problem =
            Problem::new(At { line: 1, column: 1 }, "unknown key `secret` in `suite`; did you mean `x`?");
        assert_eq!(problem.without_quotes().message, "unknown key `…` in `…`; did you mean `…`?");
    }
}
