//! The table of figures, with a row for each configuration: its columns, and how each cell is written.
//! Knows nothing of how a table is drawn.

use super::{ConfigResults, PassAtK, Report};
use crate::Timings;
use text::units::{bytes, speed};

/// One column; the first holds the configurations' names.
pub(super) struct Column {
    /// Its heading.
    pub(super) heading: &'static str,
    /// When the column is dropped to make room for the others: the highest number first, 0 never.
    pub(super) yields: u8,
    /// One cell for each configuration.
    pub(super) cells: Vec<Cell>,
}

/// A value, and optionally how certain it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) value: String,
    /// How certain the value is, such as `38-96` or `±0.05`.
    pub(super) note: Option<String>,
}

impl Cell {
    fn plain(value: String) -> Self {
        Self { value, note: None }
    }
}

/// The data that one row is written from.
struct Row<'a> {
    name: &'a str,
    results: &'a ConfigResults,
    timings: Option<&'a Timings>,
}

type Write = fn(&Row<'_>) -> Option<Cell>;

/// All possible columns: the heading, when the column yields, and the cell, if the configuration has one.
const COLUMNS: [(&str, u8, Write); 16] = [
    ("config", 0, |row| Some(Cell::plain(row.name.to_owned()))),
    ("correct", 1, |row| {
        let ConfigResults { correct, total, .. } = *row.results;
        (total > 0).then(|| Cell::plain(format!("{correct}/{total}")))
    }),
    ("accuracy", 0, accuracy),
    ("credit", 4, |row| row.results.credit.map(|credit| Cell::plain(percent(credit)))),
    ("pass@k", 4, |row| {
        let PassAtK { k, value, interval, .. } = row.results.pass_at_k?;
        let [low, high] = interval.map(|end| end * 100.0);
        Some(Cell { value: format!("{} of {k}", percent(value)), note: Some(format!("{low:.0}-{high:.0}")) })
    }),
    ("thought", 4, |row| {
        let tokens = row.results.thought_tokens;
        (tokens > 0).then(|| Cell::plain(format!("{tokens} tok")))
    }),
    ("exact", 4, |row| {
        let ConfigResults { exact, exact_total, .. } = *row.results;
        (exact_total > 0).then(|| Cell::plain(format!("{exact}/{exact_total}")))
    }),
    ("perplexity", 0, |row| row.results.perplexity.map(|it| give_or_take(it.value, it.standard_error))),
    ("KL", 2, |row| {
        row.results.divergence.map(|it| Cell {
            value: format!("{:.4}", it.mean_kl),
            note: Some(format!("±{:.4}", it.standard_error)),
        })
    }),
    ("survival", 0, |row| {
        let survival = row.results.survival.as_ref()?;
        Some(Cell::plain(format!("{:.2}", survival.overall.survival)))
    }),
    ("disk", 0, |row| Some(Cell::plain(bytes(row.results.disk_bytes)))),
    ("bits/weight", 5, |row| Some(Cell::plain(format!("{:.2}", row.results.bits_per_weight)))),
    ("load", 6, |row| Some(Cell::plain(format!("{:.2} s", row.timings?.load_seconds)))),
    ("memory", 3, |row| Some(Cell::plain(bytes(row.timings?.peak_memory_bytes)))),
    ("prefill", 7, |row| Some(Cell::plain(speed(row.timings?.prefill_tokens_per_second)))),
    ("decode", 0, |row| Some(Cell::plain(speed(row.timings?.decode_tokens_per_second)))),
];

impl Report<'_> {
    /// Returns the columns for which at least one configuration has a value.
    pub(super) fn columns(&self) -> Vec<Column> {
        let configs = self.results.configs.iter();
        let rows =
            configs.map(|(name, results)| Row { name, results, timings: self.timings.configs.get(name) });
        let rows: Vec<_> = rows.collect();
        let columns = COLUMNS.iter().filter_map(|(heading, yields, write)| {
            let cells: Vec<_> = rows.iter().map(write).collect();
            let nothing = || Cell::plain("-".to_owned());
            cells.iter().any(Option::is_some).then(|| Column {
                heading,
                yields: *yields,
                cells: cells.into_iter().map(|cell| cell.unwrap_or_else(nothing)).collect(),
            })
        });
        columns.collect()
    }
}

fn accuracy(row: &Row<'_>) -> Option<Cell> {
    let ConfigResults { total, accuracy_interval, .. } = *row.results;
    let [low, high] = accuracy_interval.map(|end| end * 100.0);
    (total > 0)
        .then(|| Cell { value: percent(row.results.accuracy), note: Some(format!("{low:.0}-{high:.0}")) })
}

/// Writes a share in whole per cent. A share that is close to 0 or 1, but not equal, has one decimal place,
/// so
/// that `0%` and `100%` are always exact.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let is_all_but = (99.5..100.0).contains(&percent);
    if is_all_but || (percent > 0.0 && percent < 0.5) {
        return format!("{:.1}%", percent.clamp(0.1, 99.9));
    }
    format!("{percent:.0}%")
}

/// Writes a value with its standard error, both with two decimal places, or with none from 1000 on.
pub(super) fn give_or_take(value: f64, standard_error: f64) -> Cell {
    let places = if value.abs() < 1000.0 { 2 } else { 0 };
    Cell { value: format!("{value:.places$}"), note: Some(format!("±{standard_error:.places$}")) }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn units_are_decimal() {
        assert_eq!(
            [0, 999, 1_000, 1_863_108, 60_000_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.9 MB", "60.0 GB"]
        );
    }

    #[test]
    fn all_and_nothing_are_never_rounded_to() {
        assert_eq!(
            [0.0, 0.0001, 0.004, 0.6, 0.995, 0.9999, 1.0].map(percent),
            ["0%", "0.1%", "0.4%", "60%", "99.5%", "99.9%", "100%"]
        );
    }

    #[test]
    fn large_values_have_no_places() {
        let write = |value, error| {
            let Cell { value, note } = give_or_take(value, error);
            format!("{value} {}", note.unwrap())
        };
        assert_eq!(write(8.1234, 0.0456), "8.12 ±0.05");
        assert_eq!(write(123_456.7, 890.1), "123457 ±890");
    }

    #[test]
    fn a_column_that_nobody_has_is_left_out() {
        let mut sample = sample::plain();
        let headings = |sample: &sample::Sample| -> Vec<_> {
            sample.report().columns().iter().map(|column| column.heading).collect()
        };
        assert_eq!(
            headings(&sample),
            [
                "config",
                "correct",
                "accuracy",
                "exact",
                "disk",
                "bits/weight",
                "load",
                "memory",
                "prefill",
                "decode"
            ]
        );
        for config in sample.results.configs.values_mut() {
            (config.total, config.exact_total) = (0, 0);
        }
        sample.timings.configs.clear();
        assert_eq!(headings(&sample), ["config", "disk", "bits/weight"]);
    }
}
