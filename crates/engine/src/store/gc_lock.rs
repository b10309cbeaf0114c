//! The lock between builds and the collector: shared while something is put in place, exclusive while it is looked for
//! what may go. Knows nothing of what is put in place or removed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A held lock; the system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct GcLock {
    _file: File,
}

impl GcLock {
    /// Waits until nobody holds the lock at `path`, and takes it alone.
    pub(super) fn alone(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}

/// The shared hold of this process. All its threads have one between them, so that one who holds it already need not
/// wait behind a collector that waits for that very hold.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Weak<GcLock>>);

impl Shared {
    /// Waits until no collector works on `path`, and keeps those to come waiting.
    pub(super) fn take(&self, path: &Path) -> io::Result<Arc<GcLock>> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hold) = current.upgrade() {
            return Ok(hold);
        }
        let file = open(path)?;
        file.lock_shared()?;
        let hold = Arc::new(GcLock { _file: file });
        *current = Arc::downgrade(&hold);
        Ok(hold)
    }
}

/// Unlike the lock of a key the file stays: so nobody can hold one that is removed.
fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
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
