//! The table of a benchmark, and how a cell of it is written.
//! Knows nothing of Markdown or HTML.

use std::fmt::Write;

use super::{ConfigResults, Report, Timings};

/// Column headings; all but the first are set to the right.
pub(super) const HEADINGS: [&str; 9] =
    ["config", "correct", "accuracy", "exact", "disk", "bits/weight", "load", "memory", "decode"];

impl Report<'_> {
    pub(super) fn rows(&self) -> Vec<[String; 9]> {
        let configs = self.results.configs.iter();
        configs.map(|(name, results)| row(name, results, self.timings.configs.get(name))).collect()
    }

    /// Returns the table for a terminal of 80 columns.
    pub fn table(&self) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.rows());
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
}
