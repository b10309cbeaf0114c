//! `quantize`: decides how every weight of a model is quantized, and records it in `config.json`.
//! Knows nothing of how a weight is quantized; the backend does that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::run::{Baseline, Rewrite, Target};
use super::{Dtype, Extent, Mixed, Override, Quantize, auto, rounding, rules, survival};
use crate::Error;
use crate::arch::{LayerName, QuantRule};
use crate::checkpoint::{Checkpoint, Weight, WeightKind, record};
use crate::error::{Result, fail, require};
use crate::kernels::{Backend, Float, Mode, QuantSpec, Rounding};
use crate::probe::Probe;
use artifact::{Output, Tick};
use text::nearest;

/// Quantizes the model at `model`. A model that is quantized already is dequantized first. If it descends
/// from a fine-tuning, `fine_tuning` names that, and the rewrite measures how much of it is left.
pub(super) fn run(
    parameters: &Quantize,
    model: &Path,
    (fine_tuning, probe): (Option<&FineTuning>, Option<&Path>),
    extent: Extent,
    output: &Output,
    backend: &dyn Backend,
    tick: Tick<'_>,
) -> Result<()> {
    let checkpoint = Checkpoint::open_with(model, parameters.towers)?;
    checkpoint.warnings().iter().for_each(|warning| output.warn(warning.clone()));
    checkpoint.left_out().describe().into_iter().for_each(|what| output.warn(what));
    let Choice { targets, mut section, free } = choose(parameters, &checkpoint)?;
    let open = |folder: &Path| Checkpoint::open_with(folder, parameters.towers);
    let base = fine_tuning.map(|from| open(&from.base)).transpose()?;
    let fused = fine_tuning.and_then(|from| from.fused.as_deref()).map(open).transpose()?;
    let baseline = match &base {
        Some(base) => Baseline::Models { base, fused: fused.as_ref() },
        None => Baseline::Nothing,
    };
    // `bits: auto` chooses the rounding too, also of those layers whose bits an override says.
    let rounding = if parameters.auto.is_some() { Rounding::Keep } else { parameters.rounding };
    let probe = probe.map(Probe::open).transpose()?;
    let (update, decided) = (&|_: &str| Ok(None), BTreeMap::new());
    let checkpoint = &checkpoint;
    let mut rewrite =
        Rewrite { checkpoint, backend, targets, update, baseline, rounding, decided, probe, extent };
    let found = match &parameters.auto {
        None => rewrite.run(output, tick)?,
        Some(auto) if extent == Extent::Outline => {
            auto::guess(auto, &mut rewrite, &free, &mut section);
            rewrite.run(output, tick)?
        }
        Some(auto) => {
            // The model is read twice: to choose, and to make what was chosen.
            auto::choose(auto, &mut rewrite, &free, &mut section, &|done, all| tick(done, 2 * all))?;
            rewrite.run(output, &|done, all| tick(all + done, 2 * all))?
        }
    };
    rounding::report(&found, output);
    rewrite.report_unprobed(&found, output)?;
    survival::report(&found.counts, rewrite.bytes(|_| true), checkpoint.parameters(), output)?;
    let mut config = checkpoint.config.clone();
    // mlx-lm reads `quantization`; Hugging Face's tools look for `quantization_config`.
    let section = Value::Object(section);
    config.insert("quantization".to_owned(), section.clone());
    config.insert("quantization_config".to_owned(), section);
    Checkpoint::write_config(config, output)
}

/// The fine-tuning that a model to be quantized descends from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FineTuning {
    /// The folder of the model that the adapter was fused into.
    pub base: PathBuf,
    /// The folder of the fused model. `None` if that is the model to be quantized.
    pub fused: Option<PathBuf>,
}

/// Checks, before anything runs, that the parameters fit the model at `base`.
pub(super) fn check(parameters: &Quantize, base: &Path) -> Result<()> {
    // A base that cannot be opened is not an error here: the node that makes it reports that.
    let Ok(checkpoint) = Checkpoint::open_with(base, parameters.towers) else { return Ok(()) };
    let choice = choose(parameters, &checkpoint)?;
    parameters.auto.as_ref().map_or(Ok(()), |auto| auto::check(auto, &checkpoint, &choice.targets))
}

/// The decisions for a model.
struct Choice {
    targets: BTreeMap<String, Target>,
    /// The section `quantization` of `config.json`.
    section: Map<String, Value>,
    /// With `bits: auto`, the weights whose bits are to be chosen, with their modules.
    free: BTreeMap<String, String>,
}

fn choose(parameters: &Quantize, checkpoint: &Checkpoint) -> Result<Choice> {
    let Quantize { bits, group_size, mode, .. } = *parameters;
    let usual = QuantSpec { mode, bits, group_size };
    let mut section = match record(usual) {
        Value::Object(section) => section,
        _ => Map::new(),
    };
    let mut used = vec![false; parameters.overrides.len()];
    let mut any = false;
    let mut free = BTreeMap::new();
    let declared = declared(checkpoint);
    let mut targets = BTreeMap::new();
    for (name, weight) in checkpoint.weights() {
        let float =
            weight.float().map(|own| declared.filter(|_| checkpoint.arch().is_cast(name)).unwrap_or(own));
        let mut target = float.map_or(Target::Stored, Target::Float);
        if let (Some(module), Some(float)) = (layer(checkpoint, name, weight), float) {
            let decision = decide(parameters, usual, checkpoint, (module, weight), &mut used)?;
            let entry = match (decision, weight.kind) {
                (Decision::Quantize(spec, entry), _) => {
                    any = true;
                    check_fit(module, weight, spec)?;
                    target = Target::Quantized(spec, float);
                    entry
                }
                (Decision::Keep, WeightKind::Quantized(spec, _)) => {
                    target = Target::Stored;
                    (spec != usual).then(|| record(spec))
                }
                (Decision::Free(spec), _) => {
                    any = true;
                    check_fit(module, weight, spec)?;
                    target = Target::Quantized(spec, float);
                    free.insert(name.clone(), module.to_owned());
                    None
                }
                (Decision::Keep | Decision::Float, _) => None,
            };
            section.extend(entry.map(|entry| (module.to_owned(), entry)));
        }
        targets.insert(name.clone(), target);
    }
    require!(
        any || used.contains(&true),
        Options,
        "`group_size: {group_size}` divides no row of the model's weights"
    );
    require!(any, Options, "the overrides leave no layer of the model to be quantized");
    if let Some((unused, _)) = parameters.overrides.iter().zip(used).find(|(_, used)| !used) {
        fail!(Options, "{}", matches_nothing(&unused.pattern, checkpoint));
    }
    Ok(Choice { targets, section, free })
}

/// What happens to one layer.
enum Decision {
    /// It is quantized with this spec. The value is its entry in `config.json`, or `None` if the default
    /// covers it.
    Quantize(QuantSpec, Option<Value>),
    /// It is quantized, and how many bits it has is decided when all layers are known.
    Free(QuantSpec),
    /// It stays as it is, quantized or not.
    Keep,
    /// It is not quantized.
    Float,
}

/// Decides on one layer. In order, these decide: whether mlx-lm ever quantizes the module, the user's
/// overrides, whether it is of the language model, whether the usual group size divides the row, the recipe, and mlx-lm's rule for the model.
fn decide(
    parameters: &Quantize,
    usual: QuantSpec,
    checkpoint: &Checkpoint,
    (module, weight): (&str, &Weight),
    used: &mut [bool],
) -> Result<Decision> {
    let rule = checkpoint.arch().quant_rule(module, &checkpoint.config);
    if rule == QuantRule::Skip {
        return Ok(Decision::Float);
    }
    let found = parameters.overrides.iter().zip(used).find(|(own, _)| rules::matches(&own.pattern, module));
    if let Some((Override { bits, group_size, keep, .. }, used)) = found {
        *used = true;
        let (bits, group_size) = (bits.unwrap_or(usual.bits), group_size.unwrap_or(usual.group_size));
        let spec = QuantSpec { mode: usual.mode, bits, group_size };
        return Ok(if *keep { Decision::Keep } else { Decision::Quantize(spec, Some(record(spec))) });
    }
    if weight.is_tower {
        return Ok(Decision::Keep);
    }
    // mlx-lm checks the usual group size before it asks any rule.
    if !weight.columns().is_multiple_of(usual.group_size) {
        return Ok(Decision::Float);
    }
    if parameters.auto.is_some() && rule == QuantRule::Usual {
        return Ok(Decision::Free(usual));
    }
    if let Some(recipe) = parameters.recipe {
        let spec = QuantSpec { bits: mixed_bits(recipe, checkpoint, module)?, ..usual };
        return Ok(Decision::Quantize(spec, Some(record(spec))));
    }
    Ok(match rule {
        QuantRule::Usual | QuantRule::Skip => Decision::Quantize(usual, None),
        QuantRule::EightBitsUnsaid => {
            let spec = QuantSpec { mode: Mode::Affine, bits: 8, group_size: 64 };
            Decision::Quantize(spec, Some(json!({"bits": 8})))
        }
        // Recorded without a mode, as mlx-lm does: no mode means affine.
        QuantRule::EightBits => {
            let spec = QuantSpec { mode: Mode::Affine, bits: 8, group_size: 64 };
            Decision::Quantize(spec, Some(json!({"bits": 8, "group_size": 64})))
        }
    })
}

/// Returns how many bits a recipe gives to a module.
fn mixed_bits(recipe: Mixed, checkpoint: &Checkpoint, module: &str) -> Result<usize> {
    let layers = checkpoint
        .layers()
        .ok_or_else(|| Error::Options("a recipe needs `num_hidden_layers` in config.json".to_owned()))?;
    let down = checkpoint.weights().keys().find(|name| name.contains("down_proj"));
    let down = down.ok_or_else(|| {
        Error::Options("a recipe is for models with a `down_proj`, and this has none".to_owned())
    })?;
    let position = LayerName::of(down).map_or(usize::MAX, |name| name.position());
    Ok(rules::mixed(recipe, module, layers, position))
}

fn check_fit(module: &str, weight: &Weight, spec: QuantSpec) -> Result<()> {
    spec.check()?;
    let (columns, size) = (weight.columns(), spec.group_size);
    require!(
        columns.is_multiple_of(size),
        Options,
        "`{module}` has rows of {columns}, which groups of {size} do not divide; keep it with an override"
    );
    Ok(())
}

fn matches_nothing(pattern: &str, checkpoint: &Checkpoint) -> String {
    let layers = checkpoint.weights().iter().filter_map(|(name, weight)| layer(checkpoint, name, weight));
    let near = nearest(pattern, layers).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("the override `{pattern}` matches no layer of the model (`*` stands for any text){near}")
}

/// Returns the path of the module that a weight belongs to if mlx-lm quantizes that module.
fn layer<'a>(checkpoint: &Checkpoint, name: &'a str, weight: &Weight) -> Option<&'a str> {
    let is_quantized = matches!(weight.kind, WeightKind::Quantized(..));
    let module = checkpoint.arch().layer(name, &weight.shape, is_quantized)?;
    (!matches!(weight.kind, WeightKind::Other(_))).then_some(module)
}

/// Returns the float type that `config.json` declares. All floats are cast to it first, as in mlx-lm's
/// `convert`.
fn declared(checkpoint: &Checkpoint) -> Option<Float> {
    let own = checkpoint.config.get("torch_dtype");
    let inner = || checkpoint.config.get("text_config").and_then(|text| text.get("dtype"));
    let word = own.or_else(inner).and_then(Value::as_str)?;
    Dtype::WORDS.iter().find(|(known, _)| *known == word).map(|(_, dtype)| Float::from(*dtype))
}
