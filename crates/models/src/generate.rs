//! Greedy decoding: continues a prompt's token ids with the most likely token at each step, and times it.
//! Knows nothing of text.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use mlx_rs::ops::indexing::{TryIndexOp, argmax_axis};
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, memory};

use super::LanguageModel;
use super::cache::Cache;

/// Long prompts are evaluated in pieces of this many tokens to bound memory, as in mlx-lm.
const PREFILL_STEP: usize = 2048;

/// MLX keeps freed buffers for reuse. As in mlx-lm, they are released every time so many tokens are
/// generated.
const CLEAR_CACHE_STEP: usize = 256;

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

/// Generates tokens up to an id of `eos_token_ids`, but at most `max_tokens`.
///
/// # Errors
/// Fails if `max_tokens` is 0, if the prompt is empty or has a token outside the vocabulary, or if MLX fails.
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    max_tokens: usize,
    eos_token_ids: &BTreeSet<u32>,
) -> Result<Generation> {
    ensure!(max_tokens > 0, "max_tokens is 0");
    let mut caches = model.caches();
    let start = Instant::now();
    let first = prefill(model, prompt, &mut caches)?;
    let prefill_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let (tokens, unused) = decode(model, first, max_tokens, eos_token_ids, &mut caches)?;
    let decode_seconds = start.elapsed().as_secs_f64();
    // A step that was started in vain must not run into the next measurement.
    eval(&unused)?;
    let prompt_tokens = prompt.len();
    Ok(Generation { tokens, prompt_tokens, prefill_seconds, decode_seconds })
}

/// Fills the caches with the prompt and returns the first new token, `[1, 1]`, evaluated.
fn prefill(model: &LanguageModel, prompt: &[u32], caches: &mut [Cache]) -> Result<Array> {
    // Only the last token's logits are needed. MLX is lazy: if only the caches are evaluated, the output head
    // is not computed for the other tokens.
    let head = prompt.get(..prompt.len().saturating_sub(1)).unwrap_or_default();
    for step in head.chunks(PREFILL_STEP) {
        model.forward(&model.prompt(step)?, caches)?;
        eval(caches.iter().flat_map(Cache::state))?;
        memory::clear_cache()?;
    }
    let last = model.prompt(prompt.get(head.len()..).unwrap_or_default())?;
    let first = next_token(model, &last, caches)?;
    eval([&first])?;
    Ok(first)
}

/// Returns the tokens from `first` on, and the step that was started before the end was known, if there is
/// one.
///
/// The graph of the next token is built and submitted while MLX computes the current one. Only then is the
/// current token waited for, as in mlx-lm's `generate_step`.
fn decode(
    model: &LanguageModel,
    first: Array,
    max_tokens: usize,
    eos_token_ids: &BTreeSet<u32>,
    caches: &mut [Cache],
) -> Result<(Vec<u32>, Option<Array>)> {
    let mut tokens = Vec::new();
    let mut current = first;
    loop {
        let mut next = None;
        if tokens.len() + 1 < max_tokens {
            let token = next_token(model, &current, caches)?;
            async_eval([&token])?;
            next = Some(token);
        }
        let token: u32 = current.try_item_exact()?;
        tokens.push(token);
        match next {
            Some(next) if !eos_token_ids.contains(&token) => current = next,
            unused => return Ok((tokens, unused)),
        }
        if tokens.len() % CLEAR_CACHE_STEP == 0 {
            memory::clear_cache()?;
        }
    }
}

/// Returns the most likely token after `tokens` (`[1, tokens]`) as `[1, 1]`, not yet evaluated.
fn next_token(model: &LanguageModel, tokens: &Array, caches: &mut [Cache]) -> Result<Array> {
    let logits = model.forward(tokens, caches)?;
    let last = logits.try_index((.., -1, ..))?;
    Ok(argmax_axis(last, -1, true)?)
}
