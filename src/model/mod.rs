//! Language models on MLX: `config.json` says which architecture, the tensors are loaded by name.
//! Knows nothing of stages, graphs or the store; one thread must own all that happens here.

mod activations;
mod adapter;
mod cache;
mod config;
mod embedding;
mod linear;
mod matrix;
mod norm;
mod rope;
mod weights;

pub mod chat;
pub mod device;
pub mod generate;
pub mod llama;
pub mod measure;
mod python_json;
pub mod qwen2;
pub mod read;
pub mod tokenizer;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use mlx_rs::{Array, Dtype, ops};

use adapter::Adapter;
use cache::KVCache;
use config::Config;
use weights::Weights;

/// A model by the `model_type` of its `config.json`.
pub enum LanguageModel {
    /// Qwen2 and Qwen2.5.
    Qwen2(qwen2::Model),
    /// Llama 2 and 3, and models that share its architecture.
    Llama(llama::Model),
}

impl LanguageModel {
    /// Loads a model folder, and an adapter folder to apply at run time.
    ///
    /// All weights are in memory when this returns. A tensor that the architecture needs and the
    /// folder lacks is an error, and so is one that nothing in the model takes.
    pub fn load(folder: &Path, adapter: Option<&Path>) -> Result<Self> {
        let config = Config::read(folder)?;
        let load = architecture(&config)?;
        let adapter = adapter.map(Adapter::read).transpose()?;
        let weights = Weights::open(folder, config.quantization()?, adapter)?;
        load(&config, weights)
    }

    /// Returns the logits of every position of a prompt, `[tokens, vocab_size]` in float32.
    ///
    /// The prompt goes through the key/value cache `step` tokens at a time, which must not matter.
    pub fn logits(&self, tokens: &[u32], step: usize) -> Result<Array> {
        ensure!(step > 0, "a step has no tokens");
        let mut caches = self.caches();
        let steps: Vec<Array> = tokens
            .chunks(step)
            .map(|tokens| self.forward(&self.prompt(tokens)?, &mut caches))
            .collect::<Result<_>>()?;
        let logits = ops::concatenate(&steps, 1)?;
        Ok(logits.squeeze_axes(&[0])?.as_dtype(Dtype::Float32)?)
    }

    /// The dtype of activations, such as `"float32"`; on a CPU it is always that.
    pub fn activation_dtype(&self) -> String {
        let dtype = match self {
            Self::Qwen2(model) => model.activation_dtype(),
            Self::Llama(model) => model.activation_dtype(),
        };
        format!("{dtype:?}").to_lowercase()
    }

    fn forward(&self, tokens: &Array, caches: &mut [KVCache]) -> Result<Array> {
        match self {
            Self::Qwen2(model) => model.forward(tokens, caches),
            Self::Llama(model) => model.forward(tokens, caches),
        }
    }

    fn caches(&self) -> Vec<KVCache> {
        let layers = match self {
            Self::Qwen2(model) => model.num_layers(),
            Self::Llama(model) => model.num_layers(),
        };
        (0..layers).map(|_| KVCache::default()).collect()
    }

    fn vocab_size(&self) -> i32 {
        match self {
            Self::Qwen2(model) => model.vocab_size(),
            Self::Llama(model) => model.vocab_size(),
        }
    }

    /// Returns token ids as `[1, tokens]`; MLX does not check indices, so this must.
    fn prompt(&self, tokens: &[u32]) -> Result<Array> {
        let vocab_size = self.vocab_size();
        let unknown = tokens.iter().find(|token| i64::from(**token) >= i64::from(vocab_size));
        if let Some(token) = unknown {
            bail!("token {token} is outside the model's vocabulary of {vocab_size}");
        }
        ensure!(!tokens.is_empty(), "the prompt has no tokens");
        Ok(Array::from_slice(tokens, &[1, i32::try_from(tokens.len())?]))
    }
}

/// Returns what loads the architecture that `config.json` names.
fn architecture(config: &Config) -> Result<fn(&Config, Weights) -> Result<LanguageModel>> {
    match config.model_type()? {
        "qwen2" => Ok(|config, weights| qwen2::Model::load(config, weights).map(LanguageModel::Qwen2)),
        "llama" => Ok(|config, weights| llama::Model::load(config, weights).map(LanguageModel::Llama)),
        other => {
            let path = config.path().display();
            bail!("{path}: model_type {other:?} is not supported, only qwen2 and llama are")
        }
    }
}
