//! The unfinished work in `cache/tmp`: the workspace of this process, the locks, and what dead processes left.
//! Knows nothing of what the work is.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::files::{list, remove};
use super::{KeyLock, LocalStore, cache_folder, file_system};
use crate::error::Result;
use crate::paths;
use artifact::{AtPath, Digest, Interrupted, IoError};

/// How often a process that waits for another tries again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a partial file is kept, so that a later download can continue it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How opening a lock fails that this user did not make.
const NOT_OURS: [ErrorKind; 3] =
    [ErrorKind::PermissionDenied, ErrorKind::IsADirectory, ErrorKind::InvalidInput];

/// The folder below `tmp/` for the unfinished work of this process. Its lock ends with the process, and the
/// next process removes the folder.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) folder: PathBuf,
    _lock: KeyLock,
}

impl LocalStore {
    /// Creates the folders that are missing and a workspace for this process, and removes what killed
    /// processes left in `tmp/`. Must be called before anything is written; a second call does nothing.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn prepare(&mut self) -> Result<()> {
        if self.workspace.is_some() {
            return Ok(());
        }
        cache_folder::make(self.root())?;
        self.sweep()?;
        let tmp = self.tmp();
        // The lock comes first, because a folder in `tmp/` without a lock counts as left by a dead process.
        let path = open_to_all().prefix("run-").suffix(".lock").tempfile_in(&tmp);
        let path = path.and_then(|file| file.into_temp_path().keep().map_err(|error| error.error));
        let path = path.at("create a file in", &tmp)?;
        let lock = KeyLock::wait(&path).at("lock", &path)?;
        let folder = path.with_extension("");
        fs::create_dir(&folder).at("create", &folder)?;
        self.workspace = Some(Workspace { folder, _lock: lock });
        Ok(())
    }

    /// Removes the workspace of this process.
    ///
    /// # Errors
    /// None at present: what cannot be removed is left for the next process.
    pub fn finish(&mut self) -> Result<()> {
        if let Some(workspace) = self.workspace.take() {
            paths::open_up(&workspace.folder);
            // What cannot be removed is left for the next process.
            let _ = remove(&workspace.folder);
        }
        Ok(())
    }

    /// Returns when the oldest running process made its workspace, or `None` if none runs.
    pub(super) fn oldest_running(&self) -> Result<Option<SystemTime>> {
        let mut oldest = None;
        for path in list(&self.tmp())? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !(name.starts_with("run-") && name.ends_with(".lock")) {
                continue;
            }
            // If the file is gone since it was listed, its process has ended.
            let Ok(began) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
            if try_take(&path, &path)?.is_none() {
                oldest = Some(oldest.map_or(began, |oldest: SystemTime| oldest.min(began)));
            }
        }
        Ok(oldest)
    }

    /// Waits for the lock of `key`: no other process runs the same action meanwhile. `go_on` is called while
    /// another process holds the lock, which may take long.
    ///
    /// # Errors
    /// Fails if the lock file cannot be opened or locked, or if `go_on` fails.
    pub fn lock(&self, key: &Digest, go_on: &dyn Fn() -> Result<(), Interrupted>) -> Result<KeyLock> {
        let path = self.tmp().join(format!("{key}.lock"));
        loop {
            if let Some(lock) = KeyLock::try_take(&path).at("lock", &path)? {
                return Ok(lock);
            }
            go_on()?;
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Removes the unfinished work of dead processes: what is in `tmp/` and whose lock is free, except recent
    /// partial files. Names that are not ours stay, and so does what another user left and we may not remove.
    ///
    /// # Errors
    /// Fails if `tmp/` cannot be read or written.
    pub fn sweep(&self) -> Result<()> {
        if self.tmp().is_symlink() {
            return Ok(());
        }
        for path in list(&self.tmp())? {
            if !is_unfinished(&path) {
                continue;
            }
            if path.is_symlink() {
                // We make no links here. The link is removed, and what it points at stays.
                fs::remove_file(&path).at("remove", &path)?;
                continue;
            }
            if may_go_on(&path) {
                continue;
            }
            let lock = path.with_extension("lock");
            let Some(_held) = try_take(&lock, &path)? else { continue };
            if path != lock {
                paths::open_up(&path);
                // What cannot be removed now is left for the next time: a command that is just being ended may still
                // write there.
                let _ = remove(&path);
            }
        }
        Ok(())
    }
}

/// Temporary files that others may read and write as the user's umask says, because several people may share
/// a cache.
pub(super) fn open_to_all() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(0o666));
    builder
}

/// Takes the lock at `path`, which guards `work` in `tmp/`. Returns `None` if another process holds it, or if it
/// belongs to another user who does not share it. Without locks on this file system, work that is younger than
/// a day counts as guarded.
pub(super) fn try_take(path: &Path, work: &Path) -> Result<Option<KeyLock>, IoError> {
    let is_young = age(work).is_none_or(|age| age < DAY);
    let taken = match KeyLock::try_take(path) {
        // It belongs to somebody else, or is no file: we make only files.
        Err(error) if NOT_OURS.contains(&error.kind()) => return Ok(None),
        taken => taken.at("lock", path)?,
    };
    if is_young && file_system::has_no_locks() {
        if let Some(lock) = taken {
            lock.leave();
        }
        return Ok(None);
    }
    Ok(taken)
}

/// Whether `path` has a name as unfinished work in `tmp/` has it: `run-…`, `new-…`, or a digest.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let is_random = |rest: &str| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ["run-", "new-"].iter().filter_map(|prefix| stem.strip_prefix(prefix)).any(is_random)
        || stem.parse::<Digest>().is_ok()
        || name == "stats.lock"
}

/// Whether `path` is a file that is arriving: `DIGEST.partial`.
pub(super) fn is_partial(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".partial"));
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    is_file && name.is_some_and(|name| name.parse::<Digest>().is_ok())
}

/// Returns the time since a file was written.
fn age(path: &Path) -> Option<Duration> {
    fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Whether `path` is a partial file that a later download may continue, because it was written within a day.
fn may_go_on(path: &Path) -> bool {
    is_partial(path) && age(path).is_none_or(|age| age < DAY)
}
