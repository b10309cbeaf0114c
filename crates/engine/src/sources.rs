//! Where the source of each node is: in the project, or in the hub's cache at a commit.
//! Knows nothing of the network: a commit comes from the pipeline file, from the lock, or from a caller that
//! asked the hub.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::graph::{Graph, NodeId};
use crate::hub::HubCache;
use crate::lockfile::{Lockfile, Pin};
use crate::manifest::{Source, SourceLocation};
use crate::origin::{Commit, HubSource, Origin};
use crate::paths::{expand, is_inside, is_of_the_system, real};
use crate::stage::Stage;
use artifact::Digest;
use text::yaml::Problem;

/// The sources of a graph, with the commits that are known.
#[derive(Debug)]
pub struct Sources {
    /// The folder of the pipeline file.
    root: PathBuf,
    /// The paths of the sources on disk, expanded and relative to the root.
    paths: HashMap<NodeId, PathBuf>,
    /// The files of the project that commands name, by their paths as written.
    files: HashMap<NodeId, BTreeMap<String, PathBuf>>,
    cache: HubCache,
    commits: HashMap<NodeId, Commit>,
    /// The digest of the files of each of these nodes, if `pipeline.lock` has one.
    contents: HashMap<NodeId, Digest>,
}

impl Sources {
    /// Sets the folder of the pipeline file, finds the sources on disk and the hub's cache. No commit is known
    /// yet.
    ///
    /// # Errors
    /// Fails if the path of a source cannot be expanded, or if it leads into the system or to `outputs`: a
    /// source must neither contain what the tool writes nor lie in it.
    pub fn new(root: PathBuf, graph: &Graph, outputs: &[PathBuf]) -> Result<Self, Problem> {
        let outputs: Vec<_> = outputs.iter().map(|output| (output, real(output))).collect();
        let mut paths = HashMap::new();
        for &id in graph.order() {
            let Some((text, at)) =
                graph.node(id).source.as_ref().and_then(|source| Some((source.path()?, source.at)))
            else {
                continue;
            };
            let path = expand(text).map_err(|error| Problem::new(at, error.to_string()))?;
            let whole = real(&root.join(&path));
            if is_of_the_system(&whole) {
                let message = format!("`{text}` leads to a part of the system, which is no source");
                return Err(Problem::new(at, message));
            }
            let meets = |output: &Path| whole.starts_with(output) || output.starts_with(&whole);
            if let Some((output, _)) = outputs.iter().find(|(_, real)| meets(real)) {
                let message = format!(
                    "`{text}` contains or lies in {}, where results are written; keep the source in a folder of its own",
                    output.display()
                );
                return Err(Problem::new(at, message));
            }
            paths.insert(id, path);
        }
        let files = project_files(&root, graph)?;
        let (cache, commits, contents) = (HubCache::from_env(), HashMap::new(), HashMap::new());
        Ok(Self { root, paths, files, cache, commits, contents })
    }

    /// Returns the files of the project that the command of a node names, by their paths as written.
    pub fn project_files(&self, id: NodeId) -> impl Iterator<Item = (&str, &Path)> {
        self.files.get(&id).into_iter().flatten().map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Takes over the commits in `lock`, for the sources that the pipeline file still names in the same way.
    /// A source that names a commit itself has that commit. Of a model or an adapter on disk, the digest of its
    /// files is taken over.
    pub fn use_locked(&mut self, graph: &Graph, lock: &Lockfile) {
        for &id in graph.order() {
            if self.paths.contains_key(&id) && graph.node(id).stage.is_reference() {
                self.contents.extend(lock.get(&graph.node(id).name).map(|locked| (id, locked.artifact)));
            }
            let Some(hub) = hub_source(graph, id) else { continue };
            let locked = lock.get(&graph.node(id).name);
            let held = locked.and_then(|locked| Some((locked.artifact, locked.pin.as_ref()?)));
            let held = held.filter(|(_, pin)| pin.source == hub.to_string());
            self.contents.extend(held.map(|(artifact, _)| (id, artifact)));
            let held = held.map(|(_, pin)| pin.commit.clone());
            self.commits.extend(hub.commit().or(held).map(|commit| (id, commit)));
        }
    }

    /// Sets the commit of the source of a node. If the commit changes, the locked digest of its files is
    /// dropped.
    pub fn resolve(&mut self, id: NodeId, commit: Commit) {
        if self.commits.insert(id, commit.clone()) != Some(commit) {
            self.contents.remove(&id);
        }
    }

    /// Returns the path of the source of a node as the pipeline file has it, if it is one on disk that is not
    /// there. So it does for a file of the project that the command of a node names.
    pub fn missing<'a>(&'a self, graph: &'a Graph, id: NodeId) -> Option<&'a str> {
        if let Some((name, _)) = self.project_files(id).find(|(_, path)| !path.exists()) {
            return Some(name);
        }
        let path = self.root.join(self.paths.get(&id)?);
        graph.node(id).source.as_ref()?.path().filter(|_| !path.exists())
    }

    /// Whether the source of a node is a file of the project: what is in it may be shown in messages.
    pub fn is_of_the_project(&self, id: NodeId) -> bool {
        let inside = |path: &PathBuf| is_inside(&self.root.join(path), &self.root);
        self.paths.get(&id).is_some_and(inside)
    }

    /// Returns the digest of the files of a source, if the lock has it.
    pub fn content(&self, id: NodeId) -> Option<Digest> {
        self.contents.get(&id).copied()
    }

    /// Returns the folder of the project.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the hub's cache on this machine.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }

    /// Returns the source of a node, if it is on the hub and its commit is not known.
    pub fn unresolved<'a>(&self, graph: &'a Graph, id: NodeId) -> Option<&'a HubSource> {
        hub_source(graph, id).filter(|_| !self.commits.contains_key(&id))
    }

    /// Returns the repository and commit of the source of a node, if it is on the hub and the commit is
    /// known.
    pub fn own_origin(&self, graph: &Graph, id: NodeId) -> Option<Origin> {
        let repo = hub_source(graph, id)?.repo.clone();
        Some(Origin { commit: self.commits.get(&id)?.clone(), repo })
    }

    /// Returns the repository and commit that the weights of a node descend from, if its base is on the hub.
    pub fn origin(&self, graph: &Graph, id: NodeId) -> Option<Origin> {
        // What a command makes of a model is not known to descend from it.
        if matches!(graph.node(id).stage, Stage::Run(_)) {
            return None;
        }
        match graph.inputs(id).find(|(role, _)| *role == "model") {
            Some((_, model)) => self.origin(graph, model),
            None => self.own_origin(graph, id),
        }
    }

    /// Returns the lock entry for the source of a node, if it is on the hub and its commit is known.
    pub fn pin(&self, graph: &Graph, id: NodeId) -> Option<Pin> {
        let commit = self.commits.get(&id)?.clone();
        Some(Pin { commit, source: hub_source(graph, id)?.to_string() })
    }

    /// Returns the path of the source of a node, downloaded or not. Returns `None` if the node has no source,
    /// or if its commit is not known.
    pub fn path(&self, graph: &Graph, id: NodeId) -> Option<PathBuf> {
        match &graph.node(id).source.as_ref()?.location {
            SourceLocation::Disk(_) => Some(self.root.join(self.paths.get(&id)?)),
            SourceLocation::Hub(_) => Some(self.cache.snapshot(&self.own_origin(graph, id)?)),
        }
    }

    /// Returns the target of the link `artifacts/NAME` for a node whose artifact is its source. Returns
    /// `None` for other nodes.
    pub fn target(&self, graph: &Graph, id: NodeId) -> Option<PathBuf> {
        let node = graph.node(id);
        node.source.as_ref().filter(|_| node.stage.is_reference())?;
        match self.paths.get(&id) {
            // `artifacts/` is in the root, so the path to a relative source goes one level up.
            Some(path) if path.is_relative() => Some(Path::new("..").join(path)),
            _ => self.path(graph, id),
        }
    }
}

/// Finds the files of the project that commands name. Each must lie in the project, through all links.
fn project_files(root: &Path, graph: &Graph) -> Result<HashMap<NodeId, BTreeMap<String, PathBuf>>, Problem> {
    let mut files = HashMap::new();
    for &id in graph.order() {
        let node = graph.node(id);
        for name in node.stage.project_files() {
            let path = root.join(&name);
            let is_odd = path.exists() && !path.is_file();
            let problem = match (is_inside(&path, root), path.is_dir()) {
                (false, _) => "leads out of the folder of the pipeline file",
                (_, true) => "is a folder; a `files` node takes in a folder, as an input",
                (_, false) if is_odd => "is not a regular file",
                _ => {
                    files.entry(id).or_insert_with(BTreeMap::new).insert(name, path);
                    continue;
                }
            };
            return Err(Problem::new(node.at, format!("node `{}`: `{{file:{name}}}` {problem}", node.name)));
        }
        // The Python of a virtual environment is a link out of the project, as a rule, and `version` is for it.
        let program = node.stage.project_program().map(|name| (root.join(&name), name));
        if let Some((path, name)) = program.filter(|(path, _)| path.is_file() && is_inside(path, root)) {
            files.entry(id).or_insert_with(BTreeMap::new).insert(name, path);
        }
    }
    Ok(files)
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
        let mut sources = Sources::new(PathBuf::from("/project"), &graph(), &[]).unwrap();
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
