//! Tensors of vision, of audio and of multi-token prediction: left out, or kept as mlx-vlm has them.
//! Knows nothing of the language model.

use super::super::Towers;
use super::Sanitize;
use super::reshape::turn;
use crate::arch::LayerName;
use crate::error::Result;

impl Sanitize<'_> {
    /// Takes the layers beyond the number that the configuration gives for those of multi-token prediction.
    pub(super) fn layers_beyond(&mut self, key: &str) -> Result<()> {
        let count = self.number(key);
        self.towers(|name| {
            let layer = LayerName::of(name).filter(|layer| layer.container.ends_with("layers"));
            layer.zip(count).is_some_and(|(layer, count)| layer.number >= count)
        })
    }

    /// Takes the weights that `is_one` names for those of a tower: leaves them out, or keeps them as they are.
    pub(super) fn towers(&mut self, is_one: impl Fn(&str) -> bool) -> Result<()> {
        match self.towers {
            Towers::Drop => {
                for (name, weight) in self.weights.extract_if(.., |name, _| is_one(name)) {
                    self.left_out.add(&name, weight.stored());
                }
            }
            Towers::Include => {
                for (name, weight) in self.weights.iter_mut().filter(|(name, _)| is_one(name)) {
                    weight.is_tower = true;
                    if has_channels_second(&weight.shape) {
                        turn(name, weight, |view| view.last(1))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a tensor is the weight of a convolution over an image or a video as PyTorch has it: its channels are
/// second, and its last two dimensions are a square.
fn has_channels_second(shape: &[usize]) -> bool {
    match *shape {
        [_, channels, high, wide] => high == wide && channels != high,
        [_, _, time, high, wide] => high == wide && time != high,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::sanitized;
    use super::*;

    const TENSORS: [(&str, &[usize]); 4] = [
        ("model.language_model.embed_tokens.weight", &[8, 4]),
        ("model.visual.patch_embed.proj.weight", &[16, 3, 2, 14, 14]),
        ("model.visual.blocks.0.attn.qkv.bias", &[12]),
        ("mtp.norm.weight", &[4]),
    ];

    #[test]
    fn towers_are_left_out_and_said() {
        let (weights, left_out) = sanitized("qwen3_5", &json!({}), &TENSORS, Towers::Drop).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["language_model.model.embed_tokens.weight"]);
        assert_eq!(
            left_out.describe().unwrap(),
            "left out, as mlx-lm does: 3 tensors with 37.7 kB that are not of the language model (`model.visual`, \
             `mtp.norm`); `towers: include` keeps them"
        );
    }

    #[test]
    fn towers_are_kept_as_mlx_vlm_has_them() {
        let (weights, left_out) = sanitized("qwen3_5", &json!({}), &TENSORS, Towers::Include).unwrap();
        assert_eq!(left_out.describe(), None);
        let of_towers = |name: &&String| weights[*name].is_tower;
        let names: Vec<_> = weights.keys().filter(of_towers).map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "mtp.norm.weight",
                "vision_tower.blocks.0.attn.qkv.bias",
                "vision_tower.patch_embed.proj.weight"
            ]
        );
        // The channels are last.
        assert_eq!(weights["vision_tower.patch_embed.proj.weight"].shape, [16, 2, 14, 14, 3]);
    }

    #[test]
    fn extra_layers_are_of_multi_token_prediction() {
        let config = json!({"num_hidden_layers": 2});
        let tensors = [("model.layers.1.a.weight", &[1][..]), ("model.layers.2.a.weight", &[1])];
        let (weights, _) = sanitized("glm4_moe", &config, &tensors, Towers::Drop).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["model.layers.1.a.weight"]);
    }
}
