//! Tensors of vision, of audio and of multi-token prediction: left out, or kept as mlx-vlm has them.
//! Knows nothing of the language model.

use super::super::Towers;
use super::super::weight::Weight;
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
                let of_tower = |name: &str, weight: &Weight| is_one(name) && !weight.is_tower;
                // A square of as many channels does not tell by itself.
                let shapes = self.weights.iter().filter(|(name, weight)| of_tower(name, weight));
                let any = shapes.clone().any(|(_, weight)| channels_second(&weight.shape) == Some(true));
                for (name, weight) in self.weights.iter_mut().filter(|(name, weight)| of_tower(name, weight))
                {
                    weight.is_tower = true;
                    if channels_second(&weight.shape).unwrap_or(any) && weight.shape.len() > 3 {
                        turn(name, weight, |view| view.last(1))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a tensor is the weight of a convolution over an image or a video as PyTorch has it: its channels are
/// second, and its last two dimensions are a square. Returns `None` if the shape does not tell.
fn channels_second(shape: &[usize]) -> Option<bool> {
    match *shape {
        [_, a, b, c] if a == b && b == c => None,
        [_, channels, high, wide] => Some(high == wide && channels != high),
        [_, _, time, high, wide] if time == high && high == wide => None,
        [_, _, time, high, wide] => Some(high == wide && time != high),
        _ => Some(false),
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
            "left out, as mlx-lm does: 3 tensors with 37.7 kB not of the language model (`model.visual`, \
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
    fn a_square_of_as_many_channels_goes_with_the_others() {
        let stem = "model.vision_tower.conv_stem.conv.weight";
        let second = [(stem, &[64, 3, 3, 3][..]), ("model.vision_tower.b.conv.weight", &[32, 64, 1, 1])];
        let last = [(stem, &[64, 3, 3, 3][..]), ("model.vision_tower.b.conv.weight", &[32, 5, 5, 64])];
        let offset = |tensors: &[(&str, &[usize])]| {
            let (weights, _) = sanitized("gemma3n", &json!({}), tensors, Towers::Include).unwrap();
            weights[stem].sources()[0].view.is_whole()
        };
        assert_eq!((offset(&second), offset(&last)), (false, true));
    }

    #[test]
    fn extra_layers_are_of_multi_token_prediction() {
        let config = json!({"num_hidden_layers": 2});
        let tensors = [("model.layers.1.a.weight", &[1][..]), ("model.layers.2.a.weight", &[1])];
        let (weights, _) = sanitized("glm4_moe", &config, &tensors, Towers::Drop).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["model.layers.1.a.weight"]);
    }
}
