//! Blake3 content digests: of bytes, of files, of canonical JSON, and of what is being written.
//! Knows nothing of what the bytes mean or where they are kept.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bytes are read at a time: large enough for sequential disks, small enough for the L2 cache.
const BLOCK_BYTES: usize = 256 * 1024;

/// A blake3 digest, written as 64 hexadecimal digits; `b3sum` prints the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the keyed digest of `bytes`. Without `key`, nobody can compute it for other bytes.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, bytes).as_bytes())
    }

    /// Returns the digest of the canonical JSON of `value`: no white space, and keys in the order of the
    /// type's fields, which is alphabetical in every type that is hashed.
    pub fn of_json(value: &impl Serialize) -> Self {
        // The JSON is hashed as a whole: the JSON writer writes a few bytes at a time, and many small writes
        // cost
        // more than the hashing.
        let text = serde_json::to_vec(value).expect("BUG: a hashed type must have a JSON form");
        Self::of(&text)
    }

    /// Reads the file at `path` once; returns its digest and its length in bytes.
    ///
    /// # Errors
    /// Fails when the file cannot be opened or read.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        Self::of_open_file(File::open(path)?)
    }

    /// Reads the rest of an open file; returns its digest and its length in bytes.
    ///
    /// # Errors
    /// Fails when the file cannot be read.
    pub fn of_open_file(mut file: File) -> io::Result<(Self, u64)> {
        let mut writer = HashingWriter::new(io::sink());
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            writer.write_all(&block[..read])?;
        }
        let (_, digest, length) = writer.finish();
        Ok((digest, length))
    }

    /// Returns the first 12 hexadecimal digits: enough for people, and for names in `artifacts/`.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest of 64 hexadecimal digits")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let lowercase = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| lowercase);
        hash.map(|hash| Self(*hash.as_bytes())).ok_or_else(|| InvalidDigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&blake3::Hash::from_bytes(self.0).to_hex())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// A writer that hashes the bytes it writes, so that an output need not be read again to be hashed.
pub struct HashingWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
    length: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), length: 0 }
    }

    /// Returns the inner writer.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    /// Returns the inner writer, and the digest and the length in bytes of everything that was written.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(*self.hasher.finalize().as_bytes()), self.length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    /// Writes at most one block per call, so that the block is still in the cache when it is hashed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(BLOCK_BYTES)];
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of no bytes, as `b3sum /dev/null` prints it.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn agrees_with_b3sum() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn hashes_while_writing() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"one ").unwrap();
        writer.write_all(b"two").unwrap();
        let (bytes, digest, length) = writer.finish();
        assert_eq!((bytes.as_slice(), digest, length), (&b"one two"[..], Digest::of(b"one two"), 7));
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for text in ["", "af13", &EMPTY.to_uppercase(), &EMPTY.replace('a', "g")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
