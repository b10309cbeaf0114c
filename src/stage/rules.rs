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

/// Routers that mlx-lm keeps at 8 bits, by the end of their paths: `quant_predicate` in `models/*.py` of 0.32.2.
const EIGHT: [(&[&str], &[&str]); 12] = [
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
    (&["longcat_flash"], &["classifier"]),
];

/// Routers that are bare parameters in mlx-lm, not layers, and so are never quantized.
const BARE: [&str; 9] = [
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "mimo_v2_flash",
];

/// Returns what mlx-lm's model of this type says of the module at `path`.
pub(super) fn of_model(model_type: &str, path: &str) -> Rule {
    if BARE.contains(&model_type) && path.ends_with("mlp.gate") {
        return Rule::Skip;
    }
    let row = EIGHT.iter().find(|(types, _)| types.contains(&model_type));
    let eight = row.is_some_and(|(_, ends)| ends.iter().any(|end| path.ends_with(end)));
    if eight { Rule::Eight } else { Rule::Usual }
}

/// Returns the bits that a recipe gives the module at `path` of a model with `layers` layers. Mirrors
/// `mixed_quant_predicate_builder` in mlx-lm's `convert.py`.
pub(super) fn mixed(recipe: Mixed, path: &str, layers: usize) -> usize {
    let (low, high) = recipe.bits();
    // In `model.layers.7.mlp.down_proj` and the like the number is the third word.
    let index = path.split('.').nth(2).and_then(|word| word.parse().ok()).unwrap_or(0);
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
        let bits = |path: &str| mixed(Mixed::Low2High6, path, 16);
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
        assert_eq!(of_model("llama", "model.layers.0.mlp.gate"), Rule::Usual);
    }
}
