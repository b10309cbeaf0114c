//! Reads the `pipeline.lock` of a project, updates it after a build, and writes it.
//! Knows nothing of its format.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Project, text_file};
use crate::error::{Context, Result};
use crate::lockfile::{Locked, Lockfile};
use crate::schedule::Summary;
use artifact::AtPath;

impl Project {
    /// Each pipeline file has its own lock: that of `pipeline.yaml` is `pipeline.lock`.
    fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Returns the name of the lock, for messages.
    pub(super) fn lock_name(&self) -> String {
        self.lock_path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns when the lock was written, if there is one.
    pub(super) fn lock_written(&self) -> Option<SystemTime> {
        fs::metadata(self.lock_path()).ok()?.modified().ok()
    }

    /// Reads `pipeline.lock`. If it is missing, returns an empty lock.
    ///
    /// # Errors
    /// Fails if the lock cannot be read. An empty lock in its place would lose the commits that it holds.
    pub fn lockfile(&mut self) -> Result<Lockfile> {
        let path = self.lock_path();
        // A missing lock has no state to log. A build that then writes one leaves no up-to-date stamp, so no
        // stamp depends on a missing lock.
        let _ = self.state.stats.observe(&path);
        match text_file::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                Ok(Lockfile::new(&self.lock_name()))
            }
            text => Ok(Lockfile::parse(&self.lock_name(), &text.at("read", &path)?)),
        }
    }

    /// Adds what was built to the lock, and writes it if that changes it. Returns whether it was written.
    pub(super) fn update_lock(&mut self, mut lock: Lockfile, summary: &Summary) -> Result<bool> {
        let before = lock.clone();
        for (id, (key, artifact)) in &summary.done {
            let pin = self.sources.pin(&self.graph, *id);
            lock.set(&self.graph.node(*id).name, Locked { key: *key, artifact: *artifact, pin });
        }
        let names: HashSet<_> =
            self.graph.order().iter().map(|id| self.graph.node(*id).name.as_str()).collect();
        lock.retain(|name| names.contains(name));
        if lock == before && !before.has_strays() {
            return Ok(false);
        }
        self.store.prepare()?;
        self.write_lock(&lock)?;
        Ok(true)
    }

    fn write_lock(&self, lock: &Lockfile) -> Result<()> {
        let (path, text) = (self.lock_path(), lock.render());
        if text_file::read(&path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        let written = self.store.write(&path, text.as_bytes());
        written.within(|| format!("{} could not be written", path.display()))
    }
}
