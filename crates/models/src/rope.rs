//! Rotary position embedding.
//! Knows nothing of attention, nor of how `config.json` stretches the angles.

use anyhow::Result;
use mlx_rs::{Array, fast};

use super::activations::scaled;
use super::rope_scaling::RopeScaling;

/// The arguments of an architecture's rope.
pub(crate) struct RopeArgs<'a> {
    /// The size of one attention head.
    pub(crate) dims: i32,
    pub(crate) base: f32,
    pub(crate) traditional: bool,
    pub(crate) scaling: Option<&'a RopeScaling>,
    pub(crate) max_position_embeddings: Option<i32>,
}

/// Where the angles come from.
#[derive(Clone)]
pub(crate) enum Angles {
    /// A base, and a factor on positions.
    Base { base: f32, scale: f32 },
    /// A base that grows with the text once it is longer than `context`.
    Growing { base: f32, factor: f32, context: i32 },
    /// One wavelength per pair of dimensions, and a factor on the input.
    Explicit { freqs: Array, magnitude: f32 },
}

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
