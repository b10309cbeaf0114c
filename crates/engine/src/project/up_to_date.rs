//! The short cut of a build that has nothing to do: its answer is kept with the state of every file that it rests on.
//! While none of these states changes, the same question has the same answer, and nothing is planned.
//! Knows nothing of what was decided.

use std::path::Path;

use super::{BuildOptions, Project, ProjectPath, Revisions};
use crate::error::Result;
use crate::hub::HubCache;
use crate::manifest::DEFAULT_DIR;
use crate::store::{LocalStore, UpToDateStamp};
use artifact::Digest;

/// Returns how many nodes are up to date, if that was the outcome of the same build before and nothing has changed since.
/// It takes no lock and plans nothing. The pipeline file says where the cache is, and it is not read here: a cache that is
/// not in the default place has no short cut.
///
/// # Errors
/// Fails if the unfinished work of a killed process cannot be removed.
pub fn nodes_up_to_date(path: &ProjectPath, options: &BuildOptions<'_>) -> Result<Option<usize>> {
    let Some(question) = question(&path.path(), options) else { return Ok(None) };
    let root = path.root();
    let store = LocalStore::new(root.join(DEFAULT_DIR));
    let count = UpToDateStamp::recall(&store.stamp_path(), &root, &question);
    count.map(|count| store.sweep().map(|()| count)).transpose()
}

/// Returns what is asked, as far as the answer "nothing to do" depends on it; nothing where more is to be done.
pub(super) fn question(path: &Path, options: &BuildOptions<'_>) -> Option<Digest> {
    let is_plain = options.revisions == Revisions::New && !options.plan.force;
    is_plain.then(|| {
        let (targets, backend) = (&options.plan.targets, options.plan.backend.id());
        Digest::of_json(&(path.file_name(), targets, backend, HubCache::from_env().root()))
    })
}

impl Project {
    /// Keeps the answer that all `count` nodes of `question` are up to date, with what this was read from: the pipeline
    /// file, the lock, the sources, `artifacts/`, what this machine remembers, and this very program.
    pub(super) fn write_stamp(&mut self, question: Digest, count: usize) {
        // Nobody would look for it anywhere else.
        if self.cache.dir != DEFAULT_DIR {
            return;
        }
        // What was changed just before it was read may be changed again within the same tick of the clock.
        if self.state.stats.observed().iter().any(|(_, stat)| stat.is_racy(self.opened)) {
            return;
        }
        // These two may be as young as they like: nobody writes into them. In a cache that cannot be written there is no
        // remembered state, and no stamp either.
        let own = [std::env::current_exe(), Ok(self.store.state_path())];
        if !own.into_iter().all(|path| path.is_ok_and(|path| self.state.stats.observe(&path).is_ok())) {
            return;
        }
        if let Some(bytes) = UpToDateStamp::encode(question, count, &self.root, self.state.stats.observed()) {
            self.store.put_cache_file(&self.store.stamp_path(), &bytes);
        }
    }
}
