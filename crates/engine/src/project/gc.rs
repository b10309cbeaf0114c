//! Garbage collection of a project, in the cache or in the remote.
//! Knows nothing of how it is decided what is removed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Project, ProjectPath, RemoteChoice, text_file};
use crate::error::{OrBug, Result};
use crate::event::{Event, Observer};
use crate::lockfile::Lockfile;
use crate::measurements::Subject;
use crate::recipe::Recipe;
use crate::request;
use crate::share::{RemoteGcPlan, Retention, Share};
use crate::store::{GcPlan, Limits};
use artifact::{AtPath, Digest};
use text::units::bytes;

/// How to collect the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Which records are removed, besides the contents that no record names.
    pub limits: Limits,
    /// Whether to decide only, and remove nothing.
    pub dry_run: bool,
}

/// How to collect the remote.
#[derive(Clone, Debug)]
pub struct RemoteGcOptions {
    /// The age from which records that are not current are removed; if `None`, they are kept.
    pub older_than: Option<Duration>,
    /// Contents that were written within this time are kept, because a record that names them may follow.
    pub grace: Duration,
    /// Which remote.
    pub remote: RemoteChoice,
    /// Whether to decide only, and remove nothing.
    pub dry_run: bool,
}

impl Project {
    /// Removes from the cache of the project at `path` what is not current; returns what was removed, or
    /// would be. Meanwhile no build puts anything in place.
    ///
    /// # Errors
    /// Fails if the project cannot be opened, if its lock cannot be read, or if the cache cannot be read or
    /// written.
    pub fn gc(path: &ProjectPath, options: GcOptions) -> Result<GcPlan> {
        let Self { store, artifacts_dir, .. } = Self::open(path)?;
        let collector = store.collector(&artifacts_dir)?;
        // The project is opened again now that the lock is held, because a build may have changed what is
        // current in between.
        let mut project = Self::open(path)?;
        let plan = collector.plan(&project.current_keys()?, options.limits)?;
        if !options.dry_run {
            collector.sweep(&plan, &mut project.state.stats)?;
            project.save_state();
        }
        Ok(plan)
    }

    /// Removes from the cache what is not current, if the contents take more than `cache: {max_size: …}` allows. Nothing of
    /// this project may be running.
    pub(super) fn collect(&self, observer: &mut dyn Observer) -> Result<()> {
        let Some(limit) = self.cache.max_size else { return Ok(()) };
        if self.store.totals()?.bytes <= limit {
            return Ok(());
        }
        let path = ProjectPath { folder: None, file: self.path.clone(), trusted_keys: None };
        let limits = Limits { max_size: Some(limit), older_than: None };
        let plan = Self::gc(&path, GcOptions { limits, dry_run: false })?;
        if plan.bytes > 0 {
            observer.event(&Event::Collected { records: plan.records.len(), bytes: plan.bytes });
        }
        if plan.left.bytes > limit {
            let message = format!(
                "the cache has {}, and `max_size` is {}; what is left is current or in use",
                bytes(plan.left.bytes),
                bytes(limit)
            );
            observer.event(&Event::Notice { message });
        }
        Ok(())
    }

    /// Removes from the remote what is not current; returns what was removed, or would be. Records of other
    /// projects in the same remote do not count as current.
    ///
    /// # Errors
    /// Fails if there is no remote, or if it refuses or does not answer. Nothing is removed on incomplete
    /// knowledge.
    pub fn gc_remote(&mut self, options: &RemoteGcOptions) -> Result<RemoteGcPlan> {
        self.must_connect(&options.remote)?;
        let current = self.current_keys()?;
        let share = self.share.as_ref().or_bug("a connected project has a remote")?;
        let retention = Retention { older_than: options.older_than, grace: options.grace };
        let plan = share.plan_gc(&current, retention, &request::files_of)?;
        if !options.dry_run {
            share.collect(&plan)?;
        }
        Ok(plan)
    }

    /// Returns the keys in the locks of all pipeline files beside this one. They share its cache, as a rule.
    fn locked_keys(&mut self) -> Result<HashSet<Digest>> {
        let own = self.lockfile()?;
        let folder = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        let entries = fs::read_dir(folder).at("read", folder)?.flatten().map(|entry| entry.path());
        let locks = entries.filter(|path| path.extension().is_some_and(|ending| ending == "lock"));
        let texts = locks.filter_map(|path| text_file::read(&path).ok());
        let others = texts.flat_map(|text| Lockfile::parse("", &text).keys().collect::<Vec<_>>());
        Ok(own.keys().chain(others).collect())
    }

    /// Returns the keys in the lock, the keys that the nodes of the graph were last built with here, and those of what was
    /// measured for these.
    fn current_keys(&mut self) -> Result<HashSet<Digest>> {
        let locked = self.locked_keys()?;
        let graph = &self.graph;
        let names: HashSet<_> = graph.order().iter().map(|id| graph.node(*id).name.as_str()).collect();
        let built = self.state.nodes.iter().filter(|(name, _)| names.contains(name));
        let keys: HashSet<_> = locked.into_iter().chain(built.map(|(_, built)| built.key)).collect();
        let recipes = keys.iter().filter_map(|key| Recipe::read(&self.store.action(key)?.recipe));
        let subjects: Vec<_> = recipes.flat_map(|recipe| Subject::all(&recipe).into_values()).collect();
        let members = self.share.as_ref().map(Share::members).unwrap_or_default();
        let measured = subjects
            .iter()
            .flat_map(|subject| members.iter().map(|member| subject.key_of(member)).chain([subject.key()]));
        Ok(keys.iter().copied().chain(measured).collect())
    }
}
