//! Rotary position embedding.
//! Knows nothing of attention, nor of how `config.json` stretches the angles.

use anyhow::Result;
use mlx_rs::ops::indexing::{Ellipsis, TryIndexOp};
use mlx_rs::{Array, fast, ops};

use super::activations::scaled;
use models::runtime::{Angles, RopeArgs};

/// A rotary position embedding.
#[derive(Clone)]
pub struct Rope {
    args: RopeArgs,
    /// The explicit wavelengths, if the angles are given so.
    freqs: Option<Array>,
}

impl Rope {
    pub(crate) fn new(args: &RopeArgs) -> Result<Self> {
        let freqs = match &args.angles {
            Angles::Explicit { freqs, .. } => Some(Array::from_slice(freqs, &[i32::try_from(freqs.len())?])),
            Angles::Base { .. } | Angles::Growing { .. } => None,
        };
        Ok(Self { args: args.clone(), freqs })
    }

    /// Rotates `x`, which is `[batch, heads, tokens, dims]`. Its first token has position `offset`.
    pub(crate) fn forward(&self, x: &Array, offset: i32) -> Result<Array> {
        let RopeArgs { dims, traditional, angles } = &self.args;
        let (base, scale) = angles.at(*dims, offset.saturating_add(x.dim(2)));
        let stretched = match angles {
            // Only what is turned is scaled.
            Angles::Explicit { magnitude, .. } if *magnitude != 1.0 && x.dim(-1) > *dims => {
                let first = x.try_index((Ellipsis, ..*dims))?;
                let rest = x.try_index((Ellipsis, *dims..))?;
                &ops::concatenate(&[scaled(&first, *magnitude)?, rest], -1)?
            }
            Angles::Explicit { magnitude, .. } if *magnitude != 1.0 => &scaled(x, *magnitude)?,
            _ => x,
        };
        let base = if self.freqs.is_some() { None } else { Some(base) };
        Ok(fast::rope(stretched, *dims, *traditional, base, scale, offset, self.freqs.as_ref())?)
    }
}
