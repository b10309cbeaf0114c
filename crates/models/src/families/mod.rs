//! The architectures that run, one file for each family, named after its `model_type`. A family reads its keys of
//! `config.json`, and says what its model is made of.
//! Knows nothing of runtimes, weights or files.

mod common;
mod qwen3_5;
mod wrappers;

/// Declares a module for each family with a model type of the same name, and the list of their readers.
macro_rules! families {
    ($($family:ident)*) => {
        $(mod $family;)*
        const FAMILIES: &[(&str, Read)] = &[$((stringify!($family), Config::decoder::<$family::Args>)),*];
    };
}

families! {
    bailing_moe cohere cohere2 deepseek_v3 dots1 ernie4_5 ernie4_5_moe exaone4 gemma gemma2 gemma3_text gemma4_text
    glm glm4 glm4_moe glm4_moe_lite gpt_oss granite granitemoe granitemoehybrid internlm3 lfm2 lfm2_moe llama minimax
    ministral3 mixtral nemotron nemotron_h olmo2 olmo3 olmoe phi3 qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next seed_oss
    smollm3 starcoder2
}

use anyhow::{Result, bail};

use crate::config::Config;
use crate::decoder::DecoderArgs;
use weights::arch;

/// Reads what a model is made of.
type Read = fn(&Config) -> Result<DecoderArgs>;

/// Returns the model types that run here, in alphabetical order and without their aliases.
pub fn model_types() -> Vec<&'static str> {
    let mut types: Vec<_> = FAMILIES.iter().chain(wrappers::WRAPPERS).map(|(name, _)| *name).collect();
    types.sort_unstable();
    types
}

/// Returns what the model of a `config.json` is made of.
///
/// # Errors
/// Fails if the model type does not run here, and names those that do. It also fails if a number is impossible.
pub(crate) fn decoder(config: &Config) -> Result<DecoderArgs> {
    let model_type = config.arch().model_type;
    if let Some((_, read)) = FAMILIES.iter().chain(wrappers::WRAPPERS).find(|(name, _)| *name == model_type) {
        return read(config);
    }
    let names = model_types().into_iter().flat_map(|model_type| {
        let aliases = arch::of_model_type(model_type).aliases;
        [model_type].into_iter().chain(aliases.iter().copied())
    });
    let (path, named) = (config.path().display(), config.model_type()?);
    let supported = names.collect::<Vec<_>>().join(", ");
    bail!("{path}: model_type {named:?} is not supported (supported: {supported})")
}
