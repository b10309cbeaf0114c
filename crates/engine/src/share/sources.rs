//! Finds chunks in other files of the local cache: two fine-tunings of one base share most of theirs.
//! Knows nothing of the remote.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::Result;
use crate::store::{Chunk, ChunkList, LocalStore, owned_file, read_range};
use artifact::Digest;

/// For each wanted chunk that was found: the path of the stored file, and the offset in bytes.
pub(super) struct Sources {
    places: HashMap<Digest, (PathBuf, u64)>,
}

impl Sources {
    /// Looks for the chunks of `wanted` in two kinds of files in `store`: those whose chunk list is kept, and
    /// those with the same safetensors header, which are cut now. A header gives the name, type, shape and
    /// offset of every tensor.
    pub(super) fn find(store: &LocalStore, wanted: &ChunkList) -> Result<Self> {
        let mut sources = Self { places: HashMap::new() };
        if wanted.count() < 2 {
            return Ok(sources);
        }
        let digests: HashSet<_> = wanted.places().map(|(_, chunk)| chunk.digest).collect();
        let known = store.chunk_lists()?;
        let cut: HashSet<_> = known.iter().map(|(digest, _)| *digest).collect();
        for (object, list) in &known {
            sources.add(store, object, list, &digests);
        }
        let Some((_, header)) = wanted.places().next() else { return Ok(sources) };
        for object in store.objects()?.into_iter().filter(|object| !cut.contains(object)) {
            if let Some(list) = cut_sibling(store, &object, &header) {
                sources.add(store, &object, &list, &digests);
            }
        }
        Ok(sources)
    }

    fn add(&mut self, store: &LocalStore, object: &Digest, list: &ChunkList, wanted: &HashSet<Digest>) {
        for (at, chunk) in list.places().filter(|(_, chunk)| wanted.contains(&chunk.digest)) {
            self.places.entry(chunk.digest).or_insert_with(|| (store.object_path(object), at));
        }
    }

    /// Returns the bytes of a chunk, if a stored file has it and was not altered.
    pub(super) fn get(&self, chunk: &Chunk) -> Option<Vec<u8>> {
        let (path, at) = self.places.get(&chunk.digest)?;
        let bytes = read_range(&owned_file::open(path).ok()?, &(*at..*at + chunk.length)).ok()?;
        (Digest::of(&bytes) == chunk.digest).then_some(bytes)
    }
}

/// Cuts a stored file into chunks, if it begins with the chunk `header`.
fn cut_sibling(store: &LocalStore, object: &Digest, header: &Chunk) -> Option<ChunkList> {
    let path = store.object_path(object);
    let begin = read_range(&owned_file::open(&path).ok()?, &(0..header.length)).ok()?;
    if Digest::of(&begin) != header.digest {
        return None;
    }
    let list = ChunkList::of_file(&path, "model.safetensors").ok()?;
    // The list is kept, so that the file is cut only once. If that fails, it is cut again next time.
    let _ = store.put_chunk_list(object, &list);
    Some(list)
}
