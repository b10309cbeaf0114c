//! The cache folder: contents by digest, records by key, and unfinished work, which is only in `tmp/`.
//! Knows nothing of nodes. [`LocalStore::check`] compares a content with its digest before it is trusted.
//!
//! ```text
//! objects/ab/cdef…    the content whose blake3 begins with ab
//! actions/KEY.json    the record of an action, written after the objects it names
//! jobs/KEY.json       which worker makes the action, and as which attempt
//! logs/KEY            what the command of a `run` node wrote
//! measuring/          the journals of measurements that are not finished
//! gc.lock             the GC lock: shared while something is put in place, exclusive for the collector
//! memo, witness       files that only save time: the local state, and the up-to-date stamp; in a cache that
//!                     several people share, each has their own
//! stats               the counters of all builds
//! CACHEDIR.TAG        says that the folder is a cache
//! tmp/run-…/          the workspace of a process, guarded by tmp/run-….lock; KEY/ in it is the output of an
//! action
//! ```
//! The order of writes makes `kill -9` harmless: a content is synced and renamed to its digest first, and the
//! record that names it is written last. A record without content is a miss; content without a record is
//! waste.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::cache_folder::{self, make_folder};
use super::files::{is_content, list, move_file, read_checked, remove};
use super::gc_lock::Shared;
use super::unfinished::{Workspace, open_to_all};
use super::{GcLock, MachineSecret, Stat, StatCache, file_system, owned_file};
use crate::error::Result;
use artifact::{Artifact, AtPath, Digest, FileEntry, IoError};

/// The cache folder of one project.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    secret: MachineSecret,
    /// The end of the names of the files that each user of a shared cache has for themselves.
    user: OnceLock<String>,
    pub(super) workspace: Option<Workspace>,
    shared: Shared,
    /// The contents that this process has put into the cache.
    stored: Mutex<HashSet<PathBuf>>,
    /// How many files were written.
    writes: AtomicU64,
}

impl LocalStore {
    /// Sets the cache folder. Nothing is read or created yet.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            secret: MachineSecret::of_user(),
            user: OnceLock::new(),
            workspace: None,
            shared: Shared::default(),
            stored: Mutex::default(),
            writes: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_secret(root: PathBuf, secret: PathBuf) -> Self {
        Self { secret: MachineSecret::at(secret), ..Self::new(root) }
    }

    /// Checks that the folder may be used as a cache. A missing folder may.
    ///
    /// # Errors
    /// Fails if it is another folder, if another user owns it, or if what is in it came with a checkout.
    pub fn check_folder(&self) -> Result<()> {
        cache_folder::check(&self.root)
    }

    /// Creates the folders that are missing, with the marker of a cache and a `.gitignore`.
    ///
    /// # Errors
    /// Fails if the folder may not be used as a cache, or cannot be written.
    pub fn make_folders(&self) -> Result<()> {
        cache_folder::make(&self.root)
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the workspace of this process. [`Self::prepare`] must be called before.
    pub(crate) fn workspace(&self) -> &Path {
        &self.workspace.as_ref().expect("BUG: `prepare` comes before any write").folder
    }

    /// Returns the secret that marks what this program writes here.
    pub fn secret(&self) -> &MachineSecret {
        &self.secret
    }

    /// Returns the path of the local state.
    pub fn state_path(&self) -> PathBuf {
        self.root.join(format!("memo{}", self.user()))
    }

    /// Returns the path of the up-to-date stamp.
    pub fn stamp_path(&self) -> PathBuf {
        self.root.join(format!("witness{}", self.user()))
    }

    /// Returns nothing for the owner of the cache, and `-UID` for others.
    fn user(&self) -> &str {
        self.user.get_or_init(|| {
            let (user, owner) = (rustix::process::geteuid().as_raw(), fs::metadata(&self.root));
            let is_other = owner.is_ok_and(|owner| owner.uid() != user);
            if is_other { format!("-{user}") } else { String::new() }
        })
    }

    pub(super) fn counters_path(&self) -> PathBuf {
        self.root.join("stats")
    }

    /// Writes the local state, the up-to-date stamp or the counters. This needs no workspace, so it works
    /// even if nothing was built. Errors are ignored, because these files only save time or count.
    pub fn put_cache_file(&self, path: &Path, bytes: &[u8]) {
        let file = open_to_all().prefix("new-").tempfile_in(self.tmp());
        let file = file.and_then(|mut file| file.write_all(bytes).map(|()| file));
        let _ = file.map(|file| file.persist(path));
    }

    /// Returns the path of the content of `digest`, whether it exists or not.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (folder, name) = text.split_at(2);
        self.root.join("objects").join(folder).join(name)
    }

    pub(super) fn action_path(&self, key: &Digest) -> PathBuf {
        self.actions_path().join(format!("{key}.json"))
    }

    pub(super) fn actions_path(&self) -> PathBuf {
        self.root.join("actions")
    }

    /// Returns the path of this user's journal of what is being measured of a subject.
    pub(crate) fn measuring_path(&self, subject: &Digest) -> PathBuf {
        self.measuring().join(format!("{subject}{}.jsonl", self.user()))
    }

    /// Returns the folder of the journals.
    pub(super) fn measuring(&self) -> PathBuf {
        self.root.join("measuring")
    }

    /// Creates the folder of the journals, if it is missing.
    ///
    /// # Errors
    /// Fails if it cannot be created.
    pub(crate) fn make_measuring_folder(&self) -> Result<(), IoError> {
        make_folder(&self.measuring())
    }

    /// Returns the file for the output of the command of `key`. Its folder is made.
    ///
    /// # Errors
    /// Fails if the folder cannot be created.
    pub fn log_file(&self, key: &Digest) -> Result<PathBuf, IoError> {
        make_folder(&self.logs())?;
        Ok(self.log_path(key))
    }

    /// Returns the path of the output of the command of `key`, whether it exists or not.
    pub fn log_path(&self, key: &Digest) -> PathBuf {
        self.logs().join(key.to_string())
    }

    /// Returns the folder of the outputs of commands.
    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Takes the shared GC lock: the collector waits until it is dropped. The lock is reentrant. Hold it
    /// across writes that depend on each other; each of them takes it too.
    ///
    /// # Errors
    /// Fails if the lock file cannot be opened or locked.
    pub fn gc_lock(&self) -> Result<Arc<GcLock>, IoError> {
        let path = self.root.join("gc.lock");
        self.shared.take(&path).at("lock", &path)
    }

    /// Takes the GC lock exclusively: whoever puts something in place waits until it is dropped.
    pub(super) fn gc_lock_exclusive(&self) -> Result<GcLock> {
        cache_folder::make(&self.root)?;
        let path = self.root.join("gc.lock");
        Ok(GcLock::alone(&path).at("lock", &path)?)
    }

    /// Creates an empty folder for the output of the action of `key`.
    ///
    /// # Errors
    /// Fails if the workspace cannot be written.
    pub fn output_folder(&self, key: &Digest) -> Result<PathBuf> {
        let folder = self.workspace().join(key.to_string());
        remove(&folder)?;
        fs::create_dir(&folder).at("create", &folder)?;
        Ok(folder)
    }

    /// Writes `bytes` to `path` atomically: the file has either the old content or the new.
    ///
    /// # Errors
    /// Fails if the workspace or `path` cannot be written.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
        // Two threads may write the same file at once: each has its own until it is renamed.
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.workspace().join(format!("write-{number}"));
        let written = owned_file::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.at("write", path)?;
        move_file(&unfinished, path).at("write", path)
    }

    /// Moves the files of a finished output folder to their digests; returns their states and digests for the
    /// stat cache. Whoever wrote the files has hashed and synced them.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn put_files(&self, folder: &Path, artifact: &Artifact) -> Result<Vec<(Stat, Digest)>> {
        let _gc_lock = self.gc_lock()?;
        let mut stats = Vec::new();
        for file in artifact.files() {
            let object = self.object_path(&file.digest);
            // A content that is there already is not stored again, unless it was altered.
            if !is_content(&object, &file.digest) {
                self.put_object(&folder.join(&file.path), &object)?;
            }
            self.discard_partial(&file.digest)?;
            let metadata = fs::metadata(&object).at("read", &object)?;
            stats.push((Stat::of(&metadata), file.digest));
        }
        remove(folder)?;
        Ok(stats)
    }

    pub(super) fn put_object(&self, written: &Path, object: &Path) -> Result<(), IoError> {
        let parent = object.parent().expect("BUG: an object lies in a folder");
        make_folder(parent)?;
        file_system::protect(written).at("protect", written)?;
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(object.to_owned());
        fs::rename(written, object).at("store", object)?;
        file_system::sync_folder(parent).at("sync", parent)
    }

    /// Removes contents that were put into the cache and that no record names. The caller holds the GC lock.
    pub fn forget(&self, files: &[FileEntry]) {
        for file in files {
            // What cannot be removed is waste, and the collector removes it.
            let _ = remove(&self.object_path(&file.digest));
        }
    }

    /// Whether this process has put the content at `object` into the cache.
    pub(super) fn has_put(&self, object: &Path) -> bool {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).contains(object)
    }

    /// Checks that the content of `file` is there and matches its digest. Reads it only if it may have
    /// changed since it was hashed.
    ///
    /// # Errors
    /// Fails if the content is missing, altered or cannot be read.
    pub fn check(&self, file: &FileEntry, stats: &mut StatCache) -> Result<Stat, Damage> {
        let path = self.object_path(&file.digest);
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let error = io::Error::new(ErrorKind::InvalidInput, "it is not a regular file");
            return Err(Damage::Unreadable { path, error });
        }
        match stats.digest_of(&path) {
            Ok((digest, stat)) if digest == file.digest => Ok(stat),
            Ok((digest, _)) => Err(Damage::Altered { path, digest }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Damage::Missing { path }),
            Err(error) => Err(Damage::Unreadable { path, error }),
        }
    }

    /// Reads a small stored content, and compares it with its digest.
    ///
    /// # Errors
    /// Fails if it is missing, altered, longer than 1 GiB, or not a regular file.
    pub fn read_content(&self, digest: &Digest) -> Result<Vec<u8>, IoError> {
        let path = self.object_path(digest);
        read_checked(&path, digest).at("read", &path)
    }

    /// Returns the digests of all stored contents, sorted.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed.
    pub fn objects(&self) -> Result<Vec<Digest>> {
        let root = self.root.join("objects");
        let mut digests = Vec::new();
        for folder in list(&root)?.into_iter().filter(|folder| !folder.is_symlink()) {
            for object in list(&folder)? {
                let tail = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
                let name = tail(&folder).unwrap_or_default() + &tail(&object).unwrap_or_default();
                digests.extend(name.parse::<Digest>());
            }
        }
        digests.sort();
        Ok(digests)
    }
}

/// What is wrong with a stored content.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not there.
    #[error("{path} is missing")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Its bytes do not match the digest that it is named after.
    #[error("{path} was altered: its content is now {}", digest.short())]
    Altered {
        /// Where it lies.
        path: PathBuf,
        /// What it hashes to.
        digest: Digest,
    },
    /// The system does not let us read it.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// Where it lies.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_may_write_the_same_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = LocalStore::with_secret(folder.path().join("cache"), folder.path().join("secret"));
        store.prepare().unwrap();
        let path = store.root().join("list");
        let write = || (0..200).try_for_each(|_| store.write(&path, b"the same"));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(write)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!(fs::read(&path).unwrap(), b"the same");
        store.finish().unwrap();
    }
}
