//! mlx-lm's format, as in `tuner/{lora,dora,utils}.py` of 0.32.2: `adapters.safetensors`,
//! `adapter_config.json`. mlx-vlm 0.7.10 has it too, and an older one of its own: `trainer/peft/{lora,utils}.py`.
//! Knows nothing of PEFT or of the model.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::coverage::{Keys, Named};
use super::factors::{Factor, LowRank};
use super::{CONFIG_FILE, Contents, MLX_FILE, listed};
use crate::Error;
use crate::arch::Arch;
use crate::error::{Context, Result, fail, require};
use crate::tensor::TensorFiles;

/// How this format stores the factors, for messages.
const FORMAT: &str = "mlx-lm keeps lora_a as [in, rank] and lora_b as [rank, out]";
const STACKED: &str =
    "mlx-lm keeps a stack's lora_a as [experts, rank, in] and lora_b as [experts, out, rank]";
const OLD_VLM: &str = "mlx-vlm keeps A as [in, rank] and B as [rank, out]";
const EMBEDDED: &str = "mlx-lm keeps an embedding's lora_a as [vocabulary, rank] and lora_b as [rank, dims]";

/// The tensors of one module.
#[derive(Default)]
struct Parts<'a> {
    lora_a: Option<&'a str>,
    lora_b: Option<&'a str>,
    m: Option<&'a str>,
}

/// Reads what an adapter of mlx-lm changes.
pub(super) fn read(files: &TensorFiles, config: &Map<String, Value>) -> Result<Contents> {
    if let Some(scale) = old_vlm_scale(files, config)? {
        return old_vlm(files, config, scale);
    }
    // Adapters that are older than this key are LoRA.
    let kind = config.get("fine_tune_type").filter(|kind| !kind.is_null());
    match kind.map_or(Some("lora"), Value::as_str) {
        Some("lora") => low_rank(files, config, false),
        Some("dora") => low_rank(files, config, true),
        Some("full") => {
            let whole = files.tensors().keys().map(|name| (name.clone(), name.clone())).collect();
            Ok(Contents { whole, ..Contents::default() })
        }
        _ => {
            let kind = kind.unwrap_or(&Value::Null);
            fail!(
                Unsupported,
                "{CONFIG_FILE} has `fine_tune_type` {kind}; this version reads lora, dora and full"
            )
        }
    }
}

fn low_rank(files: &TensorFiles, config: &Map<String, Value>, dora: bool) -> Result<Contents> {
    let nothing = Value::Null;
    let parameters = config.get("lora_parameters").unwrap_or(&nothing);
    let scale = scale(parameters)?;
    let rank = parameters.get("rank").and_then(Value::as_u64);
    let mut contents = Contents { named: Named::Keys(keys(parameters, config)?), ..Contents::default() };
    for (module, parts) in parts(files)? {
        let (Some(a), Some(b)) = (parts.lora_a, parts.lora_b) else {
            let (there, other) =
                if parts.lora_a.is_some() { ("lora_a", "lora_b") } else { ("lora_b", "lora_a") };
            fail!(
                Adapter,
                "`{module}.{}` has no `{other}` beside it",
                if parts.m.is_some() { "m" } else { there }
            );
        };
        let mut update = factors(files, module, [a, b], scale)?;
        if let Some(rank) = rank {
            update.has_rank(rank, &format!("`lora_parameters` in {CONFIG_FILE}"))?;
        }
        match (dora, parts.m) {
            (true, Some(m)) => update = update.with_magnitude(files, m)?,
            (true, None) => {
                fail!(Adapter, "{CONFIG_FILE} says dora, but `{module}` has no magnitude `{module}.m`")
            }
            (false, Some(m)) => {
                fail!(Adapter, "`{m}` is a magnitude of DoRA, but {CONFIG_FILE} does not say dora")
            }
            (false, None) => {}
        }
        contents.low_rank.insert(module.to_owned(), update);
    }
    Ok(contents)
}

/// Returns the scale of an adapter in mlx-vlm's old form, in which the configuration has no section. Returns `None`
/// if the adapter is not in that form.
fn old_vlm_scale(files: &TensorFiles, config: &Map<String, Value>) -> Result<Option<f32>> {
    let is_old =
        !config.contains_key("lora_parameters") && files.tensors().keys().any(|name| name.ends_with(".A"));
    let number = |key: &str| config.get(key).and_then(Value::as_f64).filter(|number| *number > 0.0);
    match (is_old, number("alpha"), number("rank")) {
        (false, ..) => Ok(None),
        (true, Some(alpha), Some(rank)) => finite(alpha / rank).map(Some),
        (true, ..) => {
            fail!(
                Adapter,
                "the tensors are mlx-vlm's `A` and `B`, but {CONFIG_FILE} has no `rank` and no `alpha`"
            )
        }
    }
}

/// Reads mlx-vlm's old form: `A` is [in, rank] and `B` [rank, out], as mlx-lm has them.
fn old_vlm(files: &TensorFiles, config: &Map<String, Value>, scale: f32) -> Result<Contents> {
    let mut contents = Contents {
        note: Some(format!(
            "the adapter is in mlx-vlm's old form: its updates are taken `alpha / rank` times, {scale}, as mlx-vlm 0.7 \
             takes them; releases before 0.5 took them `alpha` times"
        )),
        ..Contents::default()
    };
    let rank = config.get("rank").and_then(Value::as_u64);
    for name in files.tensors().keys() {
        let Some((module, part)) = name.rsplit_once('.') else {
            fail!(Adapter, "`{name}` is neither an `A` nor a `B` of a module")
        };
        let [a, b] = ["A", "B"].map(|part| format!("{module}.{part}"));
        let both = files.get(&a).is_some() && files.get(&b).is_some();
        require!(
            both && matches!(part, "A" | "B"),
            Adapter,
            "`{name}` is neither an `A` with a `B` beside it nor a `B` with an `A`"
        );
        if part == "A" {
            let update =
                LowRank::new(files, (Factor::rank_last(&a), Factor::rank_first(&b)), scale, OLD_VLM)?;
            if let Some(rank) = rank {
                update.has_rank(rank, CONFIG_FILE)?;
            }
            contents.low_rank.insert(module.to_owned(), update);
        }
    }
    Ok(contents)
}

fn factors(files: &TensorFiles, module: &str, [a, b]: [&str; 2], scale: f32) -> Result<LowRank> {
    // The adapter does not say which model it is for, and the names are those of all of mlx-lm's.
    if Arch::OTHER.is_embedding(module) {
        // The update is (scale·lora_a) @ lora_b. So `b` of a `Lora` is lora_a, transposed.
        return LowRank::new(files, (Factor::rank_first(b), Factor::rank_last(a)), scale, EMBEDDED);
    }
    let stacked = files.get(b).is_some_and(|tensor| tensor.shape.len() == 3);
    if stacked {
        return LowRank::new(files, (Factor::rank_first(a), Factor::rank_last(b)), scale, STACKED);
    }
    LowRank::new(files, (Factor::rank_last(a), Factor::rank_first(b)), scale, FORMAT)
}

fn parts(files: &TensorFiles) -> Result<BTreeMap<&str, Parts<'_>>> {
    let mut modules: BTreeMap<&str, Parts<'_>> = BTreeMap::new();
    let mut others = Vec::new();
    for name in files.tensors().keys() {
        let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
        match part {
            "lora_a" => modules.entry(module).or_default().lora_a = Some(name),
            "lora_b" => modules.entry(module).or_default().lora_b = Some(name),
            "m" => modules.entry(module).or_default().m = Some(name),
            _ => others.push(name),
        }
    }
    if !others.is_empty() {
        let hint = if others.iter().any(|name| name.contains("lora_A")) {
            "; these are PEFT's names, whose file is adapter_model.safetensors"
        } else {
            "; whole tensors need `fine_tune_type: full`"
        };
        let (count, all) = (others.len(), files.tensors().len());
        let lines = listed(others.into_iter().map(|name| format!("`{name}`")));
        fail!(
            Adapter,
            "{count} of the {all} tensors of {MLX_FILE} are no lora_a, lora_b or m{hint}\n  {lines}"
        );
    }
    Ok(modules)
}

fn scale(parameters: &Value) -> Result<f32> {
    let alpha = if parameters.get("alpha").is_some() {
        "; it has `alpha`, but in mlx-lm `scale` is the factor on the update as it is (PEFT's alpha / rank)"
    } else {
        ""
    };
    let scale = parameters
        .get("scale")
        .and_then(Value::as_f64)
        .ok_or_else(|| Error::Adapter(format!("{CONFIG_FILE} has no `lora_parameters.scale`{alpha}")))?;
    finite(scale)
}

/// Returns the float32 nearest to a scale, which is what mlx-lm multiplies by. Fails if it is not finite.
pub(super) fn finite(scale: f64) -> Result<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is meant")]
    let nearest = scale as f32;
    require!(nearest.is_finite(), Adapter, "the scale {scale} of the update is no float32");
    Ok(nearest)
}

fn keys(parameters: &Value, config: &Map<String, Value>) -> Result<Keys> {
    let keys = match parameters.get("keys") {
        None | Some(Value::Null) => Vec::new(),
        Some(keys) => texts(keys).within(|| format!("`lora_parameters.keys` in {CONFIG_FILE}"))?,
    };
    // `lora_layers` is the older name of `num_layers`. 0 and below mean all, as
    // `layers[-max(num_layers, 0):]` does.
    let layers = config.get("num_layers").or_else(|| config.get("lora_layers")).and_then(Value::as_i64);
    let last =
        layers.map(|layers| usize::try_from(layers).ok().filter(|last| *last > 0).unwrap_or(usize::MAX));
    Ok(Keys { keys, last })
}

/// Reads a JSON list of strings.
pub(super) fn texts(list: &Value) -> Result<Vec<String>> {
    let text = |item: &Value| {
        item.as_str().map(str::to_owned).ok_or_else(|| Error::Adapter(format!("{item} is no text")))
    };
    list.as_array().ok_or_else(|| Error::Adapter("is no list".to_owned()))?.iter().map(text).collect()
}
