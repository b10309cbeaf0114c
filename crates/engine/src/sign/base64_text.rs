//! Base64 text; the only file that uses the `base64` crate.
//! Knows nothing of what the bytes mean.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use serde::{Deserialize, Deserializer, Serializer};

/// Encodes `bytes` in the standard alphabet, with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes exactly `N` bytes in the form that [`encode`] writes, and no other form, so each key has one text.
pub(super) fn decode_exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    // The length is checked first, so that a long text costs nothing.
    let fits = text.len() == N.div_ceil(3) * 4;
    fits.then(|| STANDARD.decode(text).ok()).flatten()?.try_into().ok()
}

/// Decodes the standard or the URL-safe alphabet, with or without padding. A reader of DSSE must accept both.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { URL_SAFE_PAD_INDIFFERENT } else { STANDARD_PAD_INDIFFERENT };
    engine.decode(text).ok()
}

/// For serde's `with` attribute.
pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes))
}

/// For serde's `with` attribute.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| serde::de::Error::custom("a text is not base64"))
}
