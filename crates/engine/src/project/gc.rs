//! Collecting what is not current, in the cache or in the remote.
//! Knows nothing of how it is decided what goes.

use std::collections::HashSet;
use std::time::Duration;

use super::{Project, ProjectPath, RemoteChoice};
use crate::error::{OrBug, Result};
use crate::share::{RemoteGcPlan, Retention};
use crate::store::{GcPlan, Limits};
use artifact::Digest;

/// How to collect the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// What goes beyond what no record names.
    pub limits: Limits,
    /// Whether to decide only, and remove nothing.
    pub dry_run: bool,
}

/// How to collect the remote.
#[derive(Clone, Debug)]
pub struct RemoteGcOptions {
    /// Records that are not current and older than this go; none if nothing is said.
    pub older_than: Option<Duration>,
    /// What was written within this time stays: it may be on its way into a record.
    pub grace: Duration,
    /// Which remote.
    pub remote: RemoteChoice,
    /// Whether to decide only, and remove nothing.
    pub dry_run: bool,
}

impl Project {
    /// Removes from the cache of the project at `path` what is not current; returns what was removed, or would be. No build
    /// puts anything in place meanwhile.
    ///
    /// # Errors
    /// Fails if the project cannot be opened, or if the cache cannot be read or written.
    pub fn gc(path: &ProjectPath, options: GcOptions) -> Result<GcPlan> {
        let Self { store, artifacts_dir, .. } = Self::open(path)?;
        let collector = store.collector(&artifacts_dir)?;
        // Read only now that the lock is held: a build that ended in between has changed what is current.
        let mut project = Self::open(path)?;
        let plan = collector.plan(&project.current_keys(), options.limits)?;
        if !options.dry_run {
            collector.sweep(&plan, &mut project.state.stats)?;
            project.save_state();
        }
        Ok(plan)
    }

    /// Removes from the remote what is not current; returns what was removed, or would be. Records of other projects on the
    /// same remote count as not current.
    ///
    /// # Errors
    /// Fails if there is no remote, or if it does not answer or refuses. On incomplete knowledge nothing is removed.
    pub fn gc_remote(&mut self, options: &RemoteGcOptions) -> Result<RemoteGcPlan> {
        self.must_connect(&options.remote)?;
        let current = self.current_keys();
        let share = self.share.as_ref().or_bug("a connected project has a remote")?;
        let retention = Retention { older_than: options.older_than, grace: options.grace };
        let plan = share.plan_gc(&current, retention)?;
        if !options.dry_run {
            share.collect(&plan)?;
        }
        Ok(plan)
    }

    /// Returns the keys that the lock has, and those that the nodes of the graph were last built with here.
    fn current_keys(&mut self) -> HashSet<Digest> {
        let lock = self.lockfile();
        let graph = &self.graph;
        let names: HashSet<_> = graph.order().iter().map(|id| graph.node(*id).name.as_str()).collect();
        let built = self.state.nodes.iter().filter(|(name, _)| names.contains(name));
        lock.keys().chain(built.map(|(_, built)| built.key)).collect()
    }
}
