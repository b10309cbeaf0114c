//! What some file systems lack: locks (Lustre, some NFS), permissions (SMB, exFAT), syncing a folder (some
//! FUSE). The cache goes on without them.
//! Knows nothing of what is locked or written.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::owned_file;

/// Whether a lock was refused because the file system has none.
static NO_LOCKS: AtomicBool = AtomicBool::new(false);

/// Whether the file system of the cache was found to have no locks. Then two builds that run at once may do
/// the same work twice, and nothing of a process that may still run is removed.
pub fn has_no_locks() -> bool {
    NO_LOCKS.load(Ordering::Relaxed)
}

/// Waits for the exclusive lock on an open file.
pub(super) fn lock(file: &File) -> io::Result<()> {
    without(file.lock())
}

/// Waits for the shared lock on an open file.
pub(super) fn lock_shared(file: &File) -> io::Result<()> {
    without(file.lock_shared())
}

/// Takes the exclusive lock on an open file; returns `false` if another process holds it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => without(Err(error)).map(|()| true),
    }
}

fn without(locked: io::Result<()>) -> io::Result<()> {
    match locked {
        Err(error) if lacks(&error) => {
            NO_LOCKS.store(true, Ordering::Relaxed);
            Ok(())
        }
        locked => locked,
    }
}

/// Makes a file read-only, so that nobody edits it by accident.
pub(super) fn protect(path: &Path) -> io::Result<()> {
    match fs::set_permissions(path, Permissions::from_mode(0o444)) {
        // The owner alone may change the mode; on a shared disk that may be somebody else.
        Err(error) if lacks(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// Copies the content of a file, without its mode: not every file system has modes.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = owned_file::create(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Syncs a folder, so that the names in it survive a loss of power.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if lacks(&error) || error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// Returns how many bytes this user may still write to the disk that `path` is on or will be on; `None` if the system
/// does not tell.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let whole = std::path::absolute(path).ok()?;
    let there = whole.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Whether the system says that the file system cannot do it at all.
fn lacks(error: &io::Error) -> bool {
    let lacking = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOLCK];
    error.raw_os_error().is_some_and(|raw| lacking.iter().any(|errno| errno.raw_os_error() == raw))
}
