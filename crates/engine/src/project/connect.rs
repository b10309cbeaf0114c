//! Connects a project to a remote: which remote is used, and which keys are trusted.
//! Knows nothing of what the remote is then used for.

use super::Project;
use crate::Error;
use crate::error::Result;
use crate::graph::NodeId;
use crate::lockfile::Lockfile;
use crate::plan::policy_here;
use crate::share::{Settings, Share, SharePolicy};
use crate::sign::signer;
use artifact::Digest;

/// Which remote is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemoteChoice {
    /// The one in the pipeline file, if there is one.
    #[default]
    FromFile,
    /// No remote.
    None,
    /// The one with this URL.
    Url(String),
}

impl Project {
    /// Connects the remote, if there is one, in place of the one before. Requests the records of the locked nodes that were not built
    /// here, all at once, because a plan needs most of them.
    pub(super) fn connect(&mut self, choice: &RemoteChoice, lock: &Lockfile) -> Result<()> {
        self.share = None;
        let url = match choice {
            RemoteChoice::FromFile => self.cache.remote.clone(),
            RemoteChoice::None => None,
            RemoteChoice::Url(url) => Some(url.clone()),
        };
        let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(()) };
        let locked = self.graph.order().iter().filter_map(|id| lock.get(&self.graph.node(*id).name));
        let settings = Settings {
            trusted: self.cache.trusted_keys.iter().map(|trusted| trusted.key).collect(),
            own: signer()?,
            locked: locked.map(|locked| (locked.key, locked.artifact)).collect(),
            lock_written: self.lock_written(),
            compress: self.cache.compress,
        };
        let share = Share::new(&url, settings);
        share.prefetch(&self.not_built_here(lock));
        self.share = Some(share);
        Ok(())
    }

    /// Connects the remote, and fails if there is none.
    pub(super) fn must_connect(&mut self, choice: &RemoteChoice) -> Result<()> {
        let lock = self.lockfile()?;
        self.connect(choice, &lock)?;
        if self.share.is_some() {
            return Ok(());
        }
        let how = "write `cache: {remote: URL}` into pipeline.yaml, set PIPELINE_REMOTE, or use --remote URL";
        Err(Error::Usage(format!("there is no remote; {how}")))
    }

    /// Removes and returns the messages about the remote for the user.
    pub(super) fn take_notices(&self) -> Vec<String> {
        self.share.as_ref().map(Share::notices).unwrap_or_default()
    }

    /// Returns the locked keys that were not built here, each with what is shared of it.
    fn not_built_here(&self, lock: &Lockfile) -> Vec<(Digest, SharePolicy)> {
        let nodes = self.graph.order().iter().map(|id| (*id, &self.graph.node(*id).name));
        let locked = nodes.filter_map(|(id, name)| Some((id, name, lock.get(name)?.key)));
        let unknown = locked.filter(|(_, name, key)| {
            self.state.nodes.get(name).is_none_or(|built| built.key != *key)
                && self.store.action(key).is_none()
        });
        let with_policy = |(id, _, key): (NodeId, &String, Digest)| (key, policy_here(&self.graph, id));
        // Only the worker that measured knows under which class its record is kept.
        let is_named = |policy: &SharePolicy| !matches!(policy, SharePolicy::MeasuredOn(_));
        unknown.map(with_policy).filter(|(_, policy)| is_named(policy)).collect()
    }
}
