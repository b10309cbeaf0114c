//! What the cache keeps for sharing: partial files, chunk lists, and the signed statements about actions.
//! Knows nothing of where they come from or go to.
//!
//! ```text
//! tmp/DIGEST.partial       a partial file, guarded by tmp/DIGEST.lock; kept so that a later download can
//! continue
//! chunks/ab/cdef…          the chunk list of the content whose blake3 begins with ab
//! attestations/KEY.json    the signed statement about the action of KEY
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::cache_folder::make_folder;
use super::files::{list, remove};
use super::unfinished::try_take;
use super::{ChunkList, KeyLock, LocalStore, Stat, owned_file};

/// The longest chunk list or statement that is read, in bytes.
const LONGEST: u64 = 64 << 20;
use crate::error::Result;
use artifact::{AtPath, Digest, Interrupted, IoError};

impl LocalStore {
    /// Returns the path of the partial file for this digest, and the lock on it. While the lock is held, no
    /// other process writes to the file. `go_on` is called while another process holds the lock.
    ///
    /// # Errors
    /// Fails if the lock file cannot be opened or locked, or if `go_on` fails.
    pub fn partial_file(
        &self,
        digest: &Digest,
        go_on: &dyn Fn() -> Result<(), Interrupted>,
    ) -> Result<(PathBuf, KeyLock)> {
        let lock = self.lock(digest, go_on)?;
        Ok((self.partial_path(digest), lock))
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.tmp().join(format!("{digest}.partial"))
    }

    /// Removes the partial file of a content that was made here meanwhile, unless it is being downloaded
    /// right now.
    pub(super) fn discard_partial(&self, digest: &Digest) -> Result<()> {
        let path = self.partial_path(digest);
        if path.exists() {
            let lock = path.with_extension("lock");
            let held = try_take(&lock, &path)?;
            return held.map_or(Ok(()), |_held| Ok(remove(&path)?));
        }
        Ok(())
    }

    /// Moves a complete partial file to its digest. The caller must have hashed it.
    ///
    /// # Errors
    /// Fails if the file cannot be synced, or if the cache cannot be written.
    pub fn put_partial(&self, partial: &Path, digest: &Digest) -> Result<Stat, IoError> {
        let object = self.object_path(digest);
        fs::File::open(partial).and_then(|file| file.sync_all()).at("sync", partial)?;
        self.put_object(partial, &object)?;
        Stat::at(&object).at("read", &object)
    }

    fn chunk_list_path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (folder, name) = text.split_at(2);
        self.root().join("chunks").join(folder).join(name)
    }

    /// Returns the chunk list of the content of `digest`, if both are stored.
    pub fn chunk_list(&self, digest: &Digest) -> Option<ChunkList> {
        let size = fs::metadata(self.object_path(digest)).ok()?.len();
        let list = owned_file::read(&self.chunk_list_path(digest), LONGEST).ok()?;
        ChunkList::parse(&list, size).ok()
    }

    /// Stores the chunk list of the content of `digest`.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn put_chunk_list(&self, digest: &Digest, chunks: &ChunkList) -> Result<(), IoError> {
        self.write_below(&self.chunk_list_path(digest), &chunks.to_json())
    }

    /// Returns the stored contents that have a chunk list.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed.
    pub fn chunk_lists(&self) -> Result<Vec<(Digest, ChunkList)>> {
        let known = self.objects()?.into_iter();
        Ok(known.filter_map(|digest| Some((digest, self.chunk_list(&digest)?))).collect())
    }

    fn attestation_path(&self, key: &Digest) -> PathBuf {
        self.root().join("attestations").join(format!("{key}.json"))
    }

    /// Returns the signed statement about the action of `key`, if there is one. It is not checked.
    pub fn attestation(&self, key: &Digest) -> Option<Vec<u8>> {
        owned_file::read(&self.attestation_path(key), LONGEST).ok()
    }

    /// Stores the signed statement about the action of `key`.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn put_attestation(&self, key: &Digest, statement: &[u8]) -> Result<(), IoError> {
        self.write_below(&self.attestation_path(key), statement)
    }

    fn write_below(&self, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        self.write(path, bytes)
    }

    /// Removes the chunk lists of contents, and the statements about actions, that are no longer stored.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed, or if a file cannot be removed.
    pub fn forget_the_gone(&self) -> Result<()> {
        let folders = list(&self.root().join("chunks"))?;
        for folder in folders.into_iter().filter(|folder| !folder.is_symlink()) {
            for path in list(&folder)? {
                let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
                let digest = name(&folder).unwrap_or_default() + &name(&path).unwrap_or_default();
                if digest.parse().is_ok_and(|digest| !self.object_path(&digest).exists()) {
                    fs::remove_file(&path).at("remove", &path)?;
                }
            }
        }
        for path in list(&self.root().join("attestations"))? {
            let key = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if key.is_some_and(|key| self.action(&key).is_none()) {
                fs::remove_file(&path).at("remove", &path)?;
            }
        }
        Ok(())
    }
}
