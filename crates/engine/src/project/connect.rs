//! The shared cache of a project: which remote is used, and who is trusted.
//! Knows nothing of what is asked of it.

use super::Project;
use crate::error::Result;
use crate::lockfile::Lockfile;
use crate::plan::share_policy;
use crate::share::{Settings, Share, SharePolicy};
use crate::{Error, sign};
use artifact::{Digest, in_one_line};

/// Which remote is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemoteChoice {
    /// The one in the pipeline file, if there is one.
    #[default]
    FromFile,
    /// None.
    None,
    /// The one at this address.
    Url(String),
}

impl Project {
    /// Takes the remote, if there is one. Nothing is asked of it but the records of what the lock says was built, all at
    /// once: most of what a plan will ask for.
    pub(super) fn connect(&mut self, choice: &RemoteChoice, lock: &Lockfile) -> Result<()> {
        let url = match choice {
            RemoteChoice::FromFile => self.cache.remote.clone(),
            RemoteChoice::None => None,
            RemoteChoice::Url(url) => Some(url.clone()),
        };
        let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(()) };
        let locked = self.graph.order().iter().filter_map(|id| lock.get(&self.graph.node(*id).name));
        let settings = Settings {
            trusted: self.cache.trusted_keys.iter().map(|trusted| trusted.key).collect(),
            // As text: the hints for a cache that cannot be written do not fit a key that cannot be read.
            own: sign::load().map_err(|error| Error::Key(in_one_line(&error)))?,
            locked: locked.map(|locked| (locked.key, locked.artifact)).collect(),
            compress: self.cache.compress,
        };
        let share = Share::new(&url, settings);
        share.prefetch(&self.not_built_here(lock));
        self.share = Some(share);
        Ok(())
    }

    /// Takes the remote, which must be there.
    pub(super) fn must_connect(&mut self, choice: &RemoteChoice) -> Result<()> {
        let lock = self.lockfile();
        self.connect(choice, &lock)?;
        if self.share.is_some() {
            return Ok(());
        }
        let how = "write `cache: {remote: URL}` into pipeline.yaml, set PIPELINE_REMOTE, or use --remote URL";
        Err(Error::Usage(format!("there is no remote; {how}")))
    }

    /// Returns what the user should be told of the remote, and forgets it.
    pub(super) fn take_notices(&self) -> Vec<String> {
        self.share.as_ref().map(Share::notices).unwrap_or_default()
    }

    /// Returns the keys of what the lock says was built, as far as it was not built here.
    fn not_built_here(&self, lock: &Lockfile) -> Vec<(Digest, SharePolicy)> {
        let nodes = self.graph.order().iter().map(|id| self.graph.node(*id));
        let locked = nodes.filter_map(|node| Some((node, lock.get(&node.name)?.key)));
        let unknown = locked.filter(|(node, key)| {
            self.state.nodes.get(&node.name).is_none_or(|built| built.key != *key)
                && self.store.action(key).is_none()
        });
        unknown.map(|(node, key)| (key, share_policy(&node.stage))).collect()
    }
}
