//! What one configuration said becomes its results.
//! Knows nothing of how it was asked.

use super::folders::Facts;
use crate::error::{Result, fail};
use protocol::{Answered, Spoken};
use report::suite::{Query, Suite};
use report::{Answer, ConfigResults, TextEval, wilson};

/// Scores what was said to each query, turn by turn.
pub(super) fn score(
    suite: &Suite,
    said: &[Vec<Answered>],
    eval: Option<TextEval>,
    facts: Facts,
) -> Result<ConfigResults> {
    let reasons: Vec<_> = said.iter().filter_map(|turns| not_asked(turns)).collect();
    if let Some(reason) = reasons.first().filter(|_| reasons.len() == said.len()) {
        fail!(Source, "no query could be asked: {reason}");
    }
    let pairs = || suite.queries.iter().zip(said);
    let answers: Vec<_> = pairs().map(|(query, turns)| answer(query, turns)).collect();
    let correct = answers.iter().filter(|answer| answer.pass).count();
    let not_scored = answers.iter().filter(|answer| answer.not_scored.is_some()).count();
    let total = suite.queries.len() - not_scored;
    let scored = || pairs().zip(&answers).filter(|(_, answer)| answer.not_scored.is_none());
    let exact = scored().filter(|((query, _), answer)| query.is_exact(&answer.text));
    Ok(ConfigResults {
        correct,
        total,
        not_scored,
        accuracy: if total == 0 { 0.0 } else { correct as f64 / total as f64 },
        accuracy_interval: wilson(correct, total),
        exact: exact.count(),
        exact_total: scored().filter(|((query, _), _)| query.has_exact()).count(),
        disk_bytes: facts.disk_bytes,
        bits_per_weight: facts.bits_per_weight,
        quantization: facts.quantization,
        code: facts.code,
        perplexity: eval.map(|eval| eval.perplexity),
        divergence: eval.and_then(|eval| eval.divergence),
        survival: facts.survival,
        answers,
    })
}

fn answer(query: &Query, turns: &[Answered]) -> Answer {
    if let Some(reason) = not_asked(turns) {
        return query.not_scored("", reason.to_owned());
    }
    let said = |turn: &Answered| match turn {
        Answered::Text(spoken) => Some(spoken.clone()),
        Answered::NotAsked(_) => None,
    };
    let spoken: Vec<_> = turns.iter().filter_map(said).collect();
    query.score(spoken.last().unwrap_or(&Spoken::default()))
}

/// Returns why a query was not asked.
fn not_asked(turns: &[Answered]) -> Option<&str> {
    turns.iter().find_map(|turn| match turn {
        Answered::NotAsked(reason) => Some(reason.as_str()),
        Answered::Text(_) => None,
    })
}
