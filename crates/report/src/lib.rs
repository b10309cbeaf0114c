//! The results of a benchmark as data, what is decided from them, and how both are shown.
//! Knows nothing of how it was measured, nor of the terminal.
//!
//! ```text
//! results.json    Results     the same on every run: answers, accuracy, sizes, survival
//! readings.json   TextEvals   perplexity and divergence: on another machine the last digits can differ
//! timings.json    AllTimings  different on every run: seconds, memory, the machine
//! verdicts.json   Judgement   gates and verdicts, decided from the three above
//! report.md       ─┐
//! report.html      ├─ all of the above, for people
//! pipeline report ─┘
//! ```
//!
//! ```
//! use report::{Bound, Quantity};
//!
//! let bound = Bound::parse(Quantity::Disk, "<= 500 MB")?;
//! assert!(bound.holds(450e6));
//! assert!(!bound.holds(550e6));
//! # Ok::<(), String>(())
//! ```

mod advice;
mod answers;
mod changes;
mod criteria;
mod csv;
mod diff;
mod diff_text;
mod error;
mod front;
mod html;
mod interval;
mod judgement;
mod layers;
mod markdown;
mod noise;
mod outcome;
mod results;
#[cfg(test)]
#[path = "../../../tests/sample/mod.rs"]
mod sample;
mod statistics;
pub mod suite;
mod table;
mod tally;
mod terminal;
mod text_eval;
mod timings;

pub use changes::{Changes, Flip, Moved};
pub use criteria::{Bound, Comparison, Criterion, Gate, Number, Quantity, Verdict};
pub use csv::csv_header;
pub use diff::{Changed, Diff, Row, Side};
pub use error::Error;
pub use interval::wilson;
pub use judgement::{Conclusion, Finding, GateOutcome, Judgement, VerdictOutcome, judge};
pub use results::{Answer, ConfigResults, Results, Sample, TextEvals};
pub use tally::{PassAtK, Tally};
pub use terminal::paragraph;
pub use text_eval::{Divergence, Perplexity, Spread, SpreadErrors, TextEval};
pub use timings::{AllTimings, Load, Machine, RunFacts, SourceFacts, Timings};

/// Everything that a report shows.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What is the same on every run.
    pub results: &'a Results,
    /// What differs from run to run.
    pub timings: &'a AllTimings,
    /// The gates and verdicts that were decided.
    pub judgement: &'a Judgement,
}
