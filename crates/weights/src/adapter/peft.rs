//! PEFT's format, as in 0.21.2: reads the tensors of `adapter_model.safetensors` by their names.
//! Knows nothing of the model. `variant.rs` reads the configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::coverage::Named;
use super::factors::{Factor, LowRank};
use super::variant::Variant;
use super::{CONFIG_FILE, Contents, PEFT_FILE};
use crate::error::{Context, Result, fail, require};
use crate::tensor::TensorFiles;

/// The prefix that `PeftModel` puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// How this format stores the factors, for messages.
const FORMAT: &str = "PEFT keeps lora_A as [rank, in] and lora_B as [out, rank]";
const EMBEDDED: &str =
    "PEFT keeps lora_embedding_A as [rank, vocabulary] and lora_embedding_B as [dims, rank]";

/// The tensors of one module, by part.
#[derive(Default)]
struct Parts<'a>(BTreeMap<&'static str, &'a str>);

/// The parts of a module that PEFT's LoRA saves.
const PARTS: [&str; 5] =
    ["lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"];

/// Where a tensor belongs.
#[derive(Debug, PartialEq)]
enum TensorRole<'a> {
    /// A part of the module's update. `adapter` is the adapter's name, or empty if the tensor's name does not
    /// have it.
    Part { module: &'a str, part: &'static str, adapter: &'a str },
    /// The whole weight with this name.
    Whole(String),
    /// The bias of `lora_B`.
    LoraBias,
}

/// Reads what an adapter of PEFT changes.
pub(super) fn read(files: &TensorFiles, config: &Map<String, Value>) -> Result<Contents> {
    let variant = Variant::read(config).within(|| format!("{CONFIG_FILE} cannot be used"))?;
    let mut contents = Contents::default();
    let (mut modules, mut adapters) = (BTreeMap::<&str, Parts<'_>>::new(), BTreeSet::new());
    for name in files.tensors().keys() {
        let twice = match place(name) {
            TensorRole::Part { module, part, adapter } => {
                adapters.insert(adapter);
                modules.entry(module).or_default().0.insert(part, name)
            }
            TensorRole::Whole(weight) => {
                // Without this check, the map would silently keep one of the two.
                if let Some(other) = contents.whole.insert(weight, name.clone()) {
                    fail!(Adapter, "`{other}` and `{name}` are for the same weight");
                }
                None
            }
            TensorRole::LoraBias => {
                fail!(Adapter, "`{name}` is a bias of the update (`lora_bias`), which no fused model has")
            }
        };
        require!(adapters.len() < 2, Adapter, "{PEFT_FILE} holds two adapters: {}", shown(&adapters));
        require!(twice.is_none(), Adapter, "`{}` and `{name}` are the same part", twice.unwrap_or_default());
    }
    for (module, parts) in modules {
        contents.low_rank.insert(module.to_owned(), update(files, module, &parts, &variant)?);
    }
    contents.named = Named::Targets(Box::new(variant.targets));
    Ok(contents)
}

fn shown(adapters: &BTreeSet<&str>) -> String {
    let name =
        |name: &&str| if name.is_empty() { "one without a name".to_owned() } else { format!("`{name}`") };
    adapters.iter().map(name).collect::<Vec<_>>().join(" and ")
}

/// Parses a tensor's name. PEFT removes the adapter's name when it saves, but not every trainer does.
fn place(name: &str) -> TensorRole<'_> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name);
    for part in PARTS {
        let Some((module, rest)) = path.split_once(&format!(".{part}")) else { continue };
        if !(rest.is_empty() || rest.starts_with('.')) {
            continue;
        }
        let rest = rest.trim_start_matches('.');
        // The factors of embeddings and the magnitudes are parameters themselves, without `.weight`.
        let is_parameter = !matches!(part, "lora_A" | "lora_B");
        let adapter = match rest.rsplit_once('.') {
            Some((adapter, "weight")) => adapter,
            None if rest == "weight" => "",
            None if is_parameter => rest,
            Some((_, "bias")) => return TensorRole::LoraBias,
            None if rest == "bias" => return TensorRole::LoraBias,
            _ => continue,
        };
        if !adapter.contains('.') {
            return TensorRole::Part { module, part, adapter };
        }
    }
    // `ModulesToSaveWrapper` keeps the trained copy in `modules_to_save`, under the adapter's name. A LoRA
    // layer keeps its own weight in `base_layer`.
    let Some((module, rest)) = path.split_once(".modules_to_save.") else {
        return TensorRole::Whole(path.replacen(".base_layer.", ".", 1));
    };
    let weight = rest.split_once('.').map_or(rest, |(_adapter, weight)| weight);
    TensorRole::Whole(format!("{module}.{weight}"))
}

fn update(files: &TensorFiles, module: &str, Parts(parts): &Parts<'_>, variant: &Variant) -> Result<LowRank> {
    let part = |name| parts.get(name).copied();
    let (factors, format, is_embedding) = match PARTS.map(part) {
        [Some(a), Some(b), None, None, _] => ((Factor::rank_first(a), Factor::rank_last(b)), FORMAT, false),
        // The update is (B·A) transposed. So `b` of a `Lora` is A as it is stored.
        [None, None, Some(a), Some(b), _] => ((Factor::rank_last(b), Factor::rank_first(a)), EMBEDDED, true),
        _ => {
            let there = parts.values().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
            fail!(Adapter, "`{module}` needs a lora_A and a lora_B, but has {there}");
        }
    };
    for factor in [&factors.0, &factors.1] {
        let shape = files.get(&factor.tensor).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
        require!(
            shape.len() == 2,
            Unsupported,
            "`{}` {shape:?} is no matrix; this version merges no convolutions",
            factor.tensor
        );
    }
    let (rank, scale) = variant.rank_and_scale(module)?;
    let update = LowRank::new(files, factors, scale, format)?;
    update.has_rank(rank, CONFIG_FILE)?;
    match (variant.use_dora, part("lora_magnitude_vector")) {
        (true, Some(magnitude)) => {
            // `DoraEmbeddingVariant` scales columns. The DoRA of a linear layer, and mlx-lm's DoRA, scale
            // rows.
            require!(
                !is_embedding,
                Adapter,
                "`{magnitude}`: the DoRA of an embedding, as PEFT trains it, cannot be merged"
            );
            update.with_magnitude(files, magnitude)
        }
        (true, None) => {
            fail!(Adapter, "{CONFIG_FILE} has `use_dora`, but `{module}` has no `lora_magnitude_vector`")
        }
        (false, Some(magnitude)) => {
            fail!(Adapter, "`{magnitude}` is DoRA's, but {CONFIG_FILE} does not have `use_dora`")
        }
        (false, None) => Ok(update),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_way_to_write_a_name() {
        let part = |part, adapter| TensorRole::Part { module: "model.q_proj", part, adapter };
        assert_eq!(place("base_model.model.model.q_proj.lora_A.weight"), part("lora_A", ""));
        assert_eq!(place("base_model.model.model.q_proj.lora_B.default.weight"), part("lora_B", "default"));
        assert_eq!(place("base_model.model.model.q_proj.lora_embedding_A"), part("lora_embedding_A", ""));
        assert_eq!(place("base_model.model.model.q_proj.lora_embedding_B.x"), part("lora_embedding_B", "x"));
        let magnitude = "lora_magnitude_vector";
        for (rest, adapter) in [("", ""), (".weight", ""), (".x", "x"), (".x.weight", "x")] {
            assert_eq!(place(&format!("model.q_proj.{magnitude}{rest}")), part(magnitude, adapter), "{rest}");
        }
        assert_eq!(place("base_model.model.model.q_proj.lora_B.bias"), TensorRole::LoraBias);
        for name in
            ["lm_head.weight", "lm_head.modules_to_save.weight", "lm_head.modules_to_save.default.weight"]
        {
            assert_eq!(
                place(&format!("base_model.model.{name}")),
                TensorRole::Whole("lm_head.weight".to_owned())
            );
        }
        let embedding = place("base_model.model.model.embed_tokens.base_layer.weight");
        assert_eq!(embedding, TensorRole::Whole("model.embed_tokens.weight".to_owned()));
    }
}
