//! Rotary position embedding with the scalings that the supported models use.
//! Knows nothing of attention.

use anyhow::{Context, Result, bail};
use mlx_rs::{Array, fast};
use serde::Deserialize;

/// `rope_scaling` of `config.json`; older configs call `rope_type` just `type`, some write both.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RopeScaling {
    r#type: Option<String>,
    rope_type: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

/// Where the angles come from: a base, or one wavelength per pair of dimensions.
enum Frequencies {
    Base { base: f32, scale: f32 },
    Explicit(Array),
}

pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    frequencies: Frequencies,
}

impl Rope {
    /// `dims` is the size of one attention head.
    pub(crate) fn new(
        dims: i32,
        base: f32,
        traditional: bool,
        scaling: Option<&RopeScaling>,
    ) -> Result<Self> {
        let frequencies = match scaling {
            None => Frequencies::Base { base, scale: 1.0 },
            Some(scaling) => scaling.frequencies(dims, base)?,
        };
        Ok(Self { dims, traditional, frequencies })
    }

    /// Rotates `[batch, heads, tokens, dims]`, whose first token has position `offset`.
    pub(crate) fn forward(&self, x: &Array, offset: i32) -> Result<Array> {
        let (base, scale, freqs) = match &self.frequencies {
            Frequencies::Base { base, scale } => (Some(*base), *scale, None),
            Frequencies::Explicit(freqs) => (None, 1.0, Some(freqs)),
        };
        Ok(fast::rope(x, self.dims, self.traditional, base, scale, offset, freqs)?)
    }
}

impl RopeScaling {
    fn frequencies(&self, dims: i32, base: f32) -> Result<Frequencies> {
        let kind = self.r#type.as_ref().or(self.rope_type.as_ref());
        let factor = || self.factor.context("rope_scaling has no factor");
        match kind.map_or("default", String::as_str) {
            "default" => Ok(Frequencies::Base { base, scale: 1.0 }),
            "linear" => Ok(Frequencies::Base { base, scale: 1.0 / factor()? }),
            "llama3" => {
                let factor = factor()?;
                let stretched = |i| self.llama3(unscaled(base, i, dims), factor);
                let freqs: Vec<f32> = (0..dims).step_by(2).map(stretched).collect();
                Ok(Frequencies::Explicit(Array::from_slice(&freqs, &[dims / 2])))
            }
            other => bail!("rope_type {other:?} is not supported (default, linear, llama3)"),
        }
    }

    /// Stretches long wavelengths by `factor`, keeps short ones, and blends between them.
    fn llama3(&self, freq: f32, factor: f32) -> f32 {
        let low = self.low_freq_factor.unwrap_or(1.0);
        let high = self.high_freq_factor.unwrap_or(4.0);
        let context = self.original_max_position_embeddings.unwrap_or(8192.0);
        let wavelength = 2.0 * std::f32::consts::PI * freq;
        if wavelength > context / low {
            freq * factor
        } else if wavelength > context / high {
            let smooth = (context / wavelength - low) / (high - low);
            freq / ((1.0 - smooth) / factor + smooth)
        } else {
            freq
        }
    }
}

/// MLX's `freqs` are the reciprocals of what papers call frequencies: `base^(i / dims)`.
fn unscaled(base: f32, i: i32, dims: i32) -> f32 {
    base.powf(i as f32 / dims as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3() -> RopeScaling {
        let json = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        assert_eq!(llama3().llama3(1.0, 8.0), 1.0);
        assert_eq!(llama3().llama3(1e5, 8.0), 8e5);
        let blended = llama3().llama3(1000.0, 8.0);
        assert!(blended > 1000.0 && blended < 8000.0);
    }

    #[test]
    fn an_unknown_scaling_is_named() {
        let scaling: RopeScaling = serde_json::from_str(r#"{"type": "yarn"}"#).unwrap();
        let error = Rope::new(8, 1e4, false, Some(&scaling)).err().unwrap();
        assert!(error.to_string().contains("yarn"));
    }
}
