//! SHA-256, the digest that other tools for attestations know.
//! Knows nothing of what is hashed.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use artifact::{Digest, HashingWriter};

/// A SHA-256 digest, written as 64 hexadecimal digits; `sha256sum` prints the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

/// Reads the file at `path` once; returns its blake3 digest and its SHA-256 digest.
///
/// # Errors
/// Fails if the file cannot be read.
pub(crate) fn hash_file(path: &Path) -> io::Result<(Digest, Sha256)> {
    let mut writer = HashingWriter::new(Hasher(Context::new(&SHA256)));
    io::copy(&mut File::open(path)?, &mut writer)?;
    let (Hasher(context), digest, _) = writer.finish();
    let bytes = context.finish().as_ref().try_into().map_err(io::Error::other)?;
    Ok((digest, Sha256(bytes)))
}

struct Hasher(Context);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let pair = |index: usize| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..32).map(pair).collect();
        let bytes = bytes.filter(|_| text.len() == 64).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a sha256 has 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_sha256sum_and_b3sum() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let (blake3, sha256) = hash_file(file.path()).unwrap();
        assert_eq!(blake3, Digest::of(b"abc"));
        // FIPS 180-2, appendix B.1.
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256.to_string(), text);
        assert_eq!(serde_json::from_str::<Sha256>(&format!("\"{text}\"")).unwrap(), sha256);
        assert!(serde_json::from_str::<Sha256>("\"ba\"").is_err());
    }
}
