//! The architectures that run, one file for each, named after its `model_type`.
//! Knows nothing of runtimes.

mod gemma3_text;
mod granite;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod seed_oss;

use anyhow::{Result, bail};

use crate::config::Config;
use crate::decoder::Decoder;
use crate::runtime::Runtime;
use crate::tensors::Tensors;
use weights::arch;

/// A function that builds an architecture and takes its weights.
type Load<R> = fn(&Config, &mut Tensors<'_, R>) -> Result<Decoder<R>>;

/// The model types that run here, without their aliases.
pub const MODEL_TYPES: [&str; 8] =
    ["gemma3_text", "granite", "llama", "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3"];

/// Returns what loads a model type of [`MODEL_TYPES`].
fn load_of<R: Runtime>(model_type: &str) -> Option<Load<R>> {
    Some(match model_type {
        "gemma3_text" => gemma3_text::load,
        "granite" => granite::load,
        "llama" => llama::load,
        "qwen2" => qwen2::load,
        "qwen3" => qwen3::load,
        "qwen3_moe" => qwen3_moe::load,
        "seed_oss" => seed_oss::load,
        "smollm3" => llama::load_smollm3,
        _ => return None,
    })
}

/// Returns what loads the architecture that `config.json` names.
pub(crate) fn loader<R: Runtime>(config: &Config) -> Result<Load<R>> {
    if let Some(load) = load_of(config.arch().model_type) {
        return Ok(load);
    }
    let names = MODEL_TYPES.iter().flat_map(|model_type| {
        let aliases = arch::of_model_type(model_type).aliases;
        [*model_type].into_iter().chain(aliases.iter().copied())
    });
    let (path, named) = (config.path().display(), config.model_type()?);
    let supported = names.collect::<Vec<_>>().join(", ");
    bail!("{path}: model_type {named:?} is not supported (supported: {supported})")
}
