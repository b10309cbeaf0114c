//! Reads a text: how well a model predicts each token, and how far its distributions are from a reference's.
//! Knows nothing of questions, nor of what is concluded from the numbers.
//!
//! The reference's distributions are in a file, so the two models need not be in memory together. Of the model itself
//! nothing of the size of the vocabulary is kept: log probabilities are compared for a few tokens at a time, and then
//! dropped.

use anyhow::{Result, ensure};

use super::LanguageModel;
use super::log_probabilities::{Reader, Writer};
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use protocol::{Compared, LogProbabilities, Reading, Step, Text};

/// For how many tokens the log probabilities are in memory at once. With a vocabulary of 150 thousand, they take 77 MB
/// for each model.
const STEP: usize = 128;

/// The reference's log probabilities.
enum Reference {
    None,
    Write(Writer),
    Read(Reader),
}

/// Reads a text with a model. `step` is told how many tokens are read.
///
/// A text is cut into windows of `context` tokens. Each window is read without the text before it, and its
/// first token is not predicted.
///
/// # Errors
/// Fails if `context` is 0, or if the runtime fails. It also fails if the file of the reference cannot be read or
/// written, and if the reference tokenizes the text differently or has another vocabulary.
pub(crate) fn read<R: Runtime>(
    model: &LanguageModel<'_, R>,
    tokenizer: &Tokenizer,
    text: &Text,
    step: &mut dyn FnMut(Step),
) -> Result<Reading> {
    ensure!(text.context > 0, "a window has no tokens");
    let mut tokens = tokenizer.encode_text(&text.text)?;
    tokens.truncate(text.tokens.unwrap_or(usize::MAX));
    let vocab_size = usize::try_from(model.decoder.vocab_size())?;
    let reference = match &text.reference {
        None => Reference::None,
        Some(LogProbabilities::Write(path)) => Reference::Write(Writer::create(path, &tokens, vocab_size)?),
        Some(LogProbabilities::Read(path)) => Reference::Read(Reader::open(path, &tokens, vocab_size)?),
    };
    let compared = (!matches!(reference, Reference::None)).then(Compared::default);
    let mut state = State { model, reference, reading: Reading { losses: Vec::new(), compared } };
    let mut done = 0;
    for window in tokens.chunks(text.context) {
        state.read_window(window, &mut |read| step(Step::Reading(done + read, tokens.len())))?;
        done += window.len();
    }
    if let Reference::Write(writer) = state.reference {
        writer.finish()?;
    }
    state.reading.check()?;
    Ok(state.reading)
}

struct State<'a, 'm, R: Runtime> {
    model: &'a LanguageModel<'m, R>,
    reference: Reference,
    reading: Reading,
}

impl<R: Runtime> State<'_, '_, R> {
    fn read_window(&mut self, window: &[u32], tell: &mut dyn FnMut(usize)) -> Result<()> {
        let runtime = self.model.runtime;
        let mut states = self.model.states();
        let read = window.len().saturating_sub(1);
        for start in (0..read).step_by(STEP) {
            let end = (start + STEP).min(read);
            let own = runtime.log_softmax(&self.model.forward(&window[start..end], &mut states)?)?;
            let chosen = runtime.chosen(&own, &window[start + 1..=end])?;
            self.reading.losses.extend(chosen.iter().map(|value| -value));
            self.compare(&own, &window[start + 1..=end], &chosen)?;
            runtime.free()?;
            tell(end);
        }
        Ok(())
    }

    /// Compares the log probabilities after some tokens with those of the reference. `next` are the tokens that follow,
    /// and `chosen` their log probabilities.
    fn compare(&mut self, own: &R::Tensor, next: &[u32], chosen: &[f64]) -> Result<()> {
        let runtime = self.model.runtime;
        let Some(compared) = &mut self.reading.compared else { return Ok(()) };
        let rows = match &mut self.reference {
            Reference::None => return Ok(()),
            Reference::Write(writer) => {
                let rows = runtime.numbers(own)?;
                writer.append(&rows)?;
                rows
            }
            Reference::Read(reader) => reader.next(next.len())?,
        };
        let dims = rows.len() / next.len().max(1);
        let reference = runtime.tensor(rows, dims)?;
        for (divergence, agrees) in runtime.divergences(&reference, own)? {
            compared.divergences.push(divergence);
            compared.agrees.push(agrees);
        }
        let theirs = runtime.chosen(&reference, next)?;
        let difference = |(own, theirs): (&f64, f64)| libm::exp(*own) - libm::exp(theirs);
        compared.delta_p.extend(chosen.iter().zip(theirs).map(difference));
        Ok(())
    }
}
