//! Quantized weights of a checkpoint: what `config.json` says of them, and whether the tensors agree.
//! Knows nothing of how they are computed.

use serde_json::{Map, Value, json};

use super::{CONFIG_FILE, Weight, WeightKind, float_of};
use crate::Error;
use crate::error::{OrBug, Result, fail, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorFiles, TensorRef};

/// Refuses a model that others quantized: its tensors have names and forms of their own, and what is not recognised as
/// quantized would be taken for something else.
pub(super) fn refuse_others(config: &Map<String, Value>) -> Result<()> {
    let inner = || config.get("text_config").and_then(|text| text.get("quantization_config"));
    let section = config.get("quantization_config").or_else(inner);
    let method = section.and_then(|section| section.get("quant_method")).and_then(Value::as_str);
    match method.filter(|_| !config.contains_key("quantization")) {
        Some(method) => {
            fail!(
                Unsupported,
                "the model was quantized by {method}, not by MLX; take the model that was not quantized"
            )
        }
        None => Ok(()),
    }
}

/// Returns the module that the tensor is a part of, if that module is quantized.
pub(super) fn module_of<'a>(name: &'a str, files: &TensorFiles) -> Option<&'a str> {
    let (module, part) = name.rsplit_once('.')?;
    let has = |part: &str| files.get(&format!("{module}.{part}")).is_some();
    let is_part = matches!(part, "weight" | "scales" | "biases" | "global_scale");
    (is_part && has("weight") && has("scales")).then_some(module)
}

/// Reads what the weight of a quantized module is.
pub(super) fn read(
    module: &str,
    packed: &TensorRef,
    files: &TensorFiles,
    config: &Map<String, Value>,
) -> Result<Weight> {
    let spec = spec_of(module, config)?;
    let get = |part: &str| files.get(&format!("{module}.{part}"));
    let scales = get("scales").ok_or_else(|| Error::Bug(format!("`{module}` has scales")))?;
    require!(
        get("global_scale").is_none(),
        Unsupported,
        "`{module}.global_scale`: this version does not read nvfp4 with a scale for the whole tensor"
    );
    let float = match spec.mode {
        Mode::Affine => float_of(scales.element).ok_or_else(|| {
            Error::Checkpoint(format!("`{module}.scales` is {}, not a float", scales.element))
        })?,
        // Codes and scales do not say what they were made from; MLX dequantizes them to this type.
        _ => Float::Bf16,
    };
    let biases = get("biases");
    let columns = columns(spec, packed, scales).filter(|_| match (spec.mode, biases) {
        (Mode::Affine, Some(biases)) => (&biases.shape, biases.element) == (&scales.shape, scales.element),
        (Mode::Affine, None) => false,
        (_, biases) => biases.is_none() && scales.element == Element::U8,
    });
    let Some(columns) = columns else {
        let show = |tensor: &TensorRef| format!("{:?} {}", tensor.shape, tensor.element);
        fail!(
            Checkpoint,
            "`{module}` does not have the shapes of {spec}, as {CONFIG_FILE} says: weight {}, scales {}, biases {}",
            show(packed),
            show(scales),
            biases.map_or_else(|| "none".to_owned(), show)
        );
    };
    let mut shape = packed.shape.clone();
    *shape.last_mut().or_bug("a quantized weight has a dimension")? = columns;
    let stored = packed.length + scales.length + biases.map_or(0, |biases| biases.length);
    let (kind, sources) = (WeightKind::Quantized(spec, float), vec![format!("{module}.weight")]);
    Ok(Weight { shape, kind, stored: stored as u64, sources })
}

/// Returns the length of a row before packing, if codes and scales have the shapes of the spec.
fn columns(spec: QuantSpec, packed: &TensorRef, scales: &TensorRef) -> Option<usize> {
    let (words, rows) = packed.shape.split_last()?;
    let (groups, scale_rows) = scales.shape.split_last()?;
    let columns = groups.checked_mul(spec.group_size)?;
    let fits = columns > 0 && columns.checked_mul(spec.bits)? == words.checked_mul(32)? && rows == scale_rows;
    (fits && packed.element == Element::U32).then_some(columns)
}

/// Returns how `config.json` says that `module` is quantized: its own entry, else the default.
fn spec_of(module: &str, config: &Map<String, Value>) -> Result<QuantSpec> {
    let section = config.get("quantization").or_else(|| config.get("quantization_config"));
    let Some(section) = section else {
        fail!(Checkpoint, "`{module}` is quantized, but {CONFIG_FILE} has no `quantization`");
    };
    let entry = section.get(module).filter(|entry| entry.is_object()).unwrap_or(section);
    // An entry without a mode is affine, whatever the default says: mlx-lm hands it to `to_quantized`.
    let word = entry.get("mode").and_then(Value::as_str).unwrap_or("affine");
    let mode = Mode::WORDS.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode);
    let mode = mode.ok_or_else(|| {
        Error::Checkpoint(format!("`{module}` is quantized in the mode {word}, which MLX does not have"))
    })?;
    let number = |key: &str, allowed: &[usize]| {
        let value = entry.get(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
        // A mode with one choice need not name it.
        let value = value.or_else(|| allowed.first().copied().filter(|_| allowed.len() == 1));
        value.filter(|value| allowed.contains(value)).ok_or_else(|| {
            Error::Checkpoint(format!(
                "`quantization` of `{module}` in {CONFIG_FILE} needs `{key}`, one of {allowed:?}"
            ))
        })
    };
    Ok(QuantSpec {
        mode,
        bits: number("bits", mode.bits())?,
        group_size: number("group_size", mode.group_sizes())?,
    })
}

/// Returns how a spec is recorded in `config.json`, as mlx-lm reads it.
pub(crate) fn record(spec: QuantSpec) -> Value {
    json!({"bits": spec.bits, "group_size": spec.group_size, "mode": spec.mode.word()})
}
