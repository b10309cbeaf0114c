//! Which weights are quantized, and to what, beyond what the node says: mlx-lm's rules by model and by recipe.
//! Knows nothing of files; it goes by the paths of modules.

use super::Mixed;

/// What a rule says of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing: as the node says.
    Usual,
    /// It is not a layer that mlx-lm quantizes.
    Skip,
    /// 8 bits in groups of 64, whatever the node says.
    Eight,
}

/// Types that mlx-lm reads as another: `MODEL_REMAPPING` in `utils.py` of 0.32.2, as far as the tables name the other.
const ALIASES: [(&str, &str); 5] = [
    ("joyai_llm_flash", "deepseek_v3"),
    ("kimi_k2", "deepseek_v3"),
    ("minimax_m2", "minimax"),
    ("gemma4_unified", "gemma4"),
    ("deepseek_v41_text", "deepseek_v41"),
];

/// Routers that mlx-lm keeps at 8 bits, by the end of their paths: `quant_predicate` in `models/*.py` of 0.32.2.
const EIGHT: [(&[&str], &[&str]); 14] = [
    (&["qwen3_moe", "qwen3_vl_moe", "Klear", "kimi_linear", "kimi_k3", "mellum"], &["mlp.gate"]),
    (&["qwen3_next", "qwen3_5", "qwen3_5_moe"], &["mlp.gate", "shared_expert_gate"]),
    (&["minimax", "minimax_m3_vl"], &["block_sparse_moe.gate"]),
    (&["lfm2_moe"], &["feed_forward.gate"]),
    (&["gpt_oss", "jamba"], &["router"]),
    (&["bailing_moe", "bailing_moe_linear", "bailing_hybrid"], &["mlp.gate.gate_proj"]),
    (&["gemma4", "gemma4_text"], &["router.proj"]),
    (&["granite"], &["self_attn.o_proj", "mlp.down_proj", "lm_head"]),
    (&["granitemoe"], &["block_sparse_moe.router.layer", "self_attn.o_proj", "mlp.down_proj", "lm_head"]),
    (&["granitemoehybrid"], &["router.layer"]),
    (&["laguna"], &["mlp.gate.proj"]),
    (&["longcat_flash", "longcat_flash_ngram"], &["classifier"]),
    (&["afmoe"], &["router.gate"]),
    (&["step3p5"], &["mlp.gate.gate"]),
];

/// Modules that mlx-lm does not quantize, by the end of their paths: routers that are bare parameters there, not layers,
/// and what a `quant_predicate` leaves out.
const SKIPPED: [(&[&str], &[&str]); 5] = [
    (
        &[
            "deepseek",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "deepseek_v41",
            "dots1",
            "exaone_moe",
            "glm4_moe",
            "glm4_moe_lite",
            "kimi_k25",
            "kimi_vl",
            "mimo_v2_flash",
        ],
        &["mlp.gate"],
    ),
    (&["nemotron_h"], &["mixer.gate"]),
    (&["kimi_k3"], &["res_proj"]),
    (&["bailing_hybrid"], &["attention.embed_q", "attention.unembed_out"]),
    (&["spark2_5"], &["self_attn.g_proj"]),
];

/// Parts of the names of tensors that keep their type whatever is asked for: `cast_predicate` in `models/*.py`.
const UNCAST: [&str; 5] = ["e_score_correction_bias", "expert_bias", "router_bias", "A_log", "dt_bias"];

/// Whether mlx-lm casts the tensor `name` when a type is asked for.
pub(super) fn is_cast(name: &str) -> bool {
    !UNCAST.iter().any(|part| name.contains(part))
}

/// Returns what mlx-lm's model of this type says of the module at `path`.
pub(super) fn of_model(model_type: &str, path: &str) -> Rule {
    let model_type =
        ALIASES.iter().find(|(alias, _)| *alias == model_type).map_or(model_type, |(_, name)| name);
    let says = |table: &[(&[&str], &[&str])]| {
        let row = table.iter().find(|(types, _)| types.contains(&model_type));
        row.is_some_and(|(_, ends)| ends.iter().any(|end| path.ends_with(end)))
    };
    match () {
        () if says(&SKIPPED) => Rule::Skip,
        () if says(&EIGHT) => Rule::Eight,
        () => Rule::Usual,
    }
}

/// Returns which word of a path is the number of a layer, given the path of one: the first that is a number.
pub(super) fn layer_place(path: &str) -> usize {
    path.split('.').position(|word| word.parse::<usize>().is_ok()).unwrap_or(usize::MAX)
}

/// Returns the bits that a recipe gives the module at `path` of a model with `layers` layers, whose number is the word
/// at `place`. Mirrors `mixed_quant_predicate_builder` in mlx-lm's `convert.py`.
pub(super) fn mixed(recipe: Mixed, path: &str, layers: usize, place: usize) -> usize {
    let (low, high) = recipe.bits();
    let index = path.split('.').nth(place).and_then(|word| word.parse().ok()).unwrap_or(0);
    let more = index < layers / 8 || index >= 7 * layers / 8 || (index - layers / 8) % 3 == 2;
    let value = ["v_proj", "v_a_proj", "v_b_proj"].iter().any(|word| path.contains(word));
    if ((value || path.contains("down_proj")) && more) || path.contains("lm_head") { high } else { low }
}

/// Whether `pattern` matches all of `path`: `*` stands for any text, `?` for one character.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    // Where to go on if the text after the last `*` does not match: that `*` takes one character more.
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.chars().collect(), path.chars().collect());
    let (mut at, mut place, mut again) = (0, 0, None);
    while place < path.len() {
        match pattern.get(at) {
            Some('*') => {
                again = Some((at, place));
                at += 1;
            }
            Some(c) if *c == '?' || *c == path[place] => (at, place) = (at + 1, place + 1),
            _ => match again {
                Some((star, from)) => {
                    again = Some((star, from + 1));
                    (at, place) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_give_more_bits_at_both_ends_and_to_every_third() {
        let bits =
            |path: &str| mixed(Mixed::Low2High6, path, 16, layer_place("model.layers.0.mlp.down_proj"));
        let down = |layer: usize| bits(&format!("model.layers.{layer}.mlp.down_proj"));
        let high: Vec<_> = (0..16).filter(|layer| down(*layer) == 6).collect();
        assert_eq!(high, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(
            [bits("lm_head"), bits("model.embed_tokens"), bits("model.layers.0.mlp.up_proj")],
            [6, 2, 2]
        );
    }

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("*.down_proj", "model.layers.3.mlp.down_proj"));
        assert!(matches("model.layers.?.mlp.*", "model.layers.3.mlp.down_proj"));
        assert!(matches("lm_head", "lm_head"));
        assert!(matches("*", "") && matches("a*b*c", "a.b.b.c"));
        assert!(!matches("down_proj", "model.layers.3.mlp.down_proj"));
        assert!(!matches("model.layers.?.*", "model.layers.13.mlp"));
    }

    #[test]
    fn routers_keep_their_eight_bits() {
        assert_eq!(of_model("qwen3_moe", "model.layers.0.mlp.gate"), Rule::Eight);
        assert_eq!(of_model("qwen3_moe", "model.layers.0.mlp.gate_proj"), Rule::Usual);
        assert_eq!(of_model("deepseek_v3", "model.layers.0.mlp.gate"), Rule::Skip);
        assert_eq!(of_model("kimi_k2", "model.layers.0.mlp.gate"), Rule::Skip);
        assert_eq!(of_model("llama", "model.layers.0.mlp.gate"), Rule::Usual);
    }
}
