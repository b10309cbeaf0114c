//! The plain figures of every configuration as CSV, one row each, quoted as in RFC 4180. Lines end with LF.
//! Knows nothing of answers.

use super::{ConfigResults, Report};
use crate::Timings;

const HEADINGS: [&str; 35] = [
    "benchmark",
    "config",
    "correct",
    "total",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "exact",
    "exact_total",
    "disk_bytes",
    "bits_per_weight",
    "bits",
    "group_size",
    "mode",
    "perplexity",
    "perplexity_standard_error",
    "perplexity_tokens",
    "kl",
    "kl_standard_error",
    "top1_agreement",
    "survival",
    "cosine",
    "rounding",
    "noise_to_signal",
    "reverted",
    "delta_per_step",
    "load_seconds",
    "peak_memory_bytes",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "generation_seconds_mean",
    "spread",
    "repeats",
    "activation_dtype",
    "device",
];

/// Returns the header line, which names the columns.
pub fn csv_header() -> String {
    line(&HEADINGS.map(str::to_owned))
}

impl Report<'_> {
    /// Returns one line for each configuration. The first column is `benchmark`, the name of the benchmark.
    pub fn csv_rows(&self, benchmark: &str) -> String {
        let configs = self.results.configs.iter();
        let row = |(name, results): (&String, &ConfigResults)| {
            let mut cells = vec![benchmark.to_owned(), name.clone()];
            cells.extend(answered(results));
            cells.extend(weighed(results));
            cells.extend(foreseen(results));
            cells.extend(timed(self.timings.configs.get(name)));
            line(&cells)
        };
        configs.map(row).collect()
    }
}

fn answered(results: &ConfigResults) -> [String; 7] {
    let ConfigResults { correct, total, accuracy, accuracy_interval, exact, exact_total, .. } = results;
    let asked = *total > 0;
    let share = |value: f64| show(asked.then_some(value));
    let [low, high] = *accuracy_interval;
    [
        correct.to_string(),
        total.to_string(),
        share(*accuracy),
        share(low),
        share(high),
        exact.to_string(),
        exact_total.to_string(),
    ]
}

fn weighed(results: &ConfigResults) -> [String; 5] {
    let quantization = results.quantization.as_ref();
    [
        results.disk_bytes.to_string(),
        results.bits_per_weight.to_string(),
        show(quantization.map(|it| it.bits)),
        show(quantization.map(|it| it.group_size)),
        show(quantization.map(|it| it.mode.word())),
    ]
}

fn foreseen(results: &ConfigResults) -> [String; 12] {
    let ConfigResults { perplexity, divergence, .. } = results;
    let survival = results.survival.as_ref().map(|survival| survival.overall);
    [
        show(perplexity.map(|it| it.value)),
        show(perplexity.map(|it| it.standard_error)),
        show(perplexity.map(|it| it.tokens)),
        show(divergence.map(|it| it.mean_kl)),
        show(divergence.map(|it| it.standard_error)),
        show(divergence.map(|it| it.top1_agreement)),
        show(survival.map(|it| it.survival)),
        show(survival.map(|it| it.cosine)),
        show(survival.and_then(|it| it.rounding)),
        show(survival.map(|it| it.noise_to_signal)),
        show(survival.map(|it| it.reverted)),
        show(survival.and_then(|it| it.delta_per_step)),
    ]
}

fn timed(timings: Option<&Timings>) -> [String; 9] {
    [
        show(timings.map(|it| it.load_seconds)),
        show(timings.map(|it| it.peak_memory_bytes)),
        show(timings.map(|it| it.prefill_tokens_per_second)),
        show(timings.map(|it| it.decode_tokens_per_second)),
        show(timings.map(|it| it.generation_seconds_mean)),
        show(timings.and_then(|it| it.spread)),
        show(timings.map(|it| it.repeats)),
        show(timings.map(|it| &it.activation_dtype)),
        show(timings.map(|it| &it.device)),
    ]
}

/// Returns the value as text; a value that was not measured is an empty cell.
fn show(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn line(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| quote(cell)).collect();
    cells.join(",") + "\n"
}

fn quote(cell: &str) -> String {
    if !cell.contains(['"', ',', '\n', '\r']) {
        return cell.to_owned();
    }
    format!("\"{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(
            ["8bit", "a,b", "say \"a\"", "a\nb", ""].map(quote),
            ["8bit", "\"a,b\"", "\"say \"\"a\"\"\"", "\"a\nb\"", ""]
        );
    }

    #[test]
    fn every_row_has_a_cell_for_every_heading() {
        let sample = sample::rich();
        let text = csv_header() + &sample.report().csv_rows("bench");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 7);
        assert!(lines.iter().all(|line| line.split(',').count() == HEADINGS.len()), "{text}");
        let decode = HEADINGS.iter().position(|heading| *heading == "decode_tokens_per_second").unwrap();
        assert_eq!(lines[1].split(',').nth(decode), Some("154"));
    }
}
