//! One model's answers to a list of prompts, and what they cost: the work of a benchmark.
//! Does not know which answers are right.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::chat::{ChatTemplate, Message};
use super::generate::{Generation, generate};
use super::tokenizer::Tokenizer;
use super::{LanguageModel, device};
use crate::report::{Measure, Measured, Timings};

/// Enough to have read every weight and built every kernel once.
const WARM_UP_TOKENS: usize = 4;

/// Loads the model and answers every prompt; `tick` is told how many are done.
///
/// A short generation runs first and is not timed, so that no prompt pays for a cold start.
pub fn measure(request: &Measure, tick: &mut dyn FnMut(usize)) -> Result<Measured> {
    let tokenizer = Tokenizer::load(&request.model)?;
    let prompts = prompts(request, &tokenizer)?;
    let start = Instant::now();
    let model = LanguageModel::load(&request.model, request.adapter.as_deref())?;
    let load_seconds = start.elapsed().as_secs_f64();

    let answer =
        |prompt: &Vec<u32>, max_tokens| generate(&model, prompt, max_tokens, tokenizer.eos_token_ids());
    if let Some(first) = prompts.first() {
        answer(first, request.max_tokens.min(WARM_UP_TOKENS))?;
    }
    let mut generations = Vec::with_capacity(prompts.len());
    for prompt in &prompts {
        generations.push(answer(prompt, request.max_tokens)?);
        tick(generations.len());
    }
    let answers = generations.iter().map(|generation| tokenizer.decode(&generation.tokens));
    Ok(Measured {
        answers: answers.collect::<Result<_>>()?,
        timings: timings(&model, load_seconds, &generations)?,
    })
}

/// Returns the token ids of every conversation.
fn prompts(request: &Measure, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    ensure!(!request.prompts.is_empty(), "no prompts to answer");
    let template = ChatTemplate::load(&request.model)?;
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let system = request.system.as_ref().map(|system| message("system", system));
    let conversation = |prompt: &String| {
        let messages: Vec<Message> = system.clone().into_iter().chain([message("user", prompt)]).collect();
        tokenizer.encode(&template.render(&messages, request.tools.as_ref())?)
    };
    request.prompts.iter().map(conversation).collect()
}

fn timings(model: &LanguageModel, load_seconds: f64, generations: &[Generation]) -> Result<Timings> {
    let seconds = |of: fn(&Generation) -> f64| generations.iter().map(of).sum::<f64>();
    let count = |of: fn(&Generation) -> usize| generations.iter().map(of).sum::<usize>();
    let prefill_seconds = seconds(|generation| generation.prefill_seconds);
    let decode_seconds = seconds(|generation| generation.decode_seconds);
    let prompt_tokens = count(|generation| generation.prompt_tokens);
    // The first token of an answer is the prefill's.
    let decode_tokens = count(|generation| generation.tokens.len().saturating_sub(1));
    Ok(Timings {
        load_seconds,
        peak_memory_bytes: peak_memory_bytes()?,
        prefill_tokens_per_second: per_second(prompt_tokens, prefill_seconds),
        decode_tokens_per_second: per_second(decode_tokens, decode_seconds),
        generation_seconds_mean: (prefill_seconds + decode_seconds) / generations.len() as f64,
        activation_dtype: model.activation_dtype(),
        device: device::name()?.to_owned(),
    })
}

fn per_second(count: usize, seconds: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 / seconds }
}

#[cfg(target_os = "linux")]
fn peak_memory_bytes() -> Result<u64> {
    use anyhow::Context;

    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.context("no VmHWM in /proc/self/status")? * 1024)
}

#[cfg(not(target_os = "linux"))]
fn peak_memory_bytes() -> Result<u64> {
    Ok(u64::try_from(mlx_rs::memory::peak_memory()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_decoded_is_no_speed() {
        assert_eq!(per_second(0, 0.0), 0.0);
        assert_eq!(per_second(3, 2.0), 1.5);
    }
}
