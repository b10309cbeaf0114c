//! Where the source of each node lies: in the project, or at a commit in the hub's cache.
//! Knows nothing of the network: a commit comes from the pipeline file, from the lock, or from whoever asked the hub.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::graph::{Graph, NodeId};
use crate::hub::HubCache;
use crate::lockfile::{Lockfile, Pin};
use crate::manifest::{Place, Source};
use crate::origin::{Commit, HubSource, Origin};
use artifact::Digest;

/// The sources of a graph, with the commits that are known.
#[derive(Debug)]
pub struct Sources {
    /// The folder of the pipeline file.
    root: PathBuf,
    cache: HubCache,
    commits: HashMap<NodeId, Commit>,
    /// What the files of these commits were when they were last downloaded, by whoever wrote the lock.
    contents: HashMap<NodeId, Digest>,
}

impl Sources {
    /// Names the folders; no commit is known yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, cache: HubCache::from_env(), commits: HashMap::new(), contents: HashMap::new() }
    }

    /// Takes over the commits that `lock` holds for what the pipeline file asks for now.
    pub fn use_locked(&mut self, graph: &Graph, lock: &Lockfile) {
        for &id in graph.order() {
            let Some(hub) = hub_source(graph, id) else { continue };
            let locked = lock.get(&graph.node(id).name);
            let held = locked.and_then(|locked| Some((locked.artifact, locked.pin.as_ref()?)));
            let held = held.filter(|(_, pin)| pin.source == hub.to_string());
            self.contents.extend(held.map(|(artifact, _)| (id, artifact)));
            let held = held.map(|(_, pin)| pin.commit.clone());
            self.commits.extend(hub.commit().or(held).map(|commit| (id, commit)));
        }
    }

    /// Says which commit the source of a node is.
    pub fn resolve(&mut self, id: NodeId, commit: Commit) {
        if self.commits.insert(id, commit.clone()) != Some(commit) {
            self.contents.remove(&id);
        }
    }

    /// Returns the digest of the files of a node whose source is on the hub, if the lock holds it.
    pub fn content(&self, id: NodeId) -> Option<Digest> {
        self.contents.get(&id).copied()
    }

    /// Returns the hub's cache.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }

    /// Returns the source on the hub of a node whose commit is not known.
    pub fn unresolved<'a>(&self, graph: &'a Graph, id: NodeId) -> Option<&'a HubSource> {
        hub_source(graph, id).filter(|_| !self.commits.contains_key(&id))
    }

    /// Returns the repository and commit of a node whose source is on the hub, if the commit is known.
    pub fn own_origin(&self, graph: &Graph, id: NodeId) -> Option<Origin> {
        let repo = hub_source(graph, id)?.repo.clone();
        Some(Origin { commit: self.commits.get(&id)?.clone(), repo })
    }

    /// Returns the repository and commit that the weights of a node descend from, if its base is on the hub.
    pub fn origin(&self, graph: &Graph, id: NodeId) -> Option<Origin> {
        match graph.inputs(id).find(|(role, _)| *role == "model") {
            Some((_, model)) => self.origin(graph, model),
            None => self.own_origin(graph, id),
        }
    }

    /// Returns what the lock is to hold of a node whose source is on the hub.
    pub fn pin(&self, graph: &Graph, id: NodeId) -> Option<Pin> {
        let commit = self.commits.get(&id)?.clone();
        Some(Pin { commit, source: hub_source(graph, id)?.to_string() })
    }

    /// Returns where the source of a node lies, downloaded or not; none if it has none or its commit is not known.
    pub fn path(&self, graph: &Graph, id: NodeId) -> Option<PathBuf> {
        match &graph.node(id).source.as_ref()?.place {
            Place::Disk(path) => Some(self.root.join(path)),
            Place::Hub(_) => Some(self.cache.snapshot(&self.own_origin(graph, id)?)),
        }
    }

    /// Returns what `artifacts/NAME` points at for a node that is its source; none for other nodes.
    pub fn target(&self, graph: &Graph, id: NodeId) -> Option<PathBuf> {
        let node = graph.node(id);
        match &node.source.as_ref().filter(|_| node.stage.is_reference())?.place {
            // `artifacts/` lies in the root, so a relative source is one level up from it.
            Place::Disk(path) if Path::new(path).is_relative() => Some(Path::new("..").join(path)),
            _ => self.path(graph, id),
        }
    }
}

fn hub_source(graph: &Graph, id: NodeId) -> Option<&HubSource> {
    graph.node(id).source.as_ref().and_then(Source::hub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lockfile::Locked;
    use crate::manifest::Manifest;

    const NODES: &str = "  base: {stage: base, source: 'hf:org/name'}\n  other: {stage: base, source: folder}\n  \
         l: {stage: adapter, source: 'hf:org/lora'}\n  f: {stage: fuse, model: base, adapter: l}\n  \
         q: {stage: quantize, model: f, bits: 4}\n  p: {stage: quantize, model: other, bits: 4}\n";

    fn commit() -> Commit {
        "1".repeat(40).parse().unwrap()
    }

    fn graph() -> Graph {
        Graph::check(Manifest::parse(&format!("version: 1\nnodes:\n{NODES}")).unwrap()).unwrap()
    }

    fn held(source: &str) -> Sources {
        let mut lock = Lockfile::default();
        let digest = Digest::of(b"");
        let pin = Some(Pin { commit: commit(), source: source.to_owned() });
        lock.set("base", Locked { key: digest, artifact: digest, pin });
        let mut sources = Sources::new(PathBuf::from("/project"));
        sources.use_locked(&graph(), &lock);
        sources
    }

    #[test]
    fn weights_descend_through_models_only() {
        let (graph, sources) = (graph(), held("hf:org/name@main"));
        let origin = |name: &str| {
            let id = graph.find(name).unwrap();
            sources.origin(&graph, id).map(|origin| origin.to_string())
        };
        let base = Some(format!("org/name@{}", commit()));
        assert_eq!([origin("base"), origin("f"), origin("q")], [base.clone(), base.clone(), base]);
        assert_eq!([origin("l"), origin("p"), origin("other")], [None, None, None]);
    }

    #[test]
    fn the_lock_holds_only_what_is_still_asked_for() {
        let graph = graph();
        let base = graph.find("base").unwrap();
        assert_eq!(held("hf:org/name@main").unresolved(&graph, base), None);
        assert!(held("hf:org/name@v1").unresolved(&graph, base).is_some());
        assert!(held("hf:org/other@main").unresolved(&graph, base).is_some());
    }
}
