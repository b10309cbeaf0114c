//! The lock between builds and the collector: shared while a build puts something in place, held exclusively
//! while the collector runs.
//! Knows nothing of what is put in place or removed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::file_system;
use super::lock::open;

/// A held lock. The system releases it when the process ends, however it ends. Unlike the file of a key lock,
/// its file is never removed, so no process can hold a lock on a removed file.
#[derive(Debug)]
pub struct GcLock {
    _file: File,
}

impl GcLock {
    /// Waits until nobody holds the lock at `path`, and takes it exclusively.
    pub(super) fn alone(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file_system::lock(&file)?;
        Ok(Self { _file: file })
    }
}

/// The shared lock of this process. All its threads use the same one, so a thread that takes it again does
/// not wait behind a collector that waits for the first one to be released.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Weak<GcLock>>);

impl Shared {
    /// Waits until no collector holds the lock at `path`, and takes it shared. Collectors wait until the last
    /// copy is dropped.
    pub(super) fn take(&self, path: &Path) -> io::Result<Arc<GcLock>> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = current.upgrade() {
            return Ok(lock);
        }
        let file = open(path)?;
        file_system::lock_shared(&file)?;
        let lock = Arc::new(GcLock { _file: file });
        *current = Arc::downgrade(&lock);
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_it_and_one_has_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gc.lock");
        let (ours, theirs) = (Shared::default(), Shared::default());
        let holds = [ours.take(&path).unwrap(), ours.take(&path).unwrap(), theirs.take(&path).unwrap()];
        assert!(open(&path).unwrap().try_lock().is_err());
        drop(holds);
        let alone = GcLock::alone(&path).unwrap();
        assert!(open(&path).unwrap().try_lock_shared().is_err());
        drop(alone);
        ours.take(&path).unwrap();
    }
}
