//! `fuse`: decides what every weight of a model becomes when an adapter is merged into it, and records it in
//! `config.json`.
//! Knows nothing of how a matrix is merged; the backend does that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::run::{Baseline, Rewrite, Target};
use super::{Extent, Fuse, TokenizerOf, rounding, survival};
use crate::adapter::{Adapters, Base};
use crate::checkpoint::{Checkpoint, Weight, WeightKind, tokenizer_difference};
use crate::error::{Result, fail};
use crate::kernels::{Backend, Float};
use artifact::{Output, Tick};

/// Fuses the adapters in the folders `adapters` into the model in the folder `model`.
pub(super) fn run(
    parameters: &Fuse,
    model: &Path,
    adapters: &[PathBuf],
    extent: Extent,
    output: &Output,
    backend: &dyn Backend,
    tick: Tick<'_>,
) -> Result<()> {
    if parameters.tokenizer == TokenizerOf::Base {
        for adapter in adapters {
            if let Some(what) = tokenizer_difference(model, adapter)? {
                output.warn(format!(
                    "the adapter has {what} of its own, which the fused model does not get; `tokenizer: adapter` takes it"
                ));
            }
        }
    }
    let mut checkpoint = Checkpoint::open_with(model, parameters.towers)?;
    checkpoint.warnings().iter().for_each(|warning| output.warn(warning.clone()));
    checkpoint.left_out().describe().into_iter().for_each(|what| output.warn(what));
    let factors: Vec<_> = parameters.scales.iter().map(|scale| scale.get()).collect();
    let mut adapter = Adapters::open(adapters, &factors)?;
    let arch = checkpoint.arch();
    adapter.take_names(|module| arch.renamed(module))?;
    untie(&mut checkpoint, &mut adapter, output)?;
    adapter.place(&Base::of(&checkpoint))?;
    adapter.notes().for_each(|note| output.warn(note));
    check_numbers(&checkpoint, &adapter)?;
    let mut targets = BTreeMap::new();
    for (name, weight) in checkpoint.weights() {
        let dtype = parameters.dtype.map(Float::from).filter(|_| checkpoint.arch().is_cast(name));
        targets.insert(name.clone(), target(parameters, dtype, weight, adapter.touches(name)));
    }
    let baseline = if parameters.requantize { Baseline::Itself } else { Baseline::Nothing };
    let update = &|name: &str| adapter.update(name);
    let rounding = parameters.rounding;
    let rewrite = Rewrite {
        checkpoint: &checkpoint,
        backend,
        targets,
        update,
        baseline,
        rounding,
        decided: BTreeMap::new(),
        probe: None,
        extent,
    };
    let found = rewrite.run(output, tick)?;
    rounding::report(&found, output);
    survival::report(&found.counts, rewrite.bytes(|_| true), checkpoint.parameters(), output)?;
    write_config(&checkpoint, parameters, output)
}

/// Gives a tied model a head of its own if the adapter trains one that differs from the embedding. PEFT saves both
/// copies of the matrix, and a training may have moved them apart.
fn untie(checkpoint: &mut Checkpoint, adapter: &mut Adapters, output: &Output) -> Result<()> {
    let embedding = checkpoint.embedding().filter(|_| checkpoint.is_tied());
    let Some(embedding) = embedding else { return Ok(()) };
    if adapter.settle_tied_heads([&embedding, "lm_head.weight"])? {
        let head = checkpoint.untie()?;
        output.warn(format!(
            "the adapter trains the output head apart from the embedding, so the fused model has a `{head}` of its own, and \
             config.json says `tie_word_embeddings: false`"
        ));
    }
    Ok(())
}

/// Fails if an adapter of PEFT changes a weight whose numbers are not those that it was trained with.
fn check_numbers(checkpoint: &Checkpoint, adapter: &Adapters) -> Result<()> {
    let is_other = |name: &&String| checkpoint.arch().has_other_numbers(name) && adapter.peft_touches(name);
    match checkpoint.weights().keys().find(is_other) {
        Some(name) => fail!(
            Unsupported,
            "the adapter changes `{name}`, which mlx-lm's `{}` has with other numbers than the model that PEFT trained; train it \
             without this module, or with mlx-lm",
            checkpoint.model_type()
        ),
        None => Ok(()),
    }
}

fn target(parameters: &Fuse, dtype: Option<Float>, weight: &Weight, updated: bool) -> Target {
    match weight.kind {
        WeightKind::Quantized(spec, float) if parameters.requantize && updated => {
            Target::Quantized(spec, float)
        }
        WeightKind::Quantized(..) if parameters.requantize => Target::Stored,
        WeightKind::Float(float) | WeightKind::Quantized(_, float) => Target::Float(dtype.unwrap_or(float)),
        WeightKind::Other(_) => Target::Stored,
    }
}

/// Writes `config.json`. The sections on quantization are removed unless `requantize` is set, and the dtype
/// is recorded if one is asked for.
fn write_config(checkpoint: &Checkpoint, parameters: &Fuse, output: &Output) -> Result<()> {
    let mut config = checkpoint.config.clone();
    for key in ["quantization", "quantization_config"] {
        match config.get_mut(key).and_then(Value::as_object_mut) {
            Some(section) if parameters.requantize => checkpoint.record_stacks(section),
            _ => drop(config.remove(key)),
        }
    }
    if let Some(dtype) = parameters.dtype {
        // `dtype` is the newer name of `torch_dtype`. Some models have both.
        let keys = ["dtype", "torch_dtype"].into_iter().filter(|key| config.contains_key(*key));
        let keys: Vec<_> = if config.contains_key("dtype") { keys.collect() } else { vec!["torch_dtype"] };
        for key in keys {
            config.insert(key.to_owned(), Value::String(dtype.to_string()));
        }
    }
    Checkpoint::write_config(config, output)
}
