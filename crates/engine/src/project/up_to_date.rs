//! The shortcut for a build that has nothing to do: its answer is kept in a stamp, with the state of every
//! file that the answer depends on. While none of these states changes, the same question has the same
//! answer, and nothing is planned.
//! Knows nothing of how the answer was found.

use std::path::Path;

use super::{BuildOptions, PlanOptions, Project, ProjectPath, Revisions, workers};
use crate::error::Result;
use crate::hub::HubCache;
use crate::manifest::DEFAULT_DIR;
use crate::store::{LocalStore, UpToDateStamp};
use artifact::Digest;

/// Returns how many nodes are up to date, if that was the outcome of the same build before and nothing has
/// changed since. Waits for no lock and plans nothing. Only the pipeline file says where the cache is, and it
/// is not read here. So this works only for a cache in the default place.
///
/// # Errors
/// Fails if the unfinished work of a killed process cannot be removed.
pub fn nodes_up_to_date(path: &ProjectPath, options: &BuildOptions<'_>) -> Result<Option<usize>> {
    let Some(question) = question(&path.path(), options) else { return Ok(None) };
    let root = path.root();
    let store = LocalStore::new(root.join(DEFAULT_DIR));
    let count = UpToDateStamp::recall(&store.stamp_path(), store.secret(), &root, &question);
    count.map(|count| store.sweep().map(|()| count)).transpose()
}

/// Returns a digest of the options that the answer "nothing to do" depends on, or `None` if the build must do
/// more.
pub(super) fn question(path: &Path, options: &BuildOptions<'_>) -> Option<Digest> {
    let is_plain = options.revisions == Revisions::New && !options.plan.force;
    is_plain.then(|| {
        let PlanOptions { targets, backend, device, .. } = &options.plan;
        let computing = (backend.id(), device.device().id(), options.placing(), workers::own_file());
        Digest::of_json(&(path.file_name(), targets, computing, HubCache::from_env().root()))
    })
}

impl Project {
    /// Writes the stamp: all `count` nodes of `question` are up to date. It depends on the pipeline file, the
    /// lock, the sources, `artifacts/`, the local state and this program itself.
    pub(super) fn write_stamp(&mut self, question: Digest, count: usize) {
        // The stamp is only read from the default place, and nobody reads the environment for it.
        if self.cache.dir != DEFAULT_DIR || self.graph.reads_environment() {
            return;
        }
        // A file that changed just before it was read may change again within the same tick of the file
        // system's clock.
        if self.state.stats.observed().iter().any(|(_, stat)| stat.is_racy(self.opened)) {
            return;
        }
        // These two may be as new as they like, because nothing writes into them. A cache that cannot be
        // written has no local state, and then there is no stamp either.
        let own = [std::env::current_exe(), Ok(self.store.state_path())];
        if !own.into_iter().all(|path| path.is_ok_and(|path| self.state.stats.observe(&path).is_ok())) {
            return;
        }
        let (secret, observed) = (self.store.secret(), self.state.stats.observed());
        if let Some(bytes) = UpToDateStamp::encode(secret, question, count, &self.root, observed) {
            self.store.put_cache_file(&self.store.stamp_path(), &bytes);
        }
    }
}
