//! Ed25519 keys and their text forms: `ed25519:BASE64` (public) and `ed25519-secret:BASE64` (secret).
//! Knows nothing of where keys are kept.

use std::fmt;
use std::str::FromStr;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base64_text::{decode_exactly, encode};
use crate::Error;
use crate::error::Result;

const PUBLIC: &str = "ed25519:";
const SECRET: &str = "ed25519-secret:";

/// How many base64 characters of a key are shown where it need not be unique.
const SHORT_CHARS: usize = 8;

/// The public half of a key. It checks signatures and may be shown to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// The text is not a key. The error never repeats the text, because it may be a secret key in the wrong
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It does not begin with the prefix of a key.
    #[error("a {kind} key begins with `{prefix}`")]
    Prefix {
        /// Which half was expected: `public` or `secret`.
        kind: &'static str,
        /// The prefix of that half.
        prefix: &'static str,
    },
    /// It has the prefix of a key, but no valid key after it.
    #[error("after `{0}` come 32 bytes in base64, which are 44 characters")]
    Body(&'static str),
    /// It is a secret key where a public key belongs, so others may read it.
    #[error("this is a secret key: take it away from here; `pipeline keys show` prints the public one")]
    Secret,
}

impl PublicKey {
    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the beginning of the text form, for messages.
    pub fn short(&self) -> String {
        let text = encode(&self.0);
        let start: String = text.chars().take(SHORT_CHARS).collect();
        format!("{PUBLIC}{start}…")
    }

    /// Whether `signature` is the signature of `message` by the secret half.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text.starts_with(SECRET) {
            return Err(InvalidKey::Secret);
        }
        let body = text.strip_prefix(PUBLIC);
        let body = body.ok_or(InvalidKey::Prefix { kind: "public", prefix: PUBLIC })?;
        decode_exactly(body).map(Self).ok_or(InvalidKey::Body(PUBLIC))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The secret half of a key. Whoever has it can sign. It has no `Debug` and no `Display`, so that it is not
/// printed by accident.
pub struct SecretKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SecretKey {
    /// Makes a new key from the operating system's random numbers.
    ///
    /// # Errors
    ///
    /// Fails if the system has no random numbers.
    pub fn generate() -> Result<Self> {
        let seed = ring::rand::generate::<[u8; 32]>(&SystemRandom::new());
        let seed = seed
            .map_err(|_| Error::Key("the system has no random numbers, so no key can be made".to_owned()))?;
        Ok(Self::of_seed(seed.expose()))
    }

    fn of_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("BUG: any 32 bytes are a seed");
        Self { seed, pair }
    }

    /// Returns the text form that [`FromStr`] reads. It contains the secret itself.
    pub fn to_text(&self) -> String {
        format!("{SECRET}{}", encode(&self.seed))
    }

    /// Returns the public half.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref().try_into();
        PublicKey(bytes.expect("BUG: an Ed25519 public key has 32 bytes"))
    }

    /// Returns the Ed25519 signature of `message`: 64 bytes (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl FromStr for SecretKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let body = text.strip_prefix(SECRET);
        let body = body.ok_or(InvalidKey::Prefix { kind: "secret", prefix: SECRET })?;
        decode_exactly(body).map(Self::of_seed).ok_or(InvalidKey::Body(SECRET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2: the seed, the public key, and the signature of the one byte 0x72.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }

    #[test]
    fn signs_as_the_rfc_does() {
        let secret = SecretKey::of_seed(bytes(SEED).try_into().unwrap());
        assert_eq!(secret.public().as_bytes().as_slice(), bytes(KEY));
        assert_eq!(secret.sign(&[0x72]), bytes(SIGNATURE));
        assert!(secret.public().verifies(&[0x72], &bytes(SIGNATURE)));
        assert!(!secret.public().verifies(&[0x73], &bytes(SIGNATURE)));
        assert!(!secret.public().verifies(&[0x72], &[]));
    }

    #[test]
    fn a_key_is_its_text() {
        let secret = SecretKey::generate().unwrap();
        let read: SecretKey = secret.to_text().parse().unwrap();
        assert_eq!(read.public(), secret.public());
        let public = secret.public();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert!(public.to_string().starts_with(public.short().trim_end_matches('…')));
        let json = serde_json::to_string(&public).unwrap();
        assert_eq!(json, format!("\"{public}\""));
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), public);
        let compact = postcard::to_stdvec(&public).unwrap();
        assert_eq!(postcard::from_bytes::<PublicKey>(&compact).unwrap(), public);
        assert_ne!(SecretKey::generate().unwrap().public(), public);
    }

    #[test]
    fn refuses_what_is_not_a_key_without_repeating_it() {
        let good = SecretKey::of_seed([7; 32]);
        let (public, secret) = (good.public().to_string(), good.to_text());
        let wrong = [
            "",
            "ed25519:",
            "ed25519:####",
            public.trim_end_matches('='),
            &public.replace("ed25519", "rsa"),
            &format!("{public}="),
            &format!(" {public}"),
            &secret,
        ];
        for text in wrong {
            let error = text.parse::<PublicKey>().unwrap_err().to_string();
            let body = text.rsplit(':').next().unwrap();
            assert!(body.is_empty() || !error.contains(body), "{error}");
        }
        assert_eq!(secret.parse::<PublicKey>(), Err(InvalidKey::Secret));
        for text in [&public, &secret.replace('=', ""), &secret.replace("ed", "ED")] {
            let error = text.parse::<SecretKey>().err().unwrap().to_string();
            assert!(!error.contains(text.rsplit(':').next().unwrap()), "{error}");
        }
        // The unused last bits of the base64 must be zero, so that a key has one text.
        let last = public.len() - 2;
        let other =
            format!("{}{}=", &public[..last], if public[last..].starts_with('B') { 'C' } else { 'B' });
        assert!(other.parse::<PublicKey>().is_err());
    }
}
