//! Reads `rope_scaling` of `config.json`: how a model's angles are stretched over a longer text.
//! Knows nothing of attention. Mirrors mlx-lm's `initialize_rope`.
//!
//! Powers and logarithms are those of libm, so that the angles are the same on every system.

use std::f32::consts::PI;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::runtime::{Angles, RopeArgs};

/// The most dimensions of a head that are believed.
const MOST_DIMS: i32 = 1 << 16;

/// The rope of an architecture, as its configuration has it.
pub(crate) struct RopeConfig<'a> {
    /// How many dimensions of a head are turned.
    pub(crate) dims: i32,
    pub(crate) base: f32,
    pub(crate) traditional: bool,
    pub(crate) scaling: Option<&'a RopeScaling>,
    pub(crate) max_position_embeddings: Option<i32>,
}

impl RopeConfig<'_> {
    /// Sets whether neighbours are turned together.
    #[must_use]
    pub(crate) fn traditional(self, traditional: bool) -> Self {
        Self { traditional, ..self }
    }

    /// Sets how many dimensions of a head are turned.
    #[must_use]
    pub(crate) fn turning(self, dims: i32) -> Self {
        Self { dims, ..self }
    }

    /// Returns the arguments for the runtime.
    pub(crate) fn args(&self) -> Result<RopeArgs> {
        self.args_of(self.dims)
    }

    /// Returns the arguments for the runtime, where `proportional` scaling turns only the first `turned` dimensions.
    ///
    /// # Errors
    /// Fails if a head is larger than any is, or if a number of the scaling is impossible.
    pub(crate) fn args_of(&self, turned: i32) -> Result<RopeArgs> {
        // Some kinds have a number for each pair of dimensions.
        ensure!(self.dims <= MOST_DIMS, "{} dimensions of a head are turned", self.dims);
        let angles = match self.scaling {
            Some(scaling) if scaling.kind() == "proportional" => scaling.proportional(self, turned)?,
            Some(scaling) => scaling.angles(self)?,
            None => Angles::Base { base: self.base, scale: 1.0 },
        };
        Ok(RopeArgs { dims: self.dims, traditional: self.traditional, angles })
    }
}

/// `rope_scaling` as it is written. Older configs spell `rope_type` as `type`; some write both.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RopeScaling {
    r#type: Option<String>,
    rope_type: Option<String>,
    factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    mscale: Option<f32>,
    mscale_all_dim: Option<f32>,
    long_factor: Option<Vec<f32>>,
}

impl RopeScaling {
    fn angles(&self, args: &RopeConfig) -> Result<Angles> {
        let base = args.base;
        Ok(match self.kind() {
            // The positions of a text alone are the same in all sections of `mrope`.
            "default" | "mrope" => Angles::Base { base, scale: 1.0 },
            "linear" => Angles::Base { base, scale: 1.0 / self.factor()? },
            "dynamic" => {
                let context = args.max_position_embeddings.filter(|context| *context > 0);
                let context = context.context("dynamic rope without max_position_embeddings")?;
                ensure!(args.dims > 2, "dynamic rope of {} dimensions", args.dims);
                Angles::Growing { base, factor: self.factor()?, context }
            }
            "llama3" => self.llama3(args)?,
            "yarn" | "deepseek_yarn" | "telechat3-yarn" => self.yarn(args)?,
            "longrope" | "su" => self.longrope(args)?,
            other => bail!(
                "rope_type {other:?} is not supported (supported: deepseek_yarn, default, dynamic, linear, llama3, \
                 longrope, mrope, proportional, su, telechat3-yarn, yarn)"
            ),
        })
    }

    /// Returns the kind of scaling.
    pub(crate) fn kind(&self) -> &str {
        let named = self.r#type.as_ref().filter(|kind| !kind.is_empty());
        named.or(self.rope_type.as_ref()).map_or("default", String::as_str)
    }

    /// Sets the context of the unscaled model, if it is not given.
    #[must_use]
    pub(crate) fn of_context(self, context: f32) -> Self {
        let original_max_position_embeddings = self.original_max_position_embeddings.or(Some(context));
        Self { original_max_position_embeddings, ..self }
    }

    /// Returns the factor that Yarn has on queries and on keys of all heads, beside that on what is turned:
    /// `mscale_all_dim` of DeepSeek's models.
    pub(crate) fn magnitude_of_all(&self) -> f32 {
        let factor = self.factor.unwrap_or(1.0);
        match self.mscale_all_dim {
            Some(mscale) if mscale != 0.0 => yarn_magnitude(factor, mscale),
            _ => 1.0,
        }
    }

    fn factor(&self) -> Result<f32> {
        let factor = self.factor.context("rope_scaling has no factor")?;
        ensure!(factor > 0.0 && factor.is_finite(), "rope_scaling has factor {factor}");
        Ok(factor)
    }

    /// Stretches long wavelengths by `factor`, keeps short ones, and blends in between.
    fn llama3(&self, args: &RopeConfig) -> Result<Angles> {
        let factor = self.factor()?;
        let low = self.low_freq_factor.unwrap_or(1.0);
        let high = self.high_freq_factor.unwrap_or(4.0);
        let context = self.original_max_position_embeddings.unwrap_or(8192.0);
        ensure!(low > 0.0 && high > 0.0, "llama3 rope with frequency factors {low} and {high}");
        explicit(1.0, args, |_, freq| {
            let wavelength = 2.0 * PI * freq;
            if wavelength > context / low {
                freq * factor
            } else if wavelength > context / high {
                let smooth = (context / wavelength - low) / (high - low);
                freq / ((1.0 - smooth) / factor + smooth)
            } else {
                freq
            }
        })
    }

    /// Like `llama3`, but blends with a ramp over the dimensions, and makes attention sharper.
    fn yarn(&self, args: &RopeConfig) -> Result<Angles> {
        let factor = self.factor()?;
        let context = self.original_max_position_embeddings.unwrap_or(4096.0);
        let dims = args.dims as f32;
        // Returns the dimension whose wave makes `turns` turns within the context.
        let turning =
            |turns: f32| dims * libm::logf(context / (turns * 2.0 * PI)) / (2.0 * libm::logf(args.base));
        let low = turning(self.beta_fast.unwrap_or(32.0));
        let high = turning(self.beta_slow.unwrap_or(1.0));
        // Checked here, because `max` and `min` would ignore a NaN.
        ensure!(low.is_finite() && high.is_finite(), "yarn rope over {context} tokens");
        let (low, high) = (low.floor().max(0.0), high.ceil().min(dims - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        let all = yarn_magnitude(factor, self.mscale_all_dim.unwrap_or(0.0));
        let magnitude = yarn_magnitude(factor, self.mscale.unwrap_or(1.0)) / all;
        explicit(magnitude, args, |pair, freq| {
            let stretched = factor * freq;
            let kept = 1.0 - ((pair - low) / (high - low)).clamp(0.0, 1.0);
            stretched * freq / (stretched * kept + freq * (1.0 - kept))
        })
    }

    /// The scaling of Gemma 4: wavelengths are those of a whole head, but only the first dimensions are turned.
    fn proportional(&self, args: &RopeConfig, turned: i32) -> Result<Angles> {
        let factor = self.factor.unwrap_or(1.0);
        ensure!((0..=args.dims).contains(&turned), "{turned} dimensions of {} are turned", args.dims);
        let freqs = (0..args.dims / 2).map(|pair| match 2 * pair < turned {
            true => factor * libm::powf(args.base, (2 * pair) as f32 / args.dims as f32),
            false => f32::INFINITY,
        });
        let freqs: Vec<f32> = freqs.collect();
        ensure!(freqs.iter().all(|freq| *freq > 0.0), "rope_scaling gives wavelengths that are none");
        Ok(Angles::Explicit { freqs, magnitude: 1.0 })
    }

    /// The scaling of Phi models, also called su: each wavelength has its own factor.
    fn longrope(&self, args: &RopeConfig) -> Result<Angles> {
        let factors = self.long_factor.as_ref().context("longrope without long_factor")?;
        let pairs = args.dims / 2;
        let found = factors.len();
        ensure!(i32::try_from(found)? == pairs, "{found} values in long_factor for {pairs} pairs");
        let original = self.original_max_position_embeddings;
        let original = original.context("longrope without original_max_position_embeddings")?;
        let context = args.max_position_embeddings.context("longrope without max_position_embeddings")?;
        let growth = context as f32 / original;
        let magnitude =
            if growth <= 1.0 { 1.0 } else { (1.0 + libm::logf(growth) / libm::logf(original)).sqrt() };
        let mut factors = factors.iter();
        explicit(magnitude, args, |_, freq| factors.next().map_or(f32::NAN, |factor| factor * freq))
    }
}

/// Returns Yarn's factor on queries and keys.
fn yarn_magnitude(factor: f32, mscale: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::logf(factor) + 1.0 }
}

/// Returns explicit angles. For each pair of dimensions, `stretch` maps the pair's number and its unscaled
/// `freq` to the new one.
///
/// A `freq` is what MLX calls so: unscaled, it is `base^(i / dims)`, the reciprocal of what papers call a
/// frequency.
fn explicit(magnitude: f32, args: &RopeConfig, mut stretch: impl FnMut(f32, f32) -> f32) -> Result<Angles> {
    let unscaled = |i: i32| libm::powf(args.base, i as f32 / args.dims as f32);
    let freqs: Vec<f32> = (0..args.dims / 2).map(|pair| stretch(pair as f32, unscaled(2 * pair))).collect();
    let sound = magnitude.is_finite() && freqs.iter().all(|freq| freq.is_finite() && *freq > 0.0);
    ensure!(sound, "rope_scaling gives wavelengths that are none");
    Ok(Angles::Explicit { freqs, magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(dims: i32, scaling: &str) -> Result<RopeArgs> {
        let scaling: RopeScaling = serde_json::from_str(scaling).unwrap();
        let context = Some(4096);
        let (base, traditional) = (1e4, false);
        let config =
            RopeConfig { dims, base, traditional, scaling: Some(&scaling), max_position_embeddings: context };
        config.args()
    }

    #[test]
    fn an_unknown_scaling_is_named() {
        let error = rope(8, r#"{"type": "spiral"}"#).err().unwrap();
        assert!(error.to_string().contains("spiral"));
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
