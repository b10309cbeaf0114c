//! Runs a model once and observes the inputs of its layers.
//! Knows nothing of how the result is used.

use anyhow::{Result, ensure};

use super::LanguageModel;
use super::observer::Observer;
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use protocol::Probe;
use weights::probe::LayerProbes;

/// Lets the model read a text or random tokens, and returns what was observed of each linear layer.
///
/// # Errors
/// Fails if the model cannot be loaded, if there are fewer than two tokens, or if the runtime fails.
pub fn probe<R: Runtime>(runtime: &R, request: &Probe) -> Result<LayerProbes> {
    let observer = Observer::new(request.directions);
    let model = LanguageModel::load_observed(runtime, &request.model, None, Some(observer.clone()))?;
    let mut tokens = match &request.text {
        Some(text) => Tokenizer::load(request.model.as_path())?.encode_text(text)?,
        None => random(request.tokens, model.decoder.vocab_size().unsigned_abs()),
    };
    tokens.truncate(request.tokens);
    ensure!(tokens.len() > 1, "a probe reads two tokens or more, and the text has {}", tokens.len());
    // The logits are not needed, but the head is a layer too.
    model.forward(&tokens, &mut model.states())?;
    Ok(observer.take())
}

/// Returns tokens that are the same every time.
fn random(count: usize, vocab_size: u32) -> Vec<u32> {
    let mut state: u64 = 8;
    let next = || {
        // Knuth's MMIX; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 32) % u64::from(vocab_size)).unwrap_or_default()
    };
    std::iter::repeat_with(next).take(count).collect()
}
