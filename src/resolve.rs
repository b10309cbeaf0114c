//! Asking the hub which commits the sources are, before a build: what the lock does not hold, or all with `--update`.
//! Knows nothing of downloads. The other commands never ask.

use anyhow::{Context, bail};

use crate::project::Project;
use engine::graph::NodeId;
use engine::hub;
use engine::manifest::Source;
use text::yaml::At;

/// Which sources are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Those that the lock does not hold.
    New,
    /// All: `--update`.
    All,
    /// None: `--locked`, so the lock must hold all.
    None,
}

/// Makes the commits of the sources of `ids` known.
pub(crate) fn resolve(project: &mut Project, ids: &[NodeId], ask: Ask) -> anyhow::Result<()> {
    for &id in ids {
        let Some(source) = &project.graph.node(id).source else { continue };
        let Some(asked) = source.hub() else { continue };
        let unknown = project.sources.unresolved(&project.graph, id).is_some();
        if !unknown && ask != Ask::All {
            continue;
        }
        let place = place(project, id, source.at);
        if ask == Ask::None {
            bail!(
                "{place}: pipeline.lock has no commit of `{asked}`; build without --locked and commit the lock"
            );
        }
        let commit = hub::resolve(project.sources.cache(), asked);
        let commit = commit.with_context(|| format!("{place}: cannot resolve `{asked}`"))?;
        project.sources.resolve(id, commit);
    }
    Ok(())
}

/// Says where a source is written, and whose it is.
fn place(project: &Project, id: NodeId, At { line, column }: At) -> String {
    format!("{}:{line}:{column}: node `{}`", project.path.display(), project.graph.node(id).name)
}

/// Whether the node's source is on the hub: then it is not here before the build has downloaded it.
pub(crate) fn is_remote(project: &Project, id: NodeId) -> bool {
    project.graph.node(id).source.as_ref().and_then(Source::hub).is_some()
}
