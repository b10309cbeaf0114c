//! The cache folder: contents by digest, action records by key, unfinished work in `tmp/` and nowhere else.
//! Knows nothing of nodes, and takes nothing for granted: what it hands out was checked against its digest.
//!
//! ```text
//! objects/ab/cdef…    the content whose blake3 begins with ab
//! actions/KEY.json    the record of an action, written after the objects it names
//! gc.lock             held by whoever puts something in place, and alone by the collector
//! stats, witness       what only saves time: what this machine remembers, and its last answer with its grounds
//! stats               how often builds hit, counted
//! tmp/KEY/            the output folder of a running action, guarded by tmp/KEY.lock
//! ```
//! The order of writes is what makes `kill -9` harmless: content is synced and renamed to its digest first, the
//! record that names it comes last. A record without content is a miss; content without a record is waste.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::gc_lock::Shared;
use super::{Action, GcLock, KeyLock, Stat, StatCache};
use crate::error::Result;
use artifact::{Artifact, AtPath, Digest, FileEntry, Interrupted, IoError};

/// How often a process that waits for another looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a file that has arrived in part is kept for somebody to go on with it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache folder of one project.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    workspace: Option<Workspace>,
    shared: Shared,
}

/// The folder below `tmp/` where this process keeps what is unfinished; its lock dies with the process, and
/// the next process to come removes what lies in it.
#[derive(Debug)]
struct Workspace {
    folder: PathBuf,
    _lock: KeyLock,
}

impl LocalStore {
    /// Names the cache folder; nothing is read or made yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, workspace: None, shared: Shared::default() }
    }

    /// Makes the folders that are missing, a workspace for this process, and removes what killed processes
    /// left in `tmp/`. Needed before anything is written; a second call does nothing.
    pub fn prepare(&mut self) -> Result<()> {
        if self.workspace.is_some() {
            return Ok(());
        }
        for folder in ["objects", "actions", "tmp"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        self.sweep()?;
        let tmp = self.tmp();
        // The lock comes first: what lies in `tmp/` without one is taken for a dead process's.
        let path = tempfile::Builder::new().prefix("run-").suffix(".lock").tempfile_in(&tmp);
        let path = path.and_then(|file| file.into_temp_path().keep().map_err(|error| error.error));
        let path = path.at("create a file in", &tmp)?;
        let lock = KeyLock::wait(&path).at("lock", &path)?;
        let folder = path.with_extension("");
        fs::create_dir(&folder).at("create", &folder)?;
        self.workspace = Some(Workspace { folder, _lock: lock });
        Ok(())
    }

    /// Removes this process's workspace.
    pub fn finish(&mut self) -> Result<()> {
        self.workspace.take().map_or(Ok(()), |workspace| Ok(remove(&workspace.folder)?))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder for what is unfinished.
    pub fn workspace(&self) -> &Path {
        &self.workspace.as_ref().expect("BUG: `prepare` comes before any write").folder
    }

    /// Returns where the memory of this cache lies.
    pub fn state_path(&self) -> PathBuf {
        self.root.join("memo")
    }

    /// Returns where the witness of the last build that had nothing to do lies.
    pub fn stamp_path(&self) -> PathBuf {
        self.root.join("witness")
    }

    pub(super) fn counters_path(&self) -> PathBuf {
        self.root.join("stats")
    }

    /// Writes the memory or the witness, also when nothing was built and there is no workspace. One that cannot be
    /// written is no failure: the next run is slower, no more.
    pub fn put_cache_file(&self, path: &Path, bytes: &[u8]) {
        let tmp = self.tmp();
        let file =
            tempfile::NamedTempFile::new_in(tmp).and_then(|mut file| file.write_all(bytes).map(|()| file));
        let _ = file.map(|file| file.persist(path));
    }

    /// Returns where the content of `digest` lies, whether it is there or not.
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

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Keeps the collector waiting for as long as the answer lives. Whoever puts several things in place that need each
    /// other holds it over all of them; each of them holds it too.
    pub fn gc_lock(&self) -> Result<Arc<GcLock>, IoError> {
        let path = self.root.join("gc.lock");
        self.shared.take(&path).at("lock", &path)
    }

    /// Keeps everybody waiting who puts something in place.
    pub(super) fn gc_lock_exclusive(&self) -> Result<GcLock, IoError> {
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        let path = self.root.join("gc.lock");
        GcLock::alone(&path).at("lock", &path)
    }

    /// Returns when the oldest process that runs now took its workspace; none if none runs.
    pub(super) fn oldest_running(&self) -> Result<Option<SystemTime>> {
        let mut oldest = None;
        for path in list(&self.tmp())? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !(name.starts_with("run-") && name.ends_with(".lock")) {
                continue;
            }
            // It may be gone since it was listed; so is its process.
            let Ok(began) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
            if KeyLock::try_take(&path).at("lock", &path)?.is_none() {
                oldest = Some(oldest.map_or(began, |oldest: SystemTime| oldest.min(began)));
            }
        }
        Ok(oldest)
    }

    /// Waits for the right to run the action of `key`; no other process runs it meanwhile. `go_on` is asked
    /// while another does, which may take long.
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

    /// Returns an empty folder for the output of the action of `key`.
    pub fn output_folder(&self, key: &Digest) -> Result<PathBuf> {
        let folder = self.workspace().join(key.to_string());
        remove(&folder)?;
        fs::create_dir(&folder).at("create", &folder)?;
        Ok(folder)
    }

    /// Removes the unfinished work whose process is gone: that whose lock can be had.
    pub fn sweep(&self) -> Result<()> {
        for path in list(&self.tmp())? {
            if may_go_on(&path) {
                continue;
            }
            let lock = path.with_extension("lock");
            if let Some(_held) = KeyLock::try_take(&lock).at("lock", &lock)?
                && path != lock
            {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Reads the record under `key`. A record that cannot be read is a miss: it is built again.
    pub fn action(&self, key: &Digest) -> Option<Action> {
        let bytes = fs::read(self.action_path(key)).ok()?;
        let action: Action = serde_json::from_slice(&bytes).ok()?;
        action.artifact.files().iter().all(|file| file.check().is_ok()).then_some(action)
    }

    /// Notes that the record under `key` is in use, for the collector. One that cannot be changed is no failure: what it
    /// names goes earlier, no more.
    pub fn mark_used(&self, key: &Digest) {
        let _ = File::open(self.action_path(key)).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Writes the record under `key`. Called last: every object it names is in place and synced.
    pub fn put_record(&self, key: &Digest, action: &Action) -> Result<(), IoError> {
        let _hold = self.gc_lock()?;
        self.write(
            &self.action_path(key),
            &serde_json::to_vec(action).expect("BUG: a record has a JSON form"),
        )
    }

    /// Writes `bytes` to `path` so that it holds either the old content or the new, never half.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), IoError> {
        let unfinished = self.workspace().join(Digest::of(path.as_os_str().as_encoded_bytes()).short());
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.at("write", path)?;
        move_file(&unfinished, path).at("write", path)
    }

    /// Moves the files of a finished output folder to their digests; returns their states for the stats. The
    /// files were hashed and synced by whoever wrote them.
    pub fn put_files(&self, folder: &Path, artifact: &Artifact) -> Result<Vec<(Stat, Digest)>> {
        let _hold = self.gc_lock()?;
        let mut stats = Vec::new();
        for file in artifact.files() {
            let object = self.object_path(&file.digest);
            // A content that is there already is not stored twice, unless it was altered meanwhile.
            if Digest::of_file(&object).ok().is_none_or(|(digest, _)| digest != file.digest) {
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
        fs::create_dir_all(parent).at("create", parent)?;
        fs::set_permissions(written, Permissions::from_mode(0o444)).at("protect", written)?;
        fs::rename(written, object).at("store", object)?;
        File::open(parent).and_then(|folder| folder.sync_all()).at("sync", parent)
    }

    /// Checks that the content of `file` is there and whole. Reads it only if it changed since it was hashed.
    pub fn check(&self, file: &FileEntry, stats: &mut StatCache) -> Result<Stat, Damage> {
        let path = self.object_path(&file.digest);
        match stats.digest_of(&path) {
            Ok((digest, stat)) if digest == file.digest => Ok(stat),
            Ok((digest, _)) => Err(Damage::Altered { path, digest }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Damage::Missing { path }),
            Err(error) => Err(Damage::Unreadable { path, error }),
        }
    }

    /// Returns the digests of all stored contents, sorted.
    pub fn objects(&self) -> Result<Vec<Digest>> {
        let root = self.root.join("objects");
        let mut digests = Vec::new();
        for folder in list(&root)? {
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
        /// Where it should lie.
        path: PathBuf,
    },
    /// Its bytes are not those it is named after.
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

/// Whether somebody may still go on with a file that has arrived in part: for a day after the last byte.
fn may_go_on(path: &Path) -> bool {
    let written = || fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
    path.extension().is_some_and(|extension| extension == "partial") && written().is_none_or(|age| age < DAY)
}

/// Renames `from` to `to`; where `to` is on another file system, copies to a sibling and renames that.
pub(super) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            let sibling = to.with_extension("partial");
            fs::copy(from, &sibling)?;
            File::open(&sibling)?.sync_all()?;
            fs::rename(&sibling, to)?;
            fs::remove_file(from)
        }
        renamed => renamed,
    }
}

/// Removes a file or a folder with all that is in it; one that is not there is already removed.
pub(super) fn remove(path: &Path) -> Result<(), IoError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Returns what is in a folder; one that is not there is empty.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, IoError> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.at("read", folder)?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("read", folder),
    }
}
