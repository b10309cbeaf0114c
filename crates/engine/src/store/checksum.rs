//! A file format that detects damage: the 32 bytes of the blake3 digest of the content, then the content.
//! Knows nothing of what the content is. A checksum finds damage; it does not prove who wrote the file.

use artifact::Digest;

/// Returns the checksum of `body`, followed by `body`.
pub(super) fn with_checksum(body: &[u8]) -> Vec<u8> {
    [Digest::of(body).as_bytes(), body].concat()
}

/// Returns the content of such a file, or `None` if it is damaged.
pub(super) fn strip_checksum(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, body) = bytes.split_at_checked(32)?;
    (Digest::of(body).as_bytes() == digest).then_some(body)
}
