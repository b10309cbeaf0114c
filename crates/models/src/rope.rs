//! Rotary position embedding.
//! Knows nothing of attention, nor of how `config.json` stretches the angles.

use anyhow::Result;
use mlx_rs::{Array, fast};

use super::activations::scaled;
use super::rope_scaling::{Angles, RopeArgs};

/// A rotary position embedding. Clones share the angles.
#[derive(Clone)]
pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    angles: Angles,
}

impl Rope {
    pub(crate) fn new(args: &RopeArgs) -> Result<Self> {
        let angles = match args.scaling {
            Some(scaling) => scaling.angles(args)?,
            None => Angles::Base { base: args.base, scale: 1.0 },
        };
        Ok(Self { dims: args.dims, traditional: args.traditional, angles })
    }

    /// Rotates `x`, which is `[batch, heads, tokens, dims]`. Its first token has position `offset`.
    pub(crate) fn forward(&self, x: &Array, offset: i32) -> Result<Array> {
        let rope = |x: &Array, base, scale, freqs| {
            fast::rope(x, self.dims, self.traditional, base, scale, offset, freqs)
        };
        Ok(match &self.angles {
            Angles::Base { base, scale } => rope(x, Some(*base), *scale, None)?,
            Angles::Growing { base, factor, context } => {
                let seen = offset.saturating_add(x.dim(2)).max(*context) as f32;
                let growth = factor * seen / *context as f32 - (factor - 1.0);
                let power = self.dims as f32 / (self.dims - 2) as f32;
                rope(x, Some(base * growth.powf(power)), 1.0, None)?
            }
            Angles::Explicit { freqs, magnitude } if *magnitude == 1.0 => rope(x, None, 1.0, Some(freqs))?,
            Angles::Explicit { freqs, magnitude } => rope(&scaled(x, *magnitude)?, None, 1.0, Some(freqs))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rope_scaling::RopeScaling;

    fn rope(dims: i32, scaling: &str) -> Result<Rope> {
        let scaling: RopeScaling = serde_json::from_str(scaling).unwrap();
        let context = Some(4096);
        let (base, traditional) = (1e4, false);
        Rope::new(&RopeArgs {
            dims,
            base,
            traditional,
            scaling: Some(&scaling),
            max_position_embeddings: context,
        })
    }

    #[test]
    fn an_unknown_scaling_is_named() {
        let error = rope(8, r#"{"type": "mrope"}"#).err().unwrap();
        assert!(error.to_string().contains("mrope"));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for scaling in [
            r#"{"rope_type": "linear", "factor": 0}"#,
            r#"{"rope_type": "dynamic"}"#,
            r#"{"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": -1}"#,
            r#"{"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 64, "low_freq_factor": 0,
                "high_freq_factor": 0}"#,
            r#"{"rope_type": "longrope", "long_factor": [1], "original_max_position_embeddings": 64}"#,
            r#"{"rope_type": "longrope", "long_factor": [1, 1, 1, 0], "original_max_position_embeddings": 64}"#,
        ] {
            assert!(rope(8, scaling).is_err(), "{scaling}");
        }
    }
}
