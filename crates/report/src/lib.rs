//! The result of a benchmark as data, what was decided from it, and how it is shown.
//! Knows nothing of how it was measured, nor of the terminal.
//!
//! ```text
//! results.json    Results     what is the same on every run: answers, accuracy, sizes, survival
//! readings.json   TextEvals    what texts gave, the same but for the last places
//! timings.json    AllTimings  what is not the same: seconds, memory, the machine
//! verdicts.json   Judgement   gates and verdicts, decided from both
//! report.md       ─┐
//! report.html      ├─ the three above, for people
//! pipeline report ─┘
//! ```

mod answers;
mod criteria;
mod csv;
mod diff;
mod diff_text;
mod front;
mod html;
mod interval;
mod judgement;
mod layers;
mod markdown;
mod outcome;
mod results;
#[cfg(test)]
#[path = "../../../tests/sample/mod.rs"]
mod sample;
pub mod suite;
mod table;
mod terminal;
mod timings;

pub use criteria::{Bound, Comparison, Criterion, Gate, Number, Quantity, Verdict};
pub use csv::csv_header;
pub use diff::{Changed, Diff, Row, Side};
pub use interval::wilson;
pub use judgement::{Conclusion, Finding, GateOutcome, Judgement, VerdictOutcome, judge};
pub use results::{Answer, ConfigResults, Quantization, Results, TextEvals};
pub use terminal::paragraph;
pub use timings::{AllTimings, Machine};

/// All that a report shows.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What is the same on every run.
    pub results: &'a Results,
    /// What is not.
    pub timings: &'a AllTimings,
    /// What was decided.
    pub judgement: &'a Judgement,
}
