//! Reads rank, scale and targets of a LoRA from PEFT's `adapter_config.json`; refuses what cannot be merged.
//! Knows nothing of tensors.

use serde_json::{Map, Value};

use super::coverage::{Select, Targets};
use super::mlx::{finite, texts};
use super::pattern::Pattern;
use crate::Error;
use crate::error::{Context, Result, fail, require};

/// Keys of variants that do more than add `scale·B·A` to the weight, and what each of them is. `fan_in_fan_out` is not
/// among them: it says that PEFT's module keeps its weight transposed, and mlx-lm's model does not.
const REFUSED: [(&str, &str); 10] = [
    ("lora_bias", "a bias of the update"),
    ("use_qalora", "QA-LoRA, which pools the input"),
    ("target_parameters", "updates of parameters that are no modules"),
    ("layer_replication", "layers that are used twice"),
    ("trainable_token_indices", "single trained tokens"),
    ("alora_invocation_tokens", "activated LoRA, which works after some tokens only"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("arrow_config", "Arrow, which chooses experts for each token"),
    ("kasa_config", "KaSA, which has a diagonal besides"),
    ("monteclora_config", "MonteCLoRA, which samples the update"),
];

/// Initializations that leave the base as it is. The others (pissa, olora, corda, lora_ga, loftq) change the
/// base before training. Their update is wrong for the unchanged base.
const HARMLESS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// A configuration that this version can merge.
#[derive(Debug)]
pub(super) struct Variant {
    pub use_dora: bool,
    pub targets: Targets,
    rank: u64,
    alpha: f64,
    use_rslora: bool,
    ranks: Vec<(Pattern, u64)>,
    alphas: Vec<(Pattern, f64)>,
}

impl Variant {
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self> {
        let kind = config
            .get("peft_type")
            .and_then(Value::as_str)
            .ok_or_else(|| Error::Adapter("it has no `peft_type`".to_owned()))?;
        require!(kind == "LORA", Unsupported, "its `peft_type` is {kind}; this version reads LORA only");
        for (key, what) in REFUSED {
            require!(
                !is_set(config.get(key)),
                Unsupported,
                "it has `{key}`, {what}: this version cannot merge that"
            );
        }
        if let Some(start) = config.get("init_lora_weights").and_then(Value::as_str) {
            require!(
                HARMLESS.contains(&start),
                Adapter,
                "its `init_lora_weights` is `{start}`, which changes the base that it was trained on; PEFT's \
                 `save_pretrained(path_initial_model_for_weight_conversion=…)` makes a plain LoRA of it"
            );
        }
        let bias = config.get("bias").and_then(Value::as_str).unwrap_or("none");
        require!(
            ["none", "all", "lora_only"].contains(&bias),
            Adapter,
            "its `bias` is `{bias}`, not none, all or lora_only"
        );
        Ok(Self {
            use_dora: flag(config, "use_dora")?,
            targets: targets(config)?,
            rank: config
                .get("r")
                .and_then(Value::as_u64)
                .ok_or_else(|| Error::Adapter("it has no rank `r`".to_owned()))?,
            alpha: config
                .get("lora_alpha")
                .and_then(Value::as_f64)
                .ok_or_else(|| Error::Adapter("it has no `lora_alpha`".to_owned()))?,
            use_rslora: flag(config, "use_rslora")?,
            ranks: patterns(config, "rank_pattern", Value::as_u64)?,
            alphas: patterns(config, "alpha_pattern", Value::as_f64)?,
        })
    }

    /// Returns the rank of a module's update and the factor on it. Mirrors `LoraModel._create_and_replace`
    /// (`tuners/lora/model.py`, lines 309 to 312) and `LoraLayer.update_layer` (`tuners/lora/layer.py`, line
    /// 278).
    pub(super) fn rank_and_scale(&self, module: &str) -> Result<(u64, f32)> {
        let rank = first(&self.ranks, module)?.unwrap_or(self.rank);
        let alpha = first(&self.alphas, module)?.unwrap_or(self.alpha);
        require!(rank > 0, Adapter, "`{module}` has rank 0");
        let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, finite(alpha / divisor)?))
    }
}

/// Returns the value of the first pattern that matches. The patterns are in the order of the file, as in
/// PEFT.
fn first<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if pattern.matches(module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Whether a key turns something on: it is not absent, null, false or empty.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(entries)) => !entries.is_empty(),
        Some(_) => true,
    }
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<bool> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => fail!(Adapter, "its `{key}` is {other}, not true or false"),
    }
}

fn patterns<T>(
    config: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Pattern, T)>> {
    let entries = match config.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_object().ok_or_else(|| Error::Adapter(format!("its `{key}` is no map")))?,
    };
    let entry = |(pattern, value): (&String, &Value)| {
        let value =
            read(value).ok_or_else(|| Error::Adapter(format!("in its `{key}`, {value} is no number")))?;
        Ok((Pattern::end(pattern).within(|| format!("in its `{key}`"))?, value))
    };
    entries.iter().map(entry).collect()
}

fn targets(config: &Map<String, Value>) -> Result<Targets> {
    let layers = match config.get("layers_to_transform") {
        Some(Value::Number(_)) => list(config, "layers_to_transform", |one| Ok(vec![one.clone()]))?,
        _ => list(config, "layers_to_transform", |many| {
            many.as_array()
                .cloned()
                .ok_or_else(|| Error::Adapter("is neither a number nor a list".to_owned()))
        })?,
    };
    let containers = list(config, "layers_pattern", |value| match value {
        Value::String(one) => Ok(vec![one.clone()]),
        many => texts(many),
    })?;
    let layer = |layer: &Value| layer.as_u64().and_then(|layer| usize::try_from(layer).ok());
    Ok(Targets {
        targets: select(config, "target_modules")?,
        excluded: select(config, "exclude_modules")?,
        saved: list(config, "modules_to_save", texts)?,
        layers: layers
            .iter()
            .map(|index| layer(index).ok_or_else(|| Error::Adapter(format!("{index} is no layer"))))
            .collect::<Result<_, _>>()?,
        containers: containers.iter().map(|container| Pattern::end(container)).collect::<Result<_, _>>()?,
    })
}

fn list<T>(
    config: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => read(value).within(|| format!("its `{key}`")),
    }
}

fn select(config: &Map<String, Value>, key: &str) -> Result<Select> {
    Ok(match config.get(key) {
        Some(Value::String(all)) if all == "all-linear" => Select::Nothing,
        Some(Value::String(pattern)) => {
            Select::Pattern(Pattern::whole(pattern).within(|| format!("its `{key}`"))?)
        }
        _ => match list(config, key, texts)? {
            names if names.is_empty() => Select::Nothing,
            names => Select::Names(names),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variant(extra: Value) -> crate::Result<Variant> {
        let mut config = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Variant::read(config.as_object().unwrap())
    }

    fn scale(extra: Value, module: &str) -> (u64, f32) {
        variant(extra).unwrap().rank_and_scale(module).unwrap()
    }

    #[test]
    fn scales_by_hand() {
        let module = "model.layers.1.self_attn.q_proj";
        assert_eq!(scale(json!({}), module), (8, 2.0));
        assert_eq!(scale(json!({"use_rslora": true, "r": 16}), module), (16, 4.0));
        assert_eq!(scale(json!({"rank_pattern": {"q_proj": 4}}), module), (4, 4.0));
        assert_eq!(scale(json!({"alpha_pattern": {"self_attn.q_proj": 64}}), module), (8, 8.0));
        let both = json!({"use_rslora": true, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 3}});
        assert_eq!(scale(both, module), (4, 1.5));
    }

    #[test]
    fn patterns_match_as_in_peft() {
        let module = "model.layers.1.self_attn.q_proj";
        let rank = |pattern: &str| scale(json!({"rank_pattern": {pattern: 4}}), module).0;
        for pattern in [
            module,
            "q_proj",
            r"layers\.[01]\.self_attn\.(q|v)_proj",
            "^model.layers.1.self_attn.q_proj",
            ".*q_proj",
        ] {
            assert_eq!(rank(pattern), 4, "{pattern}");
        }
        for pattern in ["proj", "self_attn", "layers.2.self_attn.q_proj", "q_pro"] {
            assert_eq!(rank(pattern), 8, "{pattern}");
        }
        // The first pattern that matches is used, in the order of the file.
        assert_eq!(scale(json!({"rank_pattern": {"q_proj": 2, ".*": 4}}), module).0, 2);
    }

    #[test]
    fn refuses_what_is_more_than_a_product() {
        let refusal = |extra| artifact::in_one_line(&variant(extra).unwrap_err());
        assert_eq!(
            refusal(json!({"peft_type": "LOHA"})),
            "its `peft_type` is LOHA; this version reads LORA only"
        );
        for (key, _) in REFUSED {
            assert!(refusal(json!({key: true})).contains(&format!("`{key}`")), "{key}");
            assert!(variant(json!({key: null})).is_ok() && variant(json!({key: []})).is_ok(), "{key}");
        }
        assert!(refusal(json!({"init_lora_weights": "pissa_niter_4"})).contains("changes the base"));
        assert!(variant(json!({"init_lora_weights": "gaussian"})).is_ok());
        assert!(refusal(json!({"rank_pattern": {"(": 4}})).contains("not a regular expression"));
        assert!(refusal(json!({"use_rslora": "yes"})).contains("not true or false"));
    }
}
