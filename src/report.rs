//! The result of a benchmark as data, and its table.
//! Knows nothing of how it was measured.

use std::fmt::Write;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// `results.json`: what is the same on every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The suite's name.
    pub suite: String,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, ConfigResults>,
}

/// What one configuration answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigResults {
    /// How many answers were of the right kind.
    pub correct: usize,
    /// Of how many.
    pub total: usize,
    /// `correct / total`.
    pub accuracy: f64,
    /// How many answers were the very text expected.
    pub exact: usize,
    /// Bytes of the model's folder, and of the adapter's.
    pub disk_bytes: u64,
    /// Bits that the tensors take, per weight of the model.
    pub bits_per_weight: f64,
    /// Every answer, in the order of the suite.
    pub answers: Vec<Answer>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub text: String,
    /// Whether it holds a tool call.
    pub tool_call: bool,
    /// Whether it is of the right kind.
    pub pass: bool,
}

/// `timings.json`: what differs from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllTimings {
    /// Where it was measured.
    pub machine: Machine,
    /// Per configuration, in the order of the pipeline file.
    pub configs: IndexMap<String, Timings>,
}

/// Where a benchmark was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux` or `macos`.
    pub system: String,
    /// `x86_64` or `aarch64`.
    pub processor: String,
    /// How many threads run at once.
    pub threads: usize,
    /// MLX's version and device.
    pub backend: String,
}

/// How fast and how large one configuration was, in a process of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From opening the folder until every weight is in memory.
    pub load_seconds: f64,
    /// The most memory that the process had, in bytes.
    pub peak_memory_bytes: u64,
    /// Tokens of the prompts per second.
    pub prefill_tokens_per_second: f64,
    /// Tokens of the answers per second, after the first.
    pub decode_tokens_per_second: f64,
    /// Mean time of one answer, prompt included.
    pub generation_seconds_mean: f64,
    /// The type that activations had.
    pub activation_dtype: String,
    /// MLX's device.
    pub device: String,
}

/// What a worker is asked to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// The model's folder.
    pub model: PathBuf,
    /// The adapter's folder, for LoRA applied at run time.
    pub adapter: Option<PathBuf>,
    /// The system message.
    pub system: Option<String>,
    /// The tools, as the chat template gets them.
    pub tools: Option<serde_json::Value>,
    /// What the user says, once per query.
    pub prompts: Vec<String>,
    /// The most tokens an answer may have.
    pub max_tokens: usize,
}

/// What a worker measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The text of each answer, in the order of the prompts.
    pub answers: Vec<String>,
    /// How fast and how large.
    pub timings: Timings,
}

/// Column headings; all but the first are set to the right.
const HEADINGS: [&str; 9] =
    ["config", "correct", "accuracy", "exact", "disk", "bits/weight", "load", "memory", "decode"];

impl Results {
    fn rows(&self, timings: Option<&AllTimings>) -> Vec<[String; 9]> {
        self.configs
            .iter()
            .map(|(name, results)| row(name, results, timings.and_then(|all| all.configs.get(name))))
            .collect()
    }

    /// Returns the table for a terminal of 80 columns.
    pub fn table(&self, timings: Option<&AllTimings>) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.rows(timings));
        let widths: Vec<_> = (0..HEADINGS.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for row in rows {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                let _ = write!(line, " {cell:>width$}");
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// Returns the report as Markdown: the table, then every question with each configuration's answer.
    pub fn markdown(&self, timings: &AllTimings) -> String {
        let mut out =
            format!("# {}\n\n| {} |\n|---{}|\n", self.suite, HEADINGS.join(" | "), "|---:".repeat(8));
        for row in self.rows(Some(timings)) {
            let _ = writeln!(out, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        let _ = writeln!(out, "\nMeasured on {}.\n", timings.machine);
        for index in 0..self.configs.first().map_or(0, |(_, first)| first.answers.len()) {
            for (position, (name, results)) in self.configs.iter().enumerate() {
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

    /// Returns the report as one page of HTML that loads nothing.
    pub fn html(&self, timings: &AllTimings) -> String {
        let cells = |row: &[String], tag: &str| {
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect::<String>()
        };
        let head = cells(&HEADINGS.map(str::to_owned), "th");
        let rows: String =
            self.rows(Some(timings)).iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
        let answers = self.answers_html();
        let (title, machine) = (escape(&self.suite), escape(&timings.machine.to_string()));
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n<div class=\"wide\"><table>\n\
             <tr>{head}</tr>\n{rows}</table></div>\n<p>Measured on {machine}.</p>\n{answers}</html>\n"
        )
    }

    fn answers_html(&self) -> String {
        let mut out = String::new();
        for index in 0..self.configs.first().map_or(0, |(_, first)| first.answers.len()) {
            for (position, (name, results)) in self.configs.iter().enumerate() {
                let Some(answer) = results.answers.get(index) else { continue };
                if position == 0 {
                    let _ = write!(out, "<h2>{}</h2>\n<dl>\n", escape(&answer.prompt));
                }
                let class = if answer.pass { "pass" } else { "fail" };
                let text = escape(answer.text.trim());
                let _ = writeln!(
                    out,
                    "<dt>{} <b class=\"{class}\">{class}</b></dt><dd><code>{text}</code></dd>",
                    escape(name)
                );
            }
            out.push_str("</dl>\n");
        }
        out
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color-scheme:light dark}.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem .7rem;text-align:right;\
border-bottom:1px solid #8884}th:first-child,td:first-child{text-align:left}h2{font-size:1.1rem;margin-top:2rem}\
dt{margin-top:.5rem}dd{margin:0;overflow-x:auto}.pass{color:#2a8a4a}.fail{color:#d0452f}";

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}, {} threads, {}", self.system, self.processor, self.threads, self.backend)
    }
}

fn row(name: &str, results: &ConfigResults, timings: Option<&Timings>) -> [String; 9] {
    let timed = |show: &dyn Fn(&Timings) -> String| timings.map_or_else(|| "-".to_owned(), show);
    [
        name.to_owned(),
        format!("{}/{}", results.correct, results.total),
        format!("{:.1}%", results.accuracy * 100.0),
        results.exact.to_string(),
        bytes(results.disk_bytes),
        format!("{:.2}", results.bits_per_weight),
        timed(&|timings| format!("{:.2} s", timings.load_seconds)),
        timed(&|timings| bytes(timings.peak_memory_bytes)),
        timed(&|timings| format!("{:.0} t/s", timings.decode_tokens_per_second)),
    ]
}

/// Returns a number of bytes in decimal units, as disks are sold and the hub counts.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal() {
        assert_eq!(
            [0, 999, 1_000, 1_863_108, 60_000_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.9 MB", "60.0 GB"]
        );
    }

    #[test]
    fn answers_cannot_write_html() {
        let answer = Answer { prompt: "<b>".into(), text: "<script>".into(), tool_call: false, pass: true };
        let results = ConfigResults {
            correct: 1,
            total: 1,
            accuracy: 1.0,
            exact: 1,
            disk_bytes: 1,
            bits_per_weight: 4.5,
            answers: vec![answer],
        };
        let results =
            Results { suite: "s".into(), configs: [("c".to_owned(), results)].into_iter().collect() };
        let machine =
            Machine { system: "linux".into(), processor: "x".into(), threads: 1, backend: "b".into() };
        let page = results.html(&AllTimings { machine, configs: IndexMap::new() });
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
    }
}
