//! Decoding: continues a prompt's token ids with the most likely token at each step, or with one that is drawn, and
//! times it.
//! Knows nothing of text.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::LanguageModel;
use super::decoder::States;
use super::runtime::Runtime;
use super::sampling::Sampler;
use protocol::{Sampling, Step};

/// A runtime may keep freed memory for reuse. As in mlx-lm, it is given back every time so many tokens are
/// generated.
const FREE_STEP: usize = 256;

/// A continuation and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The new token ids; the last is an end-of-sequence id if the model ended its answer.
    pub tokens: Vec<u32>,
    /// The number of token ids in the prompt.
    pub prompt_tokens: usize,
    /// Seconds until the first new token was known.
    pub prefill_seconds: f64,
    /// Seconds after that, for the other tokens.
    pub decode_seconds: f64,
}

/// How an answer is generated.
#[derive(Clone, Copy, Debug)]
pub struct Decoding<'a> {
    /// The maximum number of tokens.
    pub max_tokens: usize,
    /// The ids that end an answer.
    pub eos_token_ids: &'a BTreeSet<u32>,
    /// How tokens are drawn; the most likely one is taken if `None`.
    pub sampling: Option<Sampling>,
}

/// Generates tokens up to an end-of-sequence id. `step` is told of each piece of the prompt and of each new token.
///
/// # Errors
/// Fails if the maximum number of tokens is 0, if the prompt is empty or has a token outside the vocabulary, or if the
/// runtime fails.
pub fn generate<R: Runtime>(
    model: &LanguageModel<'_, R>,
    prompt: &[u32],
    decoding: Decoding<'_>,
    step: &mut dyn FnMut(Step),
) -> Result<Generation> {
    ensure!(decoding.max_tokens > 0, "max_tokens is 0");
    let mut sampler = decoding.sampling.map(Sampler::new);
    let mut states = model.states();
    let start = Instant::now();
    let first = prefill(model, prompt, &mut states, sampler.as_mut(), step)?;
    let prefill_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let (tokens, unused) = decode(model, first, decoding, &mut states, sampler.as_mut(), step)?;
    let decode_seconds = start.elapsed().as_secs_f64();
    if let Some(token) = unused {
        // A step that was started in vain must not run into the next measurement.
        model.runtime.read(&token)?;
    }
    let prompt_tokens = prompt.len();
    Ok(Generation { tokens, prompt_tokens, prefill_seconds, decode_seconds })
}

/// Fills the states with the prompt and returns the first new token, which is computed.
fn prefill<R: Runtime>(
    model: &LanguageModel<'_, R>,
    prompt: &[u32],
    states: &mut States<R>,
    sampler: Option<&mut Sampler>,
    tell: &mut dyn FnMut(Step),
) -> Result<R::Tokens> {
    ensure!(!prompt.is_empty(), "the prompt has no tokens");
    let steps = prompt.len().div_ceil(R::PREFILL_STEP);
    let (head, rest) = prompt.split_at((steps - 1) * R::PREFILL_STEP);
    tell(Step::Reading(0, prompt.len()));
    for (index, step) in head.chunks(R::PREFILL_STEP).enumerate() {
        model.hidden(step, states)?;
        states.settle(model.runtime)?;
        model.runtime.free()?;
        tell(Step::Reading((index + 1) * R::PREFILL_STEP, prompt.len()));
    }
    // Only the last token's logits are needed, so the output head reads one row.
    let hidden = model.hidden(rest, states)?;
    let first = next_token(model, &model.runtime.last(&hidden)?, sampler)?;
    model.runtime.read(&first)?;
    Ok(first)
}

/// Returns the tokens from `first` on, and the step that was started before the end was known, if there is
/// one.
///
/// On a lazy runtime, the next token is noted and started while the current one is computed. Only then is the
/// current token waited for, as in mlx-lm's `generate_step`.
fn decode<R: Runtime>(
    model: &LanguageModel<'_, R>,
    first: R::Tokens,
    Decoding { max_tokens, eos_token_ids, .. }: Decoding<'_>,
    states: &mut States<R>,
    mut sampler: Option<&mut Sampler>,
    step: &mut dyn FnMut(Step),
) -> Result<(Vec<u32>, Option<R::Tokens>)> {
    let (runtime, decoder) = (model.runtime, &model.decoder);
    let mut after = |current: &R::Tokens| {
        let hidden = decoder.hidden(runtime, current, 1, states)?;
        let token = next_token(model, &hidden, sampler.as_deref_mut())?;
        runtime.start(&token)?;
        anyhow::Ok(token)
    };
    let mut tokens = Vec::new();
    let mut current = first;
    loop {
        let is_last = tokens.len() + 1 == max_tokens;
        let early = if R::IS_LAZY && !is_last { Some(after(&current)?) } else { None };
        let token = runtime.read(&current)?;
        tokens.push(token);
        step(Step::Writing(tokens.len(), max_tokens));
        if is_last || eos_token_ids.contains(&token) {
            return Ok((tokens, early));
        }
        current = match early {
            Some(next) => next,
            None => after(&current)?,
        };
        if tokens.len().is_multiple_of(FREE_STEP) {
            runtime.free()?;
        }
    }
}

/// Returns the token after what the last layer made of one token: the most likely one, or one that is drawn.
fn next_token<R: Runtime>(
    model: &LanguageModel<'_, R>,
    hidden: &R::Tensor,
    sampler: Option<&mut Sampler>,
) -> Result<R::Tokens> {
    let logits = model.decoder.logits(model.runtime, hidden)?;
    match sampler {
        None => model.runtime.most_likely(&logits),
        Some(sampler) => model.runtime.tokens(&[sampler.draw(&model.runtime.numbers(&logits)?)]),
    }
}
