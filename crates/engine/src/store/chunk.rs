//! How a file is cut into chunks for the remote: a model at its tensors, any other file into equal parts.
//! Knows nothing of where chunks are uploaded.
//!
//! The rule depends on the file alone, so every machine cuts the same file in the same way, and two
//! fine-tunes of one base share every chunk that training did not change. In a safetensors file, the header
//! is a chunk of its own. Neighbouring tensors of one module (weight, scales, biases) are one chunk, and
//! small modules are joined with the next. No chunk is longer than [`LONGEST`], which limits what the storage
//! transfers at a time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::{Result, require};
use artifact::{AtPath, Digest, start_helpers};
use weights::tensor::layout;

/// The longest chunk, in bytes.
pub const LONGEST: u64 = 64 << 20;

/// [`LONGEST`] as the step of a range.
const LONGEST_STEP: usize = 64 << 20;

/// Neighbouring modules are joined while they are together no longer than this, in bytes.
const SMALL: u64 = 64 << 10;

/// The most chunks that a list may have: ten times what a model of a trillion weights has.
const MOST: usize = 1 << 20;

/// One part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The blake3 digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
}

/// The chunks of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    chunks: Vec<Chunk>,
}

impl ChunkList {
    /// Cuts the file at `path` and hashes its chunks, on as many threads as there are processors. `name` is
    /// the path of the file in its artifact; its ending tells whether the file has tensors.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn of_file(path: &Path, name: &str) -> Result<Self> {
        let file = File::open(path).at("read", path)?;
        let size = file.metadata().at("read", path)?.len();
        let ranges = cut(path, name, size);
        let next = AtomicUsize::new(0);
        let work = || -> std::io::Result<Vec<(u64, Chunk)>> {
            let mut done = Vec::new();
            while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                let digest = Digest::of(&read(&file, range)?);
                done.push((range.start, Chunk { digest, length: range.end - range.start }));
            }
            Ok(done)
        };
        let threads = available_parallelism().map_or(1, usize::from).min(ranges.len());
        let mut chunks = thread::scope(|scope| {
            let others = start_helpers(scope, threads.saturating_sub(1), work);
            let mut done = work()?;
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(done)
        })
        .at("read", path)?;
        chunks.sort_by_key(|(start, _)| *start);
        Ok(Self { chunks: chunks.into_iter().map(|(_, chunk)| chunk).collect() })
    }

    /// Returns the list of a file that is one chunk, of `length` bytes.
    pub fn of_one(digest: Digest, length: u64) -> Self {
        Self { chunks: vec![Chunk { digest, length }] }
    }

    /// Returns the chunks with their offsets in bytes.
    pub fn places(&self) -> impl Iterator<Item = (u64, Chunk)> {
        self.chunks.iter().scan(0, |at, chunk| {
            let begin = *at;
            *at += chunk.length;
            Some((begin, *chunk))
        })
    }

    /// Returns how many chunks there are.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the list as JSON: `[["DIGEST", LENGTH], …]`.
    pub fn to_json(&self) -> Vec<u8> {
        let pairs: Vec<_> = self.chunks.iter().map(|chunk| (chunk.digest, chunk.length)).collect();
        serde_json::to_vec(&pairs).expect("BUG: a list of chunks has a JSON form")
    }

    /// Parses the list of a file of `size` bytes. The list may come from outside, so all of it is checked.
    ///
    /// # Errors
    /// Fails if the list is not valid JSON or has too many chunks, if a chunk is empty or too long, or if the
    /// lengths do not add up to `size`.
    pub fn parse(json: &[u8], size: u64) -> Result<Self> {
        let pairs: Vec<(Digest, u64)> = serde_json::from_slice(json)
            .map_err(|error| Error::Store(format!("the list of chunks is not valid: {error}")))?;
        require!(pairs.len() <= MOST, Store, "the list has {} chunks; the limit is {MOST}", pairs.len());
        let mut total = 0u64;
        for (_, length) in &pairs {
            require!((1..=LONGEST).contains(length), Store, "the list has a chunk of {length} bytes");
            total = total
                .checked_add(*length)
                .ok_or_else(|| Error::Store("the list is longer than any file".to_owned()))?;
        }
        require!(total == size, Store, "the chunks have {total} bytes, but the file has {size}");
        Ok(Self { chunks: pairs.into_iter().map(|(digest, length)| Chunk { digest, length }).collect() })
    }
}

/// Reads a byte range of a file.
///
/// # Errors
/// Fails if the file cannot be read or ends before the range does.
pub fn read(file: &File, range: &Range<u64>) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Returns the byte ranges of the chunks of a file of `size` bytes.
fn cut(path: &Path, name: &str, size: u64) -> Vec<Range<u64>> {
    // A file with this name that is not a safetensors file is cut like any other, because its weights are not
    // read here.
    let layout = if name.ends_with(".safetensors") { layout(path).ok() } else { None };
    let parts = match layout {
        Some(layout) => {
            let tensors = layout.tensors.iter().map(|(name, range)| (module(name), range.clone()));
            let mut parts = join_small(join_modules(tensors));
            parts.insert(0, 0..layout.header);
            parts
        }
        None => std::iter::once(0..size).collect(),
    };
    let pieces = |part: Range<u64>| {
        let begins = (part.start..part.end).step_by(LONGEST_STEP);
        begins.map(move |begin| begin..part.end.min(begin + LONGEST))
    };
    parts.into_iter().flat_map(pieces).collect()
}

/// Returns the module that a tensor belongs to: all but the last part of its name.
fn module(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

/// Joins neighbouring tensors of one module while they fit into one chunk.
fn join_modules<'a>(tensors: impl Iterator<Item = (&'a str, Range<u64>)>) -> Vec<Range<u64>> {
    let mut joined: Vec<(&str, Range<u64>)> = Vec::new();
    for (module, range) in tensors {
        match joined.last_mut() {
            Some((last, part)) if *last == module && range.end - part.start <= LONGEST => {
                part.end = range.end;
            }
            _ => joined.push((module, range)),
        }
    }
    joined.into_iter().map(|(_, range)| range).collect()
}

/// Joins neighbouring parts while they are together no longer than [`SMALL`].
fn join_small(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in parts {
        match joined.last_mut() {
            Some(part) if range.end - part.start <= SMALL => part.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(lengths: &[(&'static str, u64)]) -> Vec<Range<u64>> {
        let mut at = 0;
        let mut place = |length| {
            at += length;
            at - length..at
        };
        let tensors: Vec<_> = lengths.iter().map(|(name, length)| (module(name), place(*length))).collect();
        join_small(join_modules(tensors.into_iter()))
    }

    #[test]
    fn neighbours_of_one_module_travel_together() {
        let cut = ranges(&[
            ("a.norm.weight", 100),
            ("a.q.biases", 1 << 20),
            ("a.q.weight", 3 << 20),
            ("a.v.weight", 1 << 20),
            ("b.norm.weight", 10),
            ("b.post.weight", 10),
        ]);
        let lengths: Vec<_> = cut.iter().map(|range| range.end - range.start).collect();
        assert_eq!(lengths, [100, 4 << 20, 1 << 20, 20]);
    }

    #[test]
    fn no_chunk_is_too_long_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.bin");
        let size = 2 * LONGEST + 5;
        File::create(&path).unwrap().set_len(size).unwrap();
        let list = ChunkList::of_file(&path, "big.bin").unwrap();
        let lengths: Vec<_> = list.places().map(|(at, chunk)| (at, chunk.length)).collect();
        assert_eq!(lengths, [(0, LONGEST), (LONGEST, LONGEST), (2 * LONGEST, 5)]);
        assert_eq!(ChunkList::parse(&list.to_json(), size).unwrap(), list);
    }

    #[test]
    fn a_list_that_lies_is_refused() {
        let digest = Digest::of(b"");
        let refused = |json: String| format!("{:#}", ChunkList::parse(json.as_bytes(), 10).unwrap_err());
        assert!(refused(format!("[[\"{digest}\", 9]]")).contains("have 9 bytes, but the file has 10"));
        assert!(refused(format!("[[\"{digest}\", 0]]")).contains("a chunk of 0 bytes"));
        assert!(refused(format!("[[\"{digest}\", {}]]", LONGEST + 1)).contains("a chunk of"));
        assert!(refused("[[\"../x\", 10]]".to_owned()).contains("not valid"));
        assert!(refused("[".repeat(10_000)).contains("not valid"));
    }
}
