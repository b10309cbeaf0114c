//! Reads the `pipeline.lock` of a project, updates it after a build, and writes it.
//! Knows nothing of its format.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::Project;
use crate::error::{Context, Result};
use crate::lockfile::{Locked, Lockfile};
use crate::schedule::Summary;

impl Project {
    fn lock_path(&self) -> PathBuf {
        self.root.join("pipeline.lock")
    }

    /// Reads `pipeline.lock`. If it is missing, returns an empty lock.
    pub fn lockfile(&mut self) -> Lockfile {
        let path = self.lock_path();
        // A missing lock has no state to log. A build that then writes one leaves no up-to-date stamp, so no
        // stamp depends on a missing lock.
        let _ = self.state.stats.observe(&path);
        fs::read_to_string(path).map(|text| Lockfile::parse(&text)).unwrap_or_default()
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
        if fs::read_to_string(&path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        let written = self.store.write(&path, text.as_bytes());
        written.within(|| "pipeline.lock could not be written".to_owned())
    }
}
