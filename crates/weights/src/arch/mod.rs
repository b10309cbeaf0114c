//! Facts about model architectures: one record for each `model_type`, in a file for each family.
//! Knows nothing of files, nor of what a model computes; the crate that runs models knows that.
//!
//! To add a family, add its file and its name to the list below. All facts are taken from mlx-lm 0.32.2.

mod experts;
mod names;
mod record;
mod sanitize;

pub use experts::Expert;
pub use names::LayerName;
pub use record::{Arch, Head, Layers, QuantRule, number_of};
pub use sanitize::{Channels, Factor, Number, Rows, Step, When, find, find_any, rename};

use serde_json::{Map, Value};

/// Declares a module for each family, and the list of their records.
macro_rules! families {
    ($($family:ident)*) => {
        $(mod $family;)*
        const FAMILIES: &[&[Arch]] = &[$($family::ARCHS),*];
    };
}

families! {
    afmoe bailing dbrx deepseek dots exaone gemma glm gpt gpt_oss granite hunyuan iquest jamba kimi klear laguna lfm llama longcat mamba
    mellum mimo minimax mistral mixtral muse nemotron olmo phi plain qwen2 qwen3 rwkv seed_oss solar spark starcoder2 step
}

/// Returns the record for a `config.json`. It is looked up by `model_type`, which may be an alias, and only
/// if there is no `model_type`, by the first of `architectures`. A model that is not listed has the record
/// [`Arch::OTHER`].
pub fn of_config(config: &Map<String, Value>) -> &'static Arch {
    let classes =
        config.get("architectures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut classes = classes.iter().filter_map(Value::as_str);
    match config.get("model_type").and_then(Value::as_str) {
        Some(model_type) => {
            let other = classes
                .find_map(|class| REMAPPED.iter().find(|[from, of, _]| [*from, *of] == [model_type, class]));
            of_model_type(other.map_or(model_type, |[_, _, to]| to))
        }
        None => classes.next().and_then(of_class).unwrap_or(&Arch::OTHER),
    }
}

/// Types that mean another model in the configuration of some classes, and the type of that model:
/// `MODEL_ARCHITECTURE_REMAPPING` in `utils.py`.
const REMAPPED: [[&str; 3]; 1] = [["bailing_hybrid", "BailingMoeV3ForCausalLM", "bailing_moe_v3"]];

/// Whether mlx-lm's model of this type reads `rope_parameters`, the spelling of transformers 5.
pub fn reads_rope_parameters(model_type: &str) -> bool {
    let short = model_type.strip_suffix("_text").unwrap_or(model_type);
    let reads = |kind: &str| READS_ROPE_PARAMETERS.contains(&kind);
    [model_type, short].iter().any(|kind| reads(kind) || reads(of_model_type(kind).model_type))
}

/// The types whose `ModelArgs` have `rope_parameters`.
const READS_ROPE_PARAMETERS: [&str; 21] = [
    "exaone_moe",
    "gemma4",
    "gemma4_text",
    "glm_moe_dsa",
    "granitemoehybrid",
    "laguna",
    "lfm2",
    "lfm2_moe",
    "mellum",
    "minimax_m3_vl",
    "ministral3",
    "mistral4",
    "muse_glimmer",
    "muse_spark",
    "olmo_hybrid",
    "prism_hadamard_qwen35",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "spark2_5",
];

/// Returns the record of a `model_type` or of an alias.
pub fn of_model_type(model_type: &str) -> &'static Arch {
    let is_it = |arch: &&Arch| arch.model_type == model_type || arch.aliases.contains(&model_type);
    all().find(is_it).unwrap_or(&Arch::OTHER)
}

fn of_class(class: &str) -> Option<&'static Arch> {
    all().find(|arch| arch.architectures.contains(&class))
}

fn all() -> impl Iterator<Item = &'static Arch> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn found(config: Value) -> &'static str {
        of_config(config.as_object().unwrap()).model_type
    }

    #[test]
    fn a_model_is_found_by_its_type_an_alias_or_its_class() {
        assert_eq!(found(json!({"model_type": "qwen3_moe"})), "qwen3_moe");
        assert_eq!(found(json!({"model_type": "mistral", "architectures": ["X"]})), "llama");
        assert_eq!(found(json!({"architectures": ["Qwen2ForCausalLM"]})), "qwen2");
        assert_eq!(found(json!({"model_type": "new", "architectures": ["Qwen2ForCausalLM"]})), "");
        assert_eq!(found(json!({})), "");
    }

    #[test]
    fn some_layers_are_left_out() {
        let rules = |config: Value, paths: &[&str]| {
            let config = config.as_object().unwrap();
            paths.iter().map(|path| of_config(config).quant_rule(path, config)).collect::<Vec<_>>()
        };
        let muse = json!({"model_type": "muse_spark", "text_config": {"num_hidden_layers": 3}});
        let experts =
            ["0", "1", "2"].map(|layer| format!("model.language_model.layers.{layer}.mlp.experts.up_proj"));
        let paths = [&experts[0], &experts[1], &experts[2], "lm_head"];
        assert_eq!(
            rules(muse, &paths),
            [QuantRule::Skip, QuantRule::Usual, QuantRule::Skip, QuantRule::Skip]
        );
        // Of four layers in groups of two, the second and the fourth have no linear attention.
        let bailing = json!({
            "model_type": "bailing_hybrid", "architectures": ["BailingMoeV3ForCausalLM"], "num_hidden_layers": 5,
            "layer_group_size": 2
        });
        let paths = [0, 1, 2, 3, 4].map(|layer| format!("model.layers.{layer}.attention.q_proj"));
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        let (usual, skip) = (QuantRule::Usual, QuantRule::Skip);
        assert_eq!(rules(bailing.clone(), &paths), [usual, skip, usual, skip, skip]);
        let last = format!("model.layers.{}.attention.q_proj", usize::MAX);
        assert_eq!(rules(bailing, &[&last]), [skip]);
        let rwkv = ["model.embeddings", "model.layers.0.attn.w_lora.lora.2", "model.layers.0.attn.g_norm"];
        let unsaid = QuantRule::EightBitsUnsaid;
        assert_eq!(rules(json!({"model_type": "rwkv7"}), &rwkv), [unsaid, unsaid, skip]);
    }

    #[test]
    fn no_name_is_in_two_records() {
        let names = all().flat_map(|arch| [&[arch.model_type], arch.aliases].concat());
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = names.filter(|name| !seen.insert(*name)).collect();
        assert_eq!(twice, [""; 0]);
        let classes = all().flat_map(|arch| arch.architectures);
        let mut seen = BTreeSet::new();
        assert!(classes.into_iter().all(|class| seen.insert(*class)));
    }

    #[test]
    fn routers_keep_their_eight_bits() {
        let rule = |model_type, path| of_model_type(model_type).quant_rule(path, &Map::new());
        assert_eq!(rule("qwen3_moe", "model.layers.0.mlp.gate"), QuantRule::EightBits);
        assert_eq!(rule("qwen3_moe", "model.layers.0.mlp.gate_proj"), QuantRule::Usual);
        assert_eq!(rule("deepseek_v3", "model.layers.0.mlp.gate"), QuantRule::Skip);
        assert_eq!(rule("kimi_k2", "model.layers.0.mlp.gate"), QuantRule::Skip);
        assert_eq!(rule("llama", "model.layers.0.mlp.gate"), QuantRule::Usual);
    }
}
