//! Evaluates a model on texts: how well it predicts each token, and how far it is from a reference model.
//! Knows nothing of queries or answers.
//!
//! Nothing of the size of the vocabulary is kept. The logits of both models are compared for a few tokens at
//! a time, and then dropped.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use mlx_rs::ops::indexing::{TryIndexOp, argmax_axis, take_along_axis};
use mlx_rs::{Array, Dtype, memory, ops};

use super::LanguageModel;
use super::cache::Cache;
use super::tokenizer::Tokenizer;
use protocol::{Divergence, Evaluate, Perplexity, TextEval};

/// For how many tokens the logits are in memory at once. With a vocabulary of 150 thousand, they take 77 MB
/// for each model.
const STEP: usize = 128;

/// Loads the model, and the reference if there is one, and reads every text. `tick` gets the number of texts
/// that are done.
///
/// A text is cut into windows of `context` tokens. Each window is read without the text before it, and its
/// first token is not predicted. As in mlx-lm's `perplexity.py`, all predicted tokens count the same.
///
/// # Errors
/// Fails if `context` is 0, if a model cannot be loaded, if the texts have no token to predict, or if MLX fails. It also fails
/// if the reference tokenizes the texts differently or has another vocabulary.
pub fn evaluate(request: &Evaluate, tick: &mut dyn FnMut(usize)) -> Result<TextEval> {
    ensure!(request.context > 0, "a window has no tokens");
    let texts = encode(&request.model, &request.texts)?;
    if let Some((reference, _)) = &request.reference {
        let (own, other) = (request.model.display(), reference.display());
        let same = encode(reference, &request.texts)? == texts;
        ensure!(same, "{own} cannot be compared with {other}: they make other tokens of the texts");
    }
    let load = |model: &PathBuf, adapter: &Option<PathBuf>| LanguageModel::load(model, adapter.as_deref());
    let model = load(&request.model, &request.adapter)?;
    let reference = request.reference.as_ref().map(|(model, adapter)| load(model, adapter)).transpose()?;
    let mut sums = EvalSums::default();
    for (index, tokens) in texts.iter().enumerate() {
        for window in tokens.chunks(request.context) {
            sums.read_window(&model, reference.as_ref(), window)?;
        }
        tick(index + 1);
    }
    sums.text_eval(reference.is_some())
}

/// Returns the token ids of each text, by the tokenizer of `model`.
fn encode(model: &Path, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let tokenizer = Tokenizer::load(model)?;
    texts.iter().map(|text| tokenizer.encode_text(text)).collect()
}

/// What was counted for the tokens so far. Losses and divergences are float64, in the order of the tokens.
#[derive(Default)]
struct EvalSums {
    losses: Vec<f64>,
    divergences: Vec<f64>,
    agreements: usize,
}

impl EvalSums {
    fn read_window(
        &mut self,
        model: &LanguageModel,
        reference: Option<&LanguageModel>,
        window: &[u32],
    ) -> Result<()> {
        let mut caches = model.caches();
        let mut reference = reference.map(|model| (model, model.caches()));
        let read = window.len().saturating_sub(1);
        for start in (0..read).step_by(STEP) {
            let end = (start + STEP).min(read);
            let tokens = &window[start..end];
            let own = log_probabilities(model, tokens, &mut caches)?;
            self.add_losses(&own, &window[start + 1..=end])?;
            if let Some((model, caches)) = &mut reference {
                self.add_divergences(&log_probabilities(model, tokens, caches)?, &own)?;
            }
            memory::clear_cache()?;
        }
        Ok(())
    }

    /// Adds `-ln q(next)`, the loss of each next token.
    fn add_losses(&mut self, own: &Array, next: &[u32]) -> Result<()> {
        let next = Array::from_slice(next, &[i32::try_from(next.len())?, 1]);
        let chosen = take_along_axis(own, next, -1)?;
        self.losses.extend(numbers(&chosen)?.into_iter().map(|value| -value));
        Ok(())
    }

    /// Adds the divergence `Σ p ln(p / q)` of each token's distributions, where `p` is the reference's.
    /// Counts the tokens where both models find the same token most likely.
    fn add_divergences(&mut self, reference: &Array, own: &Array) -> Result<()> {
        ensure!(reference.shape() == own.shape(), "the reference has another vocabulary");
        let terms = reference.exp()?.multiply(reference.subtract(own)?)?;
        self.divergences.extend(numbers(&terms.sum_axis(-1, false)?)?);
        let same = argmax_axis(reference, -1, false)?.eq(argmax_axis(own, -1, false)?)?;
        let same: Vec<u32> = same.as_dtype(Dtype::Uint32)?.to_vec_exact()?;
        self.agreements += same.into_iter().filter(|same| *same == 1).count();
        Ok(())
    }

    fn text_eval(&self, compared: bool) -> Result<TextEval> {
        ensure!(!self.losses.is_empty(), "the texts have no token to predict: each needs two");
        let [mean, error] = mean_and_error(&self.losses);
        let value = mean.exp();
        let tokens = self.losses.len();
        let perplexity = Perplexity { value, standard_error: value * error, tokens };
        let [mean_kl, standard_error] = mean_and_error(&self.divergences);
        let top1_agreement = self.agreements as f64 / tokens as f64;
        let divergence = compared.then_some(Divergence { mean_kl, standard_error, top1_agreement, tokens });
        Ok(TextEval { perplexity, divergence })
    }
}

/// Returns `ln softmax` of the logits after each token, `[tokens, vocab_size]` in float32.
fn log_probabilities(model: &LanguageModel, tokens: &[u32], caches: &mut [Cache]) -> Result<Array> {
    let logits = model.forward(&model.prompt(tokens)?, caches)?.try_index((0, .., ..))?;
    let logits = logits.as_dtype(Dtype::Float32)?;
    let total = ops::logsumexp_axis(&logits, -1, true)?;
    Ok(logits.subtract(total)?)
}

fn numbers(array: &Array) -> Result<Vec<f64>> {
    let numbers: Vec<f32> = array.flatten(None, None)?.contiguous()?.to_vec_exact()?;
    Ok(numbers.into_iter().map(f64::from).collect())
}

/// Returns the mean and its standard error: the sample standard deviation over the square root of the sample
/// size.
fn mean_and_error(values: &[f64]) -> [f64; 2] {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, (squares / (count - 1.0).max(1.0) / count).sqrt()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_is_that_of_statistics() {
        // statistics.stdev([1, 2, 4]) / sqrt(3) is 0.881917…
        let [mean, error] = mean_and_error(&[1.0, 2.0, 4.0]);
        assert!((mean - 7.0 / 3.0).abs() < 1e-12 && (error - 0.881_917_103_688_196_8).abs() < 1e-12);
    }
}
