//! Resolves the sources on the hub to commits, before a build.
//! Knows nothing of downloads. Only a build asks the hub; no other command does.

use super::{Project, Revisions};
use crate::error::{Context, Result, fail};
use crate::graph::NodeId;
use crate::hub;
use crate::manifest::Source;
use text::yaml::At;

impl Project {
    /// Resolves the sources of `ids` that are on the hub. `revisions` says which of them, and whether the hub
    /// may be asked.
    pub(super) fn resolve(&mut self, ids: &[NodeId], revisions: Revisions) -> Result<()> {
        for &id in ids {
            let Some(source) = &self.graph.node(id).source else { continue };
            let Some(asked) = source.hub() else { continue };
            let unknown = self.sources.unresolved(&self.graph, id).is_some();
            if !unknown && revisions != Revisions::Update {
                continue;
            }
            let place = self.place(id, source.at);
            if revisions == Revisions::Locked {
                fail!(
                    Locked,
                    "{place}: {} has no commit of `{asked}`; build without --locked and commit the lock",
                    self.lock_name()
                );
            }
            let commit = hub::resolve(self.sources.cache(), asked);
            let commit = commit.within(|| format!("{place}: cannot resolve `{asked}`"))?;
            self.sources.resolve(id, commit);
        }
        Ok(())
    }

    /// Returns the place of a source in the pipeline file, and its node, for messages.
    fn place(&self, id: NodeId, At { line, column }: At) -> String {
        format!("{}:{line}:{column}: node `{}`", self.path.display(), self.graph.node(id).name)
    }

    /// Whether the source of the node is on the hub. Then it is not here until a build has downloaded it.
    pub(super) fn is_on_hub(&self, id: NodeId) -> bool {
        self.graph.node(id).source.as_ref().and_then(Source::hub).is_some()
    }
}
