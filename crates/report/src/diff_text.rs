//! The comparison of two configurations as text for a terminal.
//! Knows nothing of how they were compared.

use std::fmt::Write;

use super::diff::{Changed, Diff, Row};

/// How many characters of a prompt or an answer are shown.
const WIDTH: usize = 60;

impl Diff {
    /// Returns the text. It fits into 80 columns unless the names of the configurations are long.
    pub fn text(&self) -> String {
        let [a, b] = &self.names;
        let mut rows = vec![[String::new(), a.clone(), b.clone(), String::new()]];
        rows.extend(self.figures.iter().map(|row| {
            let [a, b] = row.shown.clone();
            [row.name.to_owned(), a, b, change(row)]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        let mut out = String::new();
        for [name, a, b, change] in &rows {
            let line = format!("{name:<0$}  {a:>1$}  {b:>2$}  {change}", widths[0], widths[1], widths[2]);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if !self.answers.is_empty() {
            let [only_a, only_b] = self.right_in_one;
            let count = self.answers.len();
            let differ = if count == 1 { "answer differs" } else { "answers differ" };
            let _ = writeln!(out, "\n{count} {differ} (McNemar's exact p = {:.2})", self.p_value);
            let _ = writeln!(out, "right in {a} only: {only_a}, in {b} only: {only_b}");
        }
        self.answers.iter().for_each(|answer| out += &self.answer(answer));
        out
    }

    fn answer(&self, answer: &Changed) -> String {
        let width = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut out = format!("- {}\n", short(&answer.prompt));
        for ((name, text), pass) in self.names.iter().zip(&answer.texts).zip(answer.pass) {
            let _ =
                writeln!(out, "  {name:<width$}  {}  {}", if pass { "pass" } else { "fail" }, short(text));
        }
        out
    }
}

/// Returns the change from the first value to the second: a difference for shares, counts, KL and survival, a
/// factor for the rest.
fn change(row: &Row) -> String {
    let [a, b] = row.values;
    if a.to_bits() == b.to_bits() {
        return "same".to_owned();
    }
    match row.name {
        "accuracy" | "top-1 agreement" => format!("{:+.1} points", (b - a) * 100.0),
        "exact" => format!("{:+}", b - a),
        "kl" => format!("{:+.4}", b - a),
        "survival" => format!("{:+.2}", b - a),
        _ if a > 0.0 => format!("{:.2}x", b / a),
        _ => String::new(),
    }
}

/// Returns the beginning of a text on one line.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
