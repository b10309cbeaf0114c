//! Where a local file differs from a file in the remote, found by fetching one chunk.
//! Knows nothing of why they should be the same.

use std::fs::File;
use std::path::Path;

use super::Share;
use crate::store::{ChunkList, read_range};
use artifact::{Digest, FileEntry};
use weights::tensor::layout;

impl Share {
    /// Describes where the file at `ours` first differs from the remote file `theirs`: by tensor, or else by
    /// byte offset. Returns `None` if that cannot be determined.
    pub fn first_difference(&self, theirs: &FileEntry, ours: &Path) -> Option<String> {
        let list = self.chunks_of(theirs).ok()?;
        let own = ChunkList::of_file(ours, &theirs.path).ok()?;
        let mut pairs = list.places().zip(own.places());
        let ((at, chunk), _) = pairs.find(|(theirs, ours)| theirs != ours)?;
        let fetched =
            self.fetch(theirs, &chunk).ok().filter(|fetched| Digest::of(fetched) == chunk.digest)?;
        let here = read_range(&File::open(ours).ok()?, &(at..at + chunk.length)).ok()?;
        let offset = fetched.iter().zip(&here).position(|(theirs, ours)| theirs != ours)?;
        let byte = at + u64::try_from(offset).ok()?;
        let tensors = layout(ours).map(|layout| layout.tensors).unwrap_or_default();
        let tensor = tensors.into_iter().find(|(_, range)| range.contains(&byte));
        Some(match tensor {
            Some((name, range)) => format!("tensor `{name}` differs from byte {} on", byte - range.start),
            None => format!("from byte {byte} on"),
        })
    }
}
