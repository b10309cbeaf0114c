//! Evaluates a model on texts: how well it predicts each token, and how far it is from a reference model.
//! Knows nothing of queries or answers.
//!
//! Nothing of the size of the vocabulary is kept. The logits of both models are compared for a few tokens at
//! a time, and then dropped.

use anyhow::{Result, ensure};

use super::LanguageModel;
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use protocol::{Divergence, Evaluate, ModelFolders, Perplexity, TextEval};

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
/// Fails if `context` is 0, if a model cannot be loaded, if the texts have no token to predict, or if the runtime fails. It also fails
/// if the reference tokenizes the texts differently or has another vocabulary.
pub fn evaluate<R: Runtime>(
    runtime: &R,
    request: &Evaluate,
    tick: &mut dyn FnMut(usize),
) -> Result<TextEval> {
    ensure!(request.context > 0, "a window has no tokens");
    let texts = encode(&request.model, &request.texts)?;
    if let Some(reference) = &request.reference {
        let (own, other) = (request.model.model.display(), reference.model.display());
        let same = encode(reference, &request.texts)? == texts;
        ensure!(same, "{own} cannot be compared with {other}: they make other tokens of the texts");
    }
    let load =
        |folders: &ModelFolders| LanguageModel::load(runtime, &folders.model, folders.adapter.as_deref());
    let model = load(&request.model)?;
    let reference = request.reference.as_ref().map(load).transpose()?;
    let mut sums = EvalSums { vocab_size: model.decoder.vocab_size(), ..EvalSums::default() };
    for (index, tokens) in texts.iter().enumerate() {
        for window in tokens.chunks(request.context) {
            sums.read_window(&model, reference.as_ref(), window)?;
        }
        tick(index + 1);
    }
    sums.text_eval(reference.is_some())
}

/// Returns the token ids of each text, by the tokenizer of `model`.
fn encode(model: &ModelFolders, texts: &[String]) -> Result<Vec<Vec<u32>>> {
    let tokenizer = Tokenizer::load(model)?;
    texts.iter().map(|text| tokenizer.encode_text(text)).collect()
}

/// What was counted for the tokens so far. Losses and divergences are float64, in the order of the tokens.
#[derive(Default)]
struct EvalSums {
    vocab_size: i32,
    losses: Vec<f64>,
    divergences: Vec<f64>,
    agreements: usize,
}

impl EvalSums {
    fn read_window<R: Runtime>(
        &mut self,
        model: &LanguageModel<'_, R>,
        reference: Option<&LanguageModel<'_, R>>,
        window: &[u32],
    ) -> Result<()> {
        let runtime = model.runtime;
        let mut caches = model.caches();
        let mut reference = reference.map(|model| (model, model.caches()));
        let read = window.len().saturating_sub(1);
        for start in (0..read).step_by(STEP) {
            let end = (start + STEP).min(read);
            let tokens = &window[start..end];
            let own = log_probabilities(model, tokens, &mut caches)?;
            // The loss of a token is `-ln q`, where `q` is the probability that the model gave it.
            let chosen = runtime.chosen(&own, &window[start + 1..=end])?;
            self.losses.extend(chosen.into_iter().map(|value| -value));
            if let Some((model, caches)) = &mut reference {
                let sizes = [model.decoder.vocab_size(), self.vocab_size];
                ensure!(sizes[0] == sizes[1], "the reference has another vocabulary");
                let reference = log_probabilities(model, tokens, caches)?;
                for (divergence, agrees) in runtime.divergences(&reference, &own)? {
                    self.divergences.push(divergence);
                    self.agreements += usize::from(agrees);
                }
            }
            runtime.free()?;
        }
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

/// Returns `ln softmax` of the logits after each token.
fn log_probabilities<R: Runtime>(
    model: &LanguageModel<'_, R>,
    tokens: &[u32],
    caches: &mut [R::Cache],
) -> Result<R::Tensor> {
    model.runtime.log_softmax(&model.forward(tokens, caches)?)
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
