//! An error at a place in a YAML or JSON file, shown with the line it is on.
//! Knows nothing of what caused it.

use std::fmt::Write;
use std::path::Path;

use super::At;

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
        let mut out = format!("{}:{line}:{column}: {}", file.display(), self.message);
        let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(offending) = text.lines().nth(index) {
            // Tabs are copied to the line of the caret, so that the caret is below the right column.
            let before = offending.chars().take(usize::try_from(column).unwrap_or(1).saturating_sub(1));
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let margin = " ".repeat(line.to_string().len());
            let _ = write!(out, "\n  {line} | {offending}\n  {margin} | {indent}^");
        }
        out
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
}
