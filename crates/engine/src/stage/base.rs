//! `base`: checks a model folder, and takes it in as it is.
//! Knows nothing of architectures: only a benchmark shows whether a model runs.

use std::path::Path;

use crate::error::{Context, Result, require};
use artifact::Output;
use weights::checkpoint::{Checkpoint, own_code, read_json};

/// Checks configuration, weights and tokenizer.
pub(super) fn check(folder: &Path, output: &Output) -> Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    require!(
        checkpoint.config.contains_key("model_type"),
        Source,
        "{}/config.json has no `model_type`",
        folder.display()
    );
    require!(!checkpoint.weights().is_empty(), Source, "{} holds no tensors", folder.display());
    if checkpoint.drops_a_head_unsaid() {
        let model_type = checkpoint.model_type();
        output.warn(format!(
            "`lm_head` is left out of what is made: config.json does not say `tie_word_embeddings`, and mlx-lm takes the \
             embedding for the head of a `{model_type}` then; if the head is its own, write `false` there"
        ));
    }
    let code = own_code(folder)?;
    if !code.is_empty() {
        output.warn(format!(
            "the model brings code of its own ({}), which goes into every model made of it; nothing here runs it, but mlx-lm \
             and transformers may",
            code.join(", ")
        ));
    }
    let tokenizer =
        read_json(&folder.join("tokenizer.json")).within(|| "a base needs its tokenizer".to_owned())?;
    require!(tokenizer.contains_key("model"), Source, "{}/tokenizer.json has no `model`", folder.display());
    Ok(())
}
