//! Language models on MLX: `config.json` names the architecture, and the tensors are loaded by name.
//! Knows nothing of stages, graphs or the store. One thread must own everything that is made here.
//!
//! ```
//! use models::LanguageModel;
//!
//! # fn main() -> anyhow::Result<()> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models/llama-8bit");
//! let model = LanguageModel::load(folder.as_ref(), None)?;
//! let logits = model.logits(&[1, 2, 3], 512)?;
//! assert_eq!(logits.shape()[0], 3);
//! # Ok(())
//! # }
//! ```

mod activations;
mod adapter;
mod attention;
pub mod backend;
mod cache;
mod cache_buffer;
mod config;
mod decoder;
mod embedding;
mod linear;
mod mask;
mod matrix;
mod mlp;
mod modes;
mod norm;
mod packed;
mod rope;
mod rope_scaling;
mod rotating;
mod switch;
mod tensors;

mod gemma3_text;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3_moe;

pub mod chat;
pub mod device;
pub mod generate;
pub mod measure;
mod python_json;
pub mod text_eval;
pub mod tokenizer;

use std::path::Path;

use adapter::Adapter;
use anyhow::{Result, bail, ensure};
use cache::Cache;
use config::Config;
use decoder::Decoder;
use mlx_rs::{Array, Dtype, ops};
use tensors::Tensors;

use weights::arch;
use weights::checkpoint::Checkpoint;

/// A function that builds an architecture and takes its weights.
type Load = fn(&Config, &mut Tensors) -> Result<Decoder>;

/// What loads each model type that runs here.
const LOADERS: &[(&str, Load)] = &[
    ("gemma3_text", gemma3_text::load),
    ("llama", llama::load),
    ("qwen2", qwen2::load),
    ("qwen3", qwen3::load),
    ("qwen3_moe", qwen3_moe::load),
];

/// A model of any of the supported architectures.
pub struct LanguageModel {
    decoder: Decoder,
}

impl LanguageModel {
    /// Loads a model folder, and an optional adapter folder that is applied at run time.
    ///
    /// All weights are in memory when this returns.
    ///
    /// # Errors
    /// Fails if a file cannot be read, if the architecture is not supported, or if the adapter does not fit
    /// the model. It also fails if a tensor is missing, or if no module of the model takes it.
    pub fn load(folder: &Path, adapter: Option<&Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = Config::of(folder, &checkpoint);
        let load = loader(&config)?;
        let adapter = adapter.map(|adapter| Adapter::read(adapter, &checkpoint)).transpose()?;
        let mut tensors = Tensors::open(folder, checkpoint, adapter)?;
        let decoder = load(&config, &mut tensors)?;
        tensors.finish()?;
        Ok(Self { decoder })
    }

    /// Returns the logits of every position of a prompt, `[tokens, vocab_size]` in float32.
    ///
    /// The prompt is processed `step` tokens at a time, through the key/value cache. The result must not
    /// depend on `step`.
    ///
    /// # Errors
    /// Fails if `step` is 0, if a token is outside the vocabulary, or if MLX fails.
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

    /// Returns the dtype of activations, such as `"float32"`. On a CPU it is always float32.
    pub fn activation_dtype(&self) -> String {
        format!("{:?}", self.decoder.activation_dtype()).to_lowercase()
    }

    fn forward(&self, tokens: &Array, caches: &mut [Cache]) -> Result<Array> {
        self.decoder.forward(tokens, caches)
    }

    fn caches(&self) -> Vec<Cache> {
        self.decoder.caches()
    }

    /// Returns token ids as `[1, tokens]`. MLX does not check indices, so this function does.
    fn prompt(&self, tokens: &[u32]) -> Result<Array> {
        let vocab_size = self.decoder.vocab_size();
        let unknown = tokens.iter().find(|token| i64::from(**token) >= i64::from(vocab_size));
        if let Some(token) = unknown {
            bail!("token {token} is outside the model's vocabulary of {vocab_size}");
        }
        ensure!(!tokens.is_empty(), "the prompt has no tokens");
        Ok(Array::from_slice(tokens, &[1, i32::try_from(tokens.len())?]))
    }
}

/// Returns what loads the architecture that `config.json` names.
fn loader(config: &Config) -> Result<Load> {
    let arch = config.arch();
    if let Some((_, load)) = LOADERS.iter().find(|(model_type, _)| *model_type == arch.model_type) {
        return Ok(*load);
    }
    let names = LOADERS.iter().flat_map(|(model_type, _)| {
        let aliases = arch::of_model_type(model_type).aliases;
        [*model_type].into_iter().chain(aliases.iter().copied())
    });
    let (path, named) = (config.path().display(), config.model_type()?);
    let supported = names.collect::<Vec<_>>().join(", ");
    bail!("{path}: model_type {named:?} is not supported (supported: {supported})")
}
