//! The attention mask: which tokens a token may see.
//! Knows nothing of attention, nor of what is cached.

use anyhow::Result;
use mlx_rs::Array;
use mlx_rs::fast::ScaledDotProductAttentionMask;

/// Which tokens a token may see.
pub enum Mask {
    /// All tokens: a single new token comes after all others.
    Open,
    /// The tokens before it, and the token itself.
    Causal,
    /// The tokens whose entry is true, `[tokens, keys]`.
    Array(Array),
}

impl Mask {
    /// Returns the mask for `tokens` new tokens, in a layer that sees all tokens before them.
    pub(crate) fn causal(tokens: i32) -> Self {
        if tokens > 1 { Self::Causal } else { Self::Open }
    }

    /// Returns the mask for `tokens` new tokens after `offset` others, in a layer that sees only the last
    /// `window` tokens.
    ///
    /// The keys are those that a rotating cache holds: at most `window - 1` of the earlier tokens, then the
    /// new tokens.
    pub(crate) fn sliding(tokens: i32, offset: i32, window: i32) -> Result<Self> {
        let held = offset.min(window - 1);
        if tokens == 1 || held + tokens <= window {
            return Ok(Self::causal(tokens));
        }
        let keys = Array::arange::<_, i32>(None, held + tokens, None)?;
        let queries = Array::arange::<_, i32>(held, held + tokens, None)?.expand_dims(1)?;
        let seen = queries.ge(&keys)?.logical_and(queries.lt(keys.add(Array::from_int(window))?)?)?;
        Ok(Self::Array(seen))
    }

    /// Returns which of `held` keys each of the last `tokens` tokens sees, `[tokens, keys]`; `None` if all.
    pub(crate) fn seen(&self, tokens: i32, held: i32) -> Result<Option<Array>> {
        Ok(match self {
            Self::Open => None,
            Self::Causal => {
                let keys = Array::arange::<_, i32>(None, held, None)?;
                let queries = Array::arange::<_, i32>(held - tokens, held, None)?.expand_dims(1)?;
                Some(queries.ge(&keys)?)
            }
            Self::Array(mask) => Some(mask.clone()),
        })
    }

    pub(crate) fn as_argument(&self) -> Option<ScaledDotProductAttentionMask<'_>> {
        match self {
            Self::Open => None,
            Self::Causal => Some(ScaledDotProductAttentionMask::Causal),
            Self::Array(mask) => Some(ScaledDotProductAttentionMask::Array(mask)),
        }
    }
}
