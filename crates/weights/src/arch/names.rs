//! Splits the path of a module or a tensor at the number of its layer.
//! Knows nothing of architectures.

/// A path that is split at its first number: `model.layers.3.mlp.up_proj` is `mlp.up_proj` in layer 3 of
/// `model.layers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerName<'a> {
    /// The list that the layer is in.
    pub container: &'a str,
    /// The number of the layer in the list, counted from 0.
    pub number: usize,
    /// The rest of the path, below the layer.
    pub rest: &'a str,
}

impl<'a> LayerName<'a> {
    /// Splits a path. Returns `None` if no word between two dots is a number.
    pub fn of(path: &'a str) -> Option<Self> {
        let dots = || path.match_indices('.').map(|(at, _)| at);
        dots().zip(dots().skip(1)).find_map(|(before, after)| {
            let number = path.get(before + 1..after)?.parse().ok()?;
            Some(Self { container: path.get(..before)?, number, rest: path.get(after + 1..)? })
        })
    }

    /// Returns the index of the number among the words of the path, counted from 0.
    pub fn position(&self) -> usize {
        self.container.split('.').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_the_layer() {
        let name = LayerName::of("model.layers.3.mlp.experts.7.up_proj").unwrap();
        assert_eq!(name, LayerName { container: "model.layers", number: 3, rest: "mlp.experts.7.up_proj" });
        assert_eq!(name.position(), 2);
        for path in ["model.embed_tokens", "model.layers.3", "model.layers.99999999999999999999.a"] {
            assert_eq!(LayerName::of(path), None, "{path}");
        }
    }
}
