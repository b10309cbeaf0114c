//! What the cache keeps so that contents can travel: files that are still arriving, how files are cut into chunks, and
//! the signed statements about actions. Knows nothing of where they come from or go to.
//!
//! ```text
//! tmp/DIGEST.partial       a file that is arriving, guarded by tmp/DIGEST.lock; it outlives its process, for the next to go on
//! chunks/ab/cdef…          how the content whose digest begins with ab is cut
//! attestations/KEY.json    the signed statement about the action of KEY
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::local::{list, remove};
use super::{ChunkList, KeyLock, LocalStore, Stat};
use crate::error::Result;
use artifact::{AtPath, Digest, Interrupted, IoError};

impl LocalStore {
    /// Returns where the file with this digest arrives, and the lock on it; nobody else writes there meanwhile.
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

    /// Removes what has arrived of a file that was made here meanwhile, unless it is arriving right now.
    pub(super) fn discard_partial(&self, digest: &Digest) -> Result<()> {
        let path = self.partial_path(digest);
        if path.exists() {
            let lock = path.with_extension("lock");
            let held = KeyLock::try_take(&lock).at("lock", &lock)?;
            return held.map_or(Ok(()), |_held| Ok(remove(&path)?));
        }
        Ok(())
    }

    /// Moves a file that has arrived whole to its digest; the caller has hashed it.
    pub fn put_partial(&self, arrived: &Path, digest: &Digest) -> Result<Stat, IoError> {
        let object = self.object_path(digest);
        fs::File::open(arrived).and_then(|file| file.sync_all()).at("sync", arrived)?;
        self.put_object(arrived, &object)?;
        Stat::at(&object).at("read", &object)
    }

    fn chunk_list_path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (folder, name) = text.split_at(2);
        self.root().join("chunks").join(folder).join(name)
    }

    /// Returns how the stored content of `digest` is cut, if it is there and that is known.
    pub fn chunk_list(&self, digest: &Digest) -> Option<ChunkList> {
        let size = fs::metadata(self.object_path(digest)).ok()?.len();
        ChunkList::parse(&fs::read(self.chunk_list_path(digest)).ok()?, size).ok()
    }

    /// Keeps how the stored content of `digest` is cut.
    pub fn put_chunk_list(&self, digest: &Digest, chunks: &ChunkList) -> Result<(), IoError> {
        self.write_below(&self.chunk_list_path(digest), &chunks.to_json())
    }

    /// Returns the stored contents whose cutting is known.
    pub fn chunk_lists(&self) -> Result<Vec<(Digest, ChunkList)>> {
        let known = self.objects()?.into_iter();
        Ok(known.filter_map(|digest| Some((digest, self.chunk_list(&digest)?))).collect())
    }

    fn attestation_path(&self, key: &Digest) -> PathBuf {
        self.root().join("attestations").join(format!("{key}.json"))
    }

    /// Returns the signed statement about the action of `key`, as it was kept.
    pub fn attestation(&self, key: &Digest) -> Option<Vec<u8>> {
        fs::read(self.attestation_path(key)).ok()
    }

    /// Keeps the signed statement about the action of `key`.
    pub fn put_attestation(&self, key: &Digest, statement: &[u8]) -> Result<(), IoError> {
        self.write_below(&self.attestation_path(key), statement)
    }

    fn write_below(&self, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        self.write(path, bytes)
    }

    /// Removes the lists and statements about what is not there any more.
    pub fn forget_the_gone(&self) -> Result<()> {
        for folder in list(&self.root().join("chunks"))? {
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
