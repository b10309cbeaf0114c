//! Answers a list of prompts with one model, and measures time and memory: the work of a benchmark.
//! Does not know which answers are right.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::LanguageModel;
use super::chat::{ChatTemplate, OutOfBudget};
use super::generate::{Generation, generate};
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use protocol::{Answered, Conversation, Measure, Measured, Spoken, Timings, end_of_thought, opens_thought};

/// The most tokens of a warm-up answer. They are enough to read every weight and to build every kernel once.
const WARM_UP_TOKENS: usize = 4;

/// Loads the model and answers every conversation. `tick` gets the number of answers that are done.
///
/// A few short generations run first and are not timed, so that no answer pays for a cold start. If
/// conversations are answered more than once, the answers must be the same: a model whose answers vary cannot
/// be compared.
///
/// # Errors
/// Fails if the model cannot be loaded, if there is nothing to answer, or if the runtime fails. It also fails if
/// a conversation gets different answers in two runs.
pub fn measure<R: Runtime>(runtime: &R, request: &Measure, tick: &mut dyn FnMut(usize)) -> Result<Measured> {
    let tokenizer = Tokenizer::load(&request.model)?;
    let (prompts, not_asked) = prompts(request, &tokenizer)?;
    let start = Instant::now();
    let model = LanguageModel::load(runtime, &request.model.model, request.model.adapter.as_deref())?;
    let load_seconds = start.elapsed().as_secs_f64();

    let answer =
        |prompt: &Prompt, max_tokens| generate(&model, &prompt.tokens, max_tokens, tokenizer.eos_token_ids());
    for prompt in prompts.iter().cycle().take(request.warmup) {
        answer(prompt, request.max_tokens.min(WARM_UP_TOKENS))?;
    }
    let mut runs: Vec<Vec<Generation>> = Vec::new();
    for run in 0..request.repeats {
        let mut generations = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            let generation = answer(prompt, request.max_tokens)?;
            let first = runs.first().and_then(|first| first.get(index));
            let same = first.is_none_or(|first| first.tokens == generation.tokens);
            ensure!(same, "query {} was answered otherwise in run {}", index + 1, run + 1);
            generations.push(generation);
            tick(run * prompts.len() + generations.len());
        }
        runs.push(generations);
    }
    let spoken = runs.iter().take(1).flatten().zip(&prompts).map(|(generation, prompt)| {
        spoken(&tokenizer, &generation.tokens, prompt.opens_thought, request.max_tokens)
    });
    let answers = in_order(spoken.collect::<Result<_>>()?, not_asked);
    let timings = timings(&model, load_seconds, &runs)?;
    timings.check()?;
    Ok(Measured { answers, timings })
}

/// Puts the answers and the reasons of those that were not asked, by their place, into one list.
fn in_order(texts: Vec<Spoken>, not_asked: NotAsked) -> Vec<Answered> {
    let mut texts = texts.into_iter();
    let mut reasons = not_asked;
    let count = texts.len() + reasons.len();
    let next = |index: usize| match reasons.remove(&index) {
        Some(reason) => Some(Answered::NotAsked(reason)),
        None => texts.next().map(Answered::Text),
    };
    (0..count).filter_map(next).collect()
}

/// Returns what the model said with these tokens.
fn spoken(tokenizer: &Tokenizer, tokens: &[u32], opens_thought: bool, max_tokens: usize) -> Result<Spoken> {
    let text = tokenizer.decode(tokens)?;
    let is_ended = tokens.last().is_some_and(|token| tokenizer.eos_token_ids().contains(token));
    let is_cut = tokens.len() >= max_tokens && !is_ended;
    let thinks =
        opens_thought || protocol::THOUGHT_TAGS.iter().any(|[open, _]| text.trim_start().starts_with(open));
    let thought_tokens = match end_of_thought(&text, opens_thought) {
        None if thinks => tokens.len(),
        None => 0,
        Some(_) => {
            // The fewest tokens whose text has the end. More tokens keep it, so the number can be halved for.
            let (mut fewer, mut enough) = (0, tokens.len());
            while fewer + 1 < enough {
                let middle = fewer + (enough - fewer) / 2;
                let part = tokenizer.decode(tokens.get(..middle).unwrap_or(tokens))?;
                if end_of_thought(&part, opens_thought).is_some() { enough = middle } else { fewer = middle }
            }
            enough
        }
    };
    Ok(Spoken { text, opens_thought, is_cut, thought_tokens })
}

/// A prompt that can be asked.
struct Prompt {
    tokens: Vec<u32>,
    /// Whether it ends in a block of thought.
    opens_thought: bool,
}

/// The prompts, in the order of the conversations.
type Prompts = Vec<Prompt>;

/// Why conversations were not asked, by their place.
type NotAsked = BTreeMap<usize, String>;

/// Returns the prompt of every conversation that can be asked, and for each other one the reason.
fn prompts(request: &Measure, tokenizer: &Tokenizer) -> Result<(Prompts, NotAsked)> {
    ensure!(!request.conversations.is_empty(), "no conversations to answer");
    ensure!(request.repeats > 0, "nothing is asked to be answered");
    let template = ChatTemplate::load(&request.model)?;
    let render = |conversation: &Conversation| {
        let text = template.render(conversation)?;
        anyhow::Ok(Prompt { tokens: tokenizer.encode(&text)?, opens_thought: opens_thought(&text) })
    };
    let (mut prompts, mut not_asked) = (Vec::new(), BTreeMap::new());
    for (index, conversation) in request.conversations.iter().enumerate() {
        match render(conversation) {
            Ok(prompt) => prompts.push(prompt),
            Err(error) if error.downcast_ref::<OutOfBudget>().is_some() => {
                not_asked.insert(index, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(reason) = not_asked.values().next().filter(|_| prompts.is_empty()) {
        bail!("no query could be asked: {reason}");
    }
    Ok((prompts, not_asked))
}

fn timings<R: Runtime>(
    model: &LanguageModel<'_, R>,
    load_seconds: f64,
    runs: &[Vec<Generation>],
) -> Result<Timings> {
    let sum = |run: &[Generation], of: fn(&Generation) -> f64| run.iter().map(of).sum::<f64>();
    // The first token of an answer counts towards the prefill.
    let decoded = |generation: &Generation| generation.tokens.len().saturating_sub(1) as f64;
    let prefill = |run: &Vec<Generation>| {
        per_second(sum(run, |one| one.prompt_tokens as f64), sum(run, |one| one.prefill_seconds))
    };
    let decode = |run: &Vec<Generation>| per_second(sum(run, decoded), sum(run, |one| one.decode_seconds));
    let whole: Vec<f64> =
        runs.iter().map(|run| sum(run, |one| one.prefill_seconds + one.decode_seconds)).collect();
    let [mean, deviation] = mean_and_deviation(&whole);
    let answers = runs.first().map_or(1, Vec::len);
    Ok(Timings {
        load_seconds,
        peak_memory_bytes: model.runtime.peak_memory_bytes()?,
        prefill_tokens_per_second: median(runs.iter().map(prefill).collect()),
        decode_tokens_per_second: median(runs.iter().map(decode).collect()),
        generation_seconds_mean: mean / answers as f64,
        spread: if mean > 0.0 { deviation / mean } else { 0.0 },
        repeats: runs.len(),
        activation_dtype: model.activation_dtype(),
        device: model.runtime.device()?.to_owned(),
    })
}

fn per_second(count: f64, seconds: f64) -> f64 {
    // A clock that did not advance measured nothing.
    if count == 0.0 || seconds <= 0.0 { 0.0 } else { count / seconds }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
        (None, _) => 0.0,
    }
}

/// Returns the mean and the sample standard deviation, which is 0 for one value.
fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, (squares / (count - 1.0).max(1.0)).sqrt()]
}

/// Returns the peak memory of this process in bytes, as Linux counts it.
///
/// # Errors
/// Fails if the system does not tell.
#[cfg(target_os = "linux")]
pub fn peak_memory_of_process() -> Result<u64> {
    use anyhow::Context;

    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.context("no VmHWM in /proc/self/status")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_keeps_its_place() {
        let reasons = BTreeMap::from([(0, "a".to_owned()), (2, "b".to_owned())]);
        let spoken = |text: &str| Spoken { text: text.to_owned(), ..Spoken::default() };
        let text = |text: &str| Answered::Text(spoken(text));
        let not_asked = |reason: &str| Answered::NotAsked(reason.to_owned());
        let answers = in_order(vec![spoken("x"), spoken("y")], reasons);
        assert_eq!(answers, [not_asked("a"), text("x"), not_asked("b"), text("y")]);
    }

    #[test]
    fn nothing_decoded_is_no_speed() {
        assert_eq!(per_second(0.0, 0.0), 0.0);
        assert_eq!(per_second(3.0, 0.0), 0.0);
        assert_eq!(per_second(3.0, 2.0), 1.5);
    }

    #[test]
    fn repeats_are_summed_up() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), [2.0, 2_f64.sqrt()]);
        assert_eq!(mean_and_deviation(&[5.0]), [5.0, 0.0]);
    }
}
