//! What one configuration said becomes its results.
//! Knows nothing of how it was asked.

use super::folders::Facts;
use crate::error::{Result, fail};
use protocol::Answered;
use report::suite::{Query, Suite};
use report::{Answer, ConfigResults, PassAtK, Tally, TextEval};

/// Scores what was said to each query, sample by sample and turn by turn.
pub(super) fn score(
    suite: &Suite,
    said: &[Vec<Vec<Answered>>],
    eval: Option<TextEval>,
    facts: Facts,
) -> Result<ConfigResults> {
    let reasons: Vec<_> = said.iter().filter_map(|turns| not_asked(turns)).collect();
    if let Some(reason) = reasons.first().filter(|_| reasons.len() == said.len()) {
        fail!(Source, "no query could be asked: {reason}");
    }
    let pairs = || suite.queries.iter().zip(said);
    let answers: Vec<_> = pairs().map(|(query, samples)| answer(query, samples)).collect();
    let Tally { correct, total, accuracy, accuracy_interval, credit } = Tally::of(answers.iter());
    let scored = || pairs().zip(&answers).filter(|(_, answer)| answer.not_scored.is_none());
    let exact = scored().filter(|(_, answer)| answer.is_exact());
    Ok(ConfigResults {
        correct,
        total,
        not_scored: suite.queries.len() - total,
        accuracy,
        accuracy_interval,
        credit,
        thought_tokens: answers.iter().map(|answer| answer.thought_tokens).sum(),
        categories: Tally::by_category(&answers),
        pass_at_k: PassAtK::of(&answers),
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

fn answer(query: &Query, samples: &[Vec<Answered>]) -> Answer {
    if let Some(reason) = not_asked(samples) {
        return query.not_scored(reason.to_owned());
    }
    let said = |turn: &Answered| match turn {
        Answered::Text(spoken) => Some(spoken.clone()),
        Answered::NotAsked(_) => None,
    };
    let samples: Vec<Vec<_>> = samples.iter().map(|turns| turns.iter().filter_map(said).collect()).collect();
    query.score(&samples)
}

/// Returns why a query was not asked.
fn not_asked(samples: &[Vec<Answered>]) -> Option<&str> {
    samples.iter().flatten().find_map(|turn| match turn {
        Answered::NotAsked(reason) => Some(reason.as_str()),
        Answered::Text(_) => None,
    })
}
