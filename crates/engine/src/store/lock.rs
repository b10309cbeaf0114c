//! A lock on one key, so that two builds on one cache do not run the same action. The system releases it when
//! the process ends.
//! Knows nothing of what is done under the lock.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{file_system, owned_file};

/// A held lock: an open file that the system unlocks when the process ends, however it ends.
#[derive(Debug)]
pub struct KeyLock {
    /// The lock file, which is removed with the lock.
    path: Option<PathBuf>,
    _file: File,
}

impl KeyLock {
    /// Waits until no other process holds the lock at `path`, and takes it.
    ///
    /// # Errors
    /// Fails if the lock file cannot be opened or locked.
    pub fn wait(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            file_system::lock(&file)?;
            if let Some(lock) = Self::still_there(path, file)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock at `path`. Returns `None` if another process holds it, or has just released it.
    ///
    /// # Errors
    /// Fails if the lock file cannot be opened or locked.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        if file_system::try_lock(&file)? { Self::still_there(path, file) } else { Ok(None) }
    }

    /// Returns the lock, if `file` is still the file at `path`. The previous holder may have removed it
    /// between our open and our lock, and a lock on a removed file excludes nobody.
    fn still_there(path: &Path, file: File) -> io::Result<Option<Self>> {
        let ours = file.metadata()?;
        let there =
            fs::metadata(path).ok().filter(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(there.map(|_| Self { path: Some(path.to_owned()), _file: file }))
    }
}

impl KeyLock {
    /// Gives the lock up, and leaves its file: on a file system without locks it may be that of another
    /// process.
    pub(super) fn leave(mut self) {
        self.path = None;
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // The file is removed while the lock is still held. If this fails, a small empty file stays, which
        // does no harm.
        let _ = self.path.as_ref().map(fs::remove_file);
    }
}

/// Another user's lock file may not be open to our writes. To lock it, reading is enough.
pub(super) fn open(path: &Path) -> io::Result<File> {
    match owned_file::open_for_writing(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => owned_file::open(path),
        file => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_and_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.lock");
        let held = KeyLock::wait(&path).unwrap();
        assert!(KeyLock::try_take(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(KeyLock::try_take(&path).unwrap().is_some());
    }
}
