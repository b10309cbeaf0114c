//! The conclusion of a benchmark in one or two sentences: which configuration to ship and why.
//! Knows nothing of how they are shown. Names, and words that the user may type, are between backticks.

use super::judgement::State;
use super::table::{give_or_take, percent};
use super::{Conclusion, ConfigResults, Finding, GateOutcome, Report, VerdictOutcome};
use text::units::bytes;

/// The conclusion of a benchmark.
pub(super) struct Outcome {
    /// How good it is.
    pub(super) tone: Tone,
    /// The main sentence.
    pub(super) headline: String,
    /// The reasons, and what else the reader should know; may be empty.
    pub(super) detail: String,
}

/// How good an outcome is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// A configuration can be shipped, or all gates hold.
    Good,
    /// The pipeline file asks for no decision.
    Plain,
    /// A gate failed, or no configuration is good enough.
    Bad,
}

impl Report<'_> {
    /// Whether the pipeline file asks for a decision.
    pub(super) fn is_judged(&self) -> bool {
        !self.judgement.gates.is_empty() || !self.judgement.verdicts.is_empty()
    }

    /// Returns the verdict on the configuration to ship: the smallest optimal one, or else the smallest that
    /// meets the minimum. A configuration that fails a gate is never chosen.
    pub(super) fn choice(&self) -> Option<&VerdictOutcome> {
        let of = |conclusion| {
            let verdicts = self.judgement.verdicts.iter();
            let verdicts = verdicts.filter(|verdict| verdict.conclusion == conclusion);
            verdicts.filter(|verdict| self.passes(&verdict.config)).min_by_key(|verdict| self.disk(verdict))
        };
        of(Conclusion::Optimal).or_else(|| of(Conclusion::Minimum))
    }

    /// Says of each configuration whose model brings code of its own that it does.
    pub(super) fn code_notes(&self) -> Vec<String> {
        self.results.configs.iter().filter_map(|(name, results)| results.code_note(name)).collect()
    }

    /// Returns the gates that failed.
    pub(super) fn failed_gates(&self) -> Vec<&GateOutcome> {
        self.judgement.gates.iter().filter(|gate| !gate.pass).collect()
    }

    fn passes(&self, config: &str) -> bool {
        !self.judgement.gates.iter().any(|gate| gate.config == config && !gate.pass)
    }

    fn disk(&self, verdict: &VerdictOutcome) -> u64 {
        self.results.configs.get(&verdict.config).map_or(u64::MAX, |results| results.disk_bytes)
    }

    /// Returns the conclusion.
    pub(super) fn outcome(&self) -> Outcome {
        let failed: Vec<_> = self.failed_gates().iter().map(|gate| quoted(&gate.config)).collect();
        let decision = match (self.choice(), self.judgement.verdicts.is_empty()) {
            (Some(verdict), _) => Some(self.recommend(verdict)),
            (None, false) => Some(self.reject()),
            (None, true) if failed.is_empty() => Some(self.describe()),
            (None, true) => None,
        };
        let gates = match failed.as_slice() {
            [] => None,
            [one] => Some(format!("The gate on {one} failed.")),
            many => Some(format!("The gates on {} failed.", many.join(", "))),
        };
        match (gates, decision) {
            (Some(gates), Some(Outcome { headline, detail, .. })) => {
                Outcome { tone: Tone::Bad, headline: format!("{gates} {headline}"), detail }
            }
            (Some(gates), None) => Outcome { tone: Tone::Bad, headline: gates, detail: String::new() },
            (None, decision) => decision.unwrap_or_else(|| self.describe()),
        }
    }

    fn recommend(&self, verdict: &VerdictOutcome) -> Outcome {
        let name = quoted(&verdict.config);
        let against =
            verdict.against.as_ref().map(|other| format!(" Factors are against {}.", quoted(other)));
        let (headline, reason, missed) = match verdict.conclusion {
            Conclusion::Optimal => (
                format!("Ship {name}."),
                format!("{name} meets all that was asked: {}.", met(&verdict.optimal)),
                self.rivals(verdict),
            ),
            _ if verdict.optimal.is_empty() => (
                format!("Ship {name}."),
                format!("{name} meets all that was asked: {}.", met(&verdict.minimum)),
                String::new(),
            ),
            _ => (
                format!("Ship {name}: good enough, but not the best one could wish for."),
                format!("{name} meets the minimum: {}.", met(&verdict.minimum)),
                format!(" Short of the best: {}.", missed(&verdict.optimal).join("; ")),
            ),
        };
        let gates = self.judgement.undecided().into_iter().map(|gate| format!(" {}", sentence(&gate)));
        let unsure = self.unsure(verdict) + &gates.collect::<String>();
        let detail =
            format!("{reason}{missed}{}{unsure}{}", against.unwrap_or_default(), self.warned(verdict));
        Outcome { tone: Tone::Good, headline, detail }
    }

    /// Names the bounds that are within the error of what was measured.
    fn unsure(&self, verdict: &VerdictOutcome) -> String {
        let findings = match verdict.conclusion {
            Conclusion::Optimal => &verdict.optimal,
            _ => &verdict.minimum,
        };
        let unsure: Vec<_> = findings
            .iter()
            .filter(|finding| finding.state() == State::WithinError)
            .map(Finding::words)
            .collect();
        if unsure.is_empty() {
            String::new()
        } else {
            format!(" This is not certain: {}.", unsure.join("; "))
        }
    }

    /// Says that quantizing lost much of the fine-tuning, if the build has warned about it.
    fn warned(&self, verdict: &VerdictOutcome) -> String {
        let survival =
            self.results.configs.get(&verdict.config).and_then(|results| results.survival.as_ref());
        let lost = survival.filter(|survival| !survival.is_intact());
        lost.map_or_else(String::new, |survival| {
            let name = quoted(&verdict.config);
            let left = survival.overall.survival;
            format!(" The build has warned about {name}: its survival is {left:.2}, so look at its answers before you ship it.")
        })
    }

    /// Names the other configurations that are optimal too.
    fn rivals(&self, chosen: &VerdictOutcome) -> String {
        let verdicts = self.judgement.verdicts.iter().filter(|verdict| {
            verdict.conclusion == Conclusion::Optimal
                && verdict.config != chosen.config
                && self.passes(&verdict.config)
        });
        let rivals: Vec<_> = verdicts.map(|verdict| quoted(&verdict.config)).collect();
        match rivals.is_empty() {
            true => String::new(),
            false => format!(" As good, and no smaller: {}.", rivals.join(", ")),
        }
    }

    fn reject(&self) -> Outcome {
        let ways = self.judgement.verdicts.iter().filter_map(|verdict| {
            let otherwise = verdict.otherwise.as_ref()?;
            Some(format!("{}: {otherwise}.", quoted(&verdict.config)))
        });
        let detail = ways.collect::<Vec<_>>().join(" ");
        Outcome {
            tone: Tone::Bad,
            headline: "None of the configs asked about can be shipped.".to_owned(),
            detail,
        }
    }

    /// Says what stands out, if there are no verdicts and no gate failed.
    fn describe(&self) -> Outcome {
        let configs = || self.results.configs.iter();
        let smallest = |a: &(&String, &ConfigResults), b: &(&String, &ConfigResults)| {
            a.1.disk_bytes.cmp(&b.1.disk_bytes)
        };
        let most = configs().map(|(_, results)| results.correct).max().filter(|most| *most > 0);
        let best = configs().filter(|(_, results)| Some(results.correct) == most).min_by(smallest);
        let read = configs().filter_map(|(name, results)| Some((name, results, results.perplexity?)));
        let read = read.min_by(|a, b| a.2.value.total_cmp(&b.2.value));
        let headline = match (best, read) {
            (Some((name, results)), _) => format!(
                "{} is the smallest of those with the most right answers: {}, {}.",
                quoted(name),
                share(results),
                bytes(results.disk_bytes)
            ),
            (None, Some((name, results, perplexity))) => {
                let perplexity = give_or_take(perplexity.value, perplexity.standard_error);
                let (value, error) = (perplexity.value, perplexity.note.unwrap_or_default());
                let size = bytes(results.disk_bytes);
                format!("{} foresees the texts best: perplexity {value} {error}, {size}.", quoted(name))
            }
            (None, None) => match self.results.configs.len() {
                1 => "One config was measured.".to_owned(),
                count => format!("{count} configs were measured."),
            },
        };
        let is_asked = self.is_judged();
        let (tone, detail) = match is_asked {
            true if self.judgement.undecided().is_empty() => (Tone::Good, "All gates hold.".to_owned()),
            true => {
                let unsure: Vec<_> = self.judgement.undecided().iter().map(|gate| sentence(gate)).collect();
                (Tone::Plain, unsure.join(" "))
            }
            false => (Tone::Plain, String::new()),
        };
        Outcome { tone, headline, detail }
    }
}

impl VerdictOutcome {
    /// Returns the conclusion in words.
    pub(super) fn words(&self) -> &'static str {
        match self.conclusion {
            Conclusion::Optimal => "meets all",
            Conclusion::Minimum => "good enough",
            Conclusion::Otherwise => "not good enough",
        }
    }

    /// Returns the criteria that kept it from a better conclusion.
    pub(super) fn missed(&self) -> Vec<String> {
        match self.conclusion {
            Conclusion::Otherwise if !self.minimum.is_empty() => missed(&self.minimum),
            _ => missed(&self.optimal),
        }
    }
}

impl GateOutcome {
    /// Returns the criteria that failed, and those that are within the error.
    pub(super) fn missed(&self) -> Vec<String> {
        let unclear = self.criteria.iter().filter(|finding| finding.state() != State::Holds);
        unclear.map(Finding::words).collect()
    }
}

/// Returns a name between backticks. Backticks in the name itself become `'`.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

/// Returns how many answers were right, with the 95 % interval, because 5 of 5 is not certainty.
pub(super) fn share(results: &ConfigResults) -> String {
    let [low, high] = results.accuracy_interval.map(|end| end * 100.0);
    let ConfigResults { correct, total, accuracy, .. } = results;
    let left_out = match results.not_scored {
        0 => String::new(),
        count => format!(", {count} not scored"),
    };
    format!("{} ({correct}/{total}{left_out}, 95%: {low:.0} to {high:.0}%)", percent(*accuracy))
}

/// Makes a sentence of a clause.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn met(findings: &[Finding]) -> String {
    let met = findings.iter().map(|finding| format!("{} {}", finding.quantity.word(), finding.found));
    met.collect::<Vec<_>>().join(", ")
}

fn missed(findings: &[Finding]) -> Vec<String> {
    findings.iter().filter(|finding| !finding.pass).map(Finding::words).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_smallest_of_the_best_is_shipped_and_gates_come_first() {
        let mut sample = sample::rich();
        let outcome = sample.report().outcome();
        assert_eq!(outcome.headline, "The gate on `4bit` failed. Ship `6bit`.");
        assert_eq!(
            outcome.detail,
            "`6bit` meets all that was asked: accuracy 100.0% (5/5, 95%: 57 to 100%), disk 0.41x (2.7 MB). Factors are \
             against `fused-f16`."
        );
        assert_eq!(outcome.tone, Tone::Bad);
        // A configuration that fails a gate is not shipped, even if its verdict is good.
        sample.judgement.gates[0].config = "6bit".to_owned();
        let outcome = sample.report().outcome();
        assert_eq!(
            outcome.headline,
            "The gate on `6bit` failed. Ship `8bit`: good enough, but not the best one could wish for."
        );
        assert!(outcome.detail.contains("Short of the best: disk <= 0.45x, but it is 0.53x (3.5 MB)."));
        sample.judgement.gates[1].pass = false;
        let outcome = sample.report().outcome();
        assert!(outcome.headline.starts_with("The gates on `6bit`, `8bit` failed. None of the configs"));
        assert!(outcome.detail.contains("`4bit`: ship the adapter beside the base, unfused."));
    }

    #[test]
    fn where_nothing_was_asked_the_facts_are_said() {
        let headline = |sample: sample::Sample| sample.report().outcome().headline;
        assert_eq!(
            headline(sample::plain()),
            "`adapter` is the smallest of those with the most right answers: 100% (5/5, 95%: 57 to 100%), 2.5 MB."
        );
        assert_eq!(
            headline(sample::texts()),
            "`fused-f16` foresees the texts best: perplexity 9.87 ±0.21, 6.6 MB."
        );
    }
}
