//! What a mixed recipe and the pattern of an override say about a module, by its path.
//! Knows nothing of files or architectures.

use super::Mixed;

/// Returns the bits that a recipe gives the module at `path`. The model has `layers` layers. The layer number
/// is word number `place` of the path, counted from 0. Mirrors `mixed_quant_predicate_builder` in mlx-lm's
/// `convert.py`.
pub(super) fn mixed(recipe: Mixed, path: &str, layers: usize, place: usize) -> usize {
    let (low, high) = recipe.bits();
    let index = path.split('.').nth(place).and_then(|word| word.parse().ok()).unwrap_or(0);
    let more = index < layers / 8 || index >= 7 * layers / 8 || (index - layers / 8) % 3 == 2;
    let value = ["v_proj", "v_a_proj", "v_b_proj"].iter().any(|word| path.contains(word));
    if ((value || path.contains("down_proj")) && more) || path.contains("lm_head") { high } else { low }
}

/// Whether `pattern` matches all of `path`: `*` stands for any text, `?` for one character.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    // Where to resume if the text after the last `*` does not match: that `*` then matches one more
    // character.
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
        let bits = |path: &str| mixed(Mixed::Low2High6, path, 16, 2);
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
}
