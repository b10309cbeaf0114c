//! Files that show damage: 32 bytes of blake3, then the content.
//! Knows nothing of what the content is. A checksum finds damage; it does not prove who wrote the file.

use artifact::Digest;

/// Returns `body` behind its checksum.
pub(super) fn with_checksum(body: &[u8]) -> Vec<u8> {
    [Digest::of(body).as_bytes(), body].concat()
}

/// Returns the body of such a file, unless it is damaged.
pub(super) fn strip_checksum(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, body) = bytes.split_at_checked(32)?;
    (Digest::of(body).as_bytes() == digest).then_some(body)
}
