//! How a chunk is stored in the remote: plain, or as a zstd frame if that is shorter by at least a twentieth.
//! Knows nothing of who sends it.
//!
//! The two forms are told apart by length: a frame is shorter than its chunk. A frame is unpacked to the
//! chunk's length and no further, and then hashed.

use crate::store::Chunk;
use artifact::Digest;

/// The zstd level. It is a fast one: weights hardly shrink, and text shrinks at any level.
const LEVEL: i32 = 3;

/// How many bytes of a chunk are compressed as a test before the whole chunk is.
const SAMPLE: usize = 256 << 10;

/// Returns the bytes to upload for a chunk: its zstd frame if that is short enough, else the chunk itself.
pub(super) fn pack(bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    let sample = bytes.get(middle.saturating_sub(SAMPLE / 2)..).unwrap_or(&bytes);
    let sample = sample.get(..SAMPLE).unwrap_or(sample);
    if smaller(sample).is_none() {
        return bytes;
    }
    smaller(&bytes).unwrap_or(bytes)
}

/// Returns the zstd frame of `bytes`, if it is shorter by at least a twentieth.
fn smaller(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, LEVEL).ok()?;
    (packed.len() <= bytes.len() - bytes.len().div_ceil(20)).then_some(packed)
}

/// Returns the bytes of `chunk` from what arrived, or `None` if it is something else. Bytes of the chunk's
/// length are returned unchecked: the whole file is hashed before it enters the store, and hashing everything
/// twice would be slow. A frame is never unpacked beyond the chunk's length, whatever it claims or holds.
pub(super) fn unpack(arrived: Vec<u8>, chunk: &Chunk) -> Option<Vec<u8>> {
    let length = usize::try_from(chunk.length).ok()?;
    if arrived.len() == length {
        return Some(arrived);
    }
    let bytes = zstd::bulk::decompress(&arrived, length).ok()?;
    (bytes.len() == length && Digest::of(&bytes) == chunk.digest).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> Chunk {
        Chunk { digest: Digest::of(bytes), length: bytes.len() as u64 }
    }

    #[test]
    fn text_shrinks_and_noise_stays() {
        let text = b"the same words again, ".repeat(50_000);
        let packed = pack(text.clone());
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpack(packed, &chunk(&text)), Some(text));
        let noise: Vec<u8> = (0..4096u32).flat_map(|n| *Digest::of(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(pack(noise.clone()), noise);
        assert_eq!(pack(Vec::new()), b"");
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(unpack(bomb, &chunk(&[0; 1000])), None);
        assert_eq!(unpack(b"garbage".to_vec(), &chunk(&[0; 8])), None);
    }

    #[test]
    fn a_chunk_that_is_itself_a_frame_is_left_as_it_is() {
        let frame = zstd::bulk::compress(&[0; 1000], 3).unwrap();
        assert_eq!(unpack(frame.clone(), &chunk(&frame)), Some(frame));
    }
}
