//! Language models: `config.json` names the architecture, and the weights are loaded by name.
//! Knows nothing of stages, graphs or the store, nor of what computes: that is a [`Runtime`]. One thread must own
//! everything that is made here.

mod adapter;
mod config;
mod decoder;
mod families;
mod layers;
mod rope_scaling;
mod template;
mod tensors;

pub mod chat;
pub mod generate;
mod log_probabilities;
mod observer;
#[cfg(target_os = "linux")]
pub mod peak_memory;
pub mod probe;
mod python_json;
mod reading;
pub mod runtime;
mod sampling;
pub mod session;
pub mod tokenizer;
pub mod worker;

use std::path::Path;

use adapter::Adapter;
use anyhow::{Result, bail, ensure};
use config::Config;
use decoder::{Decoder, States};
pub use families::model_types;
use observer::Observer;
use runtime::Runtime;
use tensors::Tensors;

use weights::checkpoint::Checkpoint;

/// Checks whether the model in `folder` runs here, as far as its `config.json` tells.
///
/// # Errors
/// Fails if `config.json` cannot be read, if the architecture is not supported, or if a number is impossible.
pub fn check(folder: &Path) -> Result<()> {
    families::decoder(&Config::read(folder)?).map(drop)
}

/// A model of any of the supported architectures, and what it runs on.
pub struct LanguageModel<'a, R: Runtime> {
    runtime: &'a R,
    decoder: Decoder<R>,
}

impl<'a, R: Runtime> LanguageModel<'a, R> {
    /// Loads a model folder, and an optional adapter folder that is applied at run time.
    ///
    /// All weights are in memory when this returns.
    ///
    /// # Errors
    /// Fails if a file cannot be read, if the architecture is not supported, or if the adapter does not fit
    /// the model. It also fails if a tensor is missing, or if no module of the model takes it.
    pub fn load(runtime: &'a R, folder: &Path, adapter: Option<&Path>) -> Result<Self> {
        Self::load_observed(runtime, folder, adapter, None)
    }

    /// Loads a model whose linear layers tell `observer` what their inputs are.
    fn load_observed(
        runtime: &'a R,
        folder: &Path,
        adapter: Option<&Path>,
        observer: Option<Observer>,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = Config::of(folder, &checkpoint);
        let args = families::decoder(&config)?;
        let adapter = adapter.map(|adapter| Adapter::read(adapter, &checkpoint)).transpose()?;
        let mut tensors = Tensors::open(runtime, folder, checkpoint, (adapter, observer))?;
        let decoder = Decoder::load(&mut tensors, args)?;
        tensors.finish()?;
        Ok(Self { runtime, decoder })
    }

    /// Returns the logits of every position of a prompt in float32, one row of the vocabulary's size for each
    /// token.
    ///
    /// The prompt is processed `step` tokens at a time, through the key/value cache. The result must not
    /// depend on `step`.
    ///
    /// # Errors
    /// Fails if `step` is 0, if a token is outside the vocabulary, or if the runtime fails.
    pub fn logits(&self, tokens: &[u32], step: usize) -> Result<Vec<f32>> {
        ensure!(step > 0, "a step has no tokens");
        let (mut states, mut logits) = (self.states(), Vec::new());
        for tokens in tokens.chunks(step) {
            logits.extend(self.runtime.numbers(&self.forward(tokens, &mut states)?)?);
        }
        Ok(logits)
    }

    /// Returns the type of activations, such as `"float32"`. On a CPU it is always float32.
    pub fn activation_dtype(&self) -> String {
        self.decoder.activation_dtype(self.runtime)
    }

    /// Returns the logits after each of some tokens.
    fn forward(&self, tokens: &[u32], states: &mut States<R>) -> Result<R::Tensor> {
        self.decoder.logits(self.runtime, &self.hidden(tokens, states)?)
    }

    /// Returns what the last layer makes of some tokens.
    fn hidden(&self, tokens: &[u32], states: &mut States<R>) -> Result<R::Tensor> {
        let vocab_size = self.decoder.vocab_size();
        let unknown = tokens.iter().find(|token| i64::from(**token) >= i64::from(vocab_size));
        if let Some(token) = unknown {
            bail!("token {token} is outside the model's vocabulary of {vocab_size}");
        }
        ensure!(!tokens.is_empty(), "the prompt has no tokens");
        let count = i32::try_from(tokens.len())?;
        self.decoder.hidden(self.runtime, &self.runtime.tokens(tokens)?, count, states)
    }

    fn states(&self) -> States<R> {
        self.decoder.states(self.runtime)
    }
}
