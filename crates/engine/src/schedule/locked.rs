//! `--locked`: whether an artifact is what `pipeline.lock` says, and if not, where it differs.
//! Knows nothing of how the lock is written.

use super::Scheduler;
use crate::lockfile::{Locked, Lockfile};
use crate::plan::Decision;
use crate::share::SharePolicy;
use crate::verify::{Difference, describe, differences};
use artifact::{Artifact, FileEntry};

impl Scheduler<'_, '_> {
    /// Returns how the artifact of a node differs from the lock, or `None` if it does not.
    pub(super) fn differs(&self, lock: &Lockfile, decision: &Decision, made: &Artifact) -> Option<String> {
        let Some(locked) = lock.get(&self.planner.graph.node(decision.id).name) else {
            return Some(format!(
                "{} does not have it; build without --locked and commit the lock",
                lock.name()
            ));
        };
        let digest = made.reproducible_digest();
        if locked.artifact == digest {
            return None;
        }
        let (is, was) = (digest.short(), locked.artifact.short());
        let mut said = format!("its artifact is {is}, but {} has {was}", lock.name());
        if decision.key != Some(locked.key) {
            let name = lock.name();
            said +=
                &format!("; it was locked with another recipe, so {name} is older than what it is made from");
        } else if let Some(Difference { file, problem }) = self.first_difference(locked, decision, made) {
            said += &format!(": `{file}` {problem}");
        }
        Some(said)
    }

    /// Returns the first file that differs. The files of the locked artifact are known if its record is here
    /// or in the remote. Their contents need not be here.
    fn first_difference(&self, locked: &Locked, decision: &Decision, made: &Artifact) -> Option<Difference> {
        let is_it = |artifact: &Artifact| artifact.reproducible_digest() == locked.artifact;
        // The artifact that was recorded before the stage ran. The store already has the record of the new
        // one.
        let ours = || decision.artifact.clone();
        let theirs = || Some(self.planner.share?.record(&locked.key, &SharePolicy::Made)?.artifact);
        let old = ours().filter(is_it).or_else(|| theirs().filter(is_it))?;
        let describe = |old: &FileEntry, new: &FileEntry| self.describe(old, new);
        differences(&old, made, &describe).into_iter().next()
    }

    fn describe(&self, old: &FileEntry, new: &FileEntry) -> String {
        let (before, now) =
            (self.planner.store.object_path(&old.digest), self.planner.store.object_path(&new.digest));
        if before.exists() {
            return describe(&new.path, &before, &now);
        }
        let difference = self.planner.share.and_then(|share| share.first_difference(old, &now));
        difference.map_or_else(|| "differs".to_owned(), |place| format!("differs: {place}"))
    }
}
