//! Builds a node again, and compares the output with the recorded artifact.
//! Knows nothing of threads, nor of what is printed. Writes only into the workspace of this process.

mod difference;

pub use difference::{Difference, describe, differences};

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::error::{OrBug, Result, require};
use crate::graph::NodeId;
use crate::inputs;
use crate::measurements::{Measurements, Source};
use crate::plan::{Decision, Planner};
use crate::stage::{self, Console, Environment, WorkerProgram};
use crate::store::{RecordOrigin, StatCache, hash_files, hash_source};
use artifact::{Artifact, AtPath, Digest, FileEntry, Output, Tick, in_one_line};

/// The result of building a node again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// All files are the same, except that volatile files are not compared.
    Same,
    /// There is no artifact to compare with: the node is stale, or an input of it is.
    NotBuilt,
    /// It was not built again, because it would come out differently. Its files are as they are recorded, as far as they
    /// are here.
    NotRepeatable,
    /// It could not be built again, for this reason.
    Failed(String),
    /// These files differ.
    Differs(Vec<Difference>),
}

/// Builds nodes again, one by one.
pub struct Verifier<'a> {
    planner: Planner<'a>,
    worker: &'a WorkerProgram,
    decisions: BTreeMap<NodeId, Decision>,
    /// Whether nodes that would come out differently are built too.
    rerun: bool,
    /// The folders of temporary nodes that came out the same. The nodes that are made from them read them there.
    remade: BTreeMap<NodeId, PathBuf>,
}

impl<'a> Verifier<'a> {
    /// Plans `ids` and their ancestors, to know their recorded artifacts. With `rerun`, nodes that would come out
    /// differently are built and compared too.
    ///
    /// # Errors
    /// Fails if a source cannot be read.
    pub fn new(
        mut planner: Planner<'a>,
        worker: &'a WorkerProgram,
        ids: &[NodeId],
        rerun: bool,
    ) -> Result<Self> {
        let decisions = planner.plan(&planner.graph.closure(ids))?;
        let decisions = decisions.into_iter().map(|decision| (decision.id, decision)).collect();
        Ok(Self { planner, worker, decisions, rerun, remade: BTreeMap::new() })
    }

    /// Builds the node again and compares.
    ///
    /// # Errors
    /// Fails only if `tick` asks to stop.
    pub fn verify(&mut self, id: NodeId, tick: Tick<'_>) -> Result<Comparison> {
        let Some(recorded) = recorded(&self.decisions, id).cloned() else { return Ok(Comparison::NotBuilt) };
        if !self.rerun && !self.planner.graph.node(id).stage.is_deterministic() {
            return Ok(self.look_at(&recorded));
        }
        match self.compare(id, &recorded, tick) {
            Ok(differences) if differences.is_empty() => Ok(Comparison::Same),
            Ok(differences) => Ok(Comparison::Differs(differences)),
            Err(error) if error.is_interrupted() => Err(error),
            Err(error) => Ok(Comparison::Failed(in_one_line(&error))),
        }
    }

    /// Hashes the files of an artifact that are here.
    fn look_at(&self, recorded: &Artifact) -> Comparison {
        let store = self.planner.store;
        let is_damaged = |file: &&FileEntry| {
            let path = store.object_path(&file.digest);
            path.exists() && Digest::of_file(&path).ok().map(|(digest, _)| digest) != Some(file.digest)
        };
        let describe = |file: &FileEntry| Difference {
            file: file.path.clone(),
            problem: "is damaged in the cache".to_owned(),
        };
        let damaged: Vec<_> = recorded.files().iter().filter(is_damaged).map(describe).collect();
        if damaged.is_empty() { Comparison::NotRepeatable } else { Comparison::Differs(damaged) }
    }

    /// Records a node that was built again and came out the same as made here. A record with volatile files
    /// stays as it is: they were not compared.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn vouch(&self, id: NodeId) -> Result<()> {
        let store = self.planner.store;
        let decision = self.decisions.get(&id);
        let Some((key, artifact)) =
            decision.and_then(|decision| decision.key.zip(decision.artifact.as_ref()))
        else {
            return Ok(());
        };
        let Some(record) = store.record(&key).filter(|record| record.action.artifact == *artifact) else {
            return Ok(());
        };
        if record.made_here || artifact.files().iter().any(|file| file.volatile) {
            return Ok(());
        }
        Ok(store.put_record(&key, &record.action, RecordOrigin::Here)?)
    }

    /// Builds the temporary nodes again that a node reads and whose files are not here. They must come out the same.
    fn remake_inputs(&mut self, id: NodeId, tick: Tick<'_>) -> Result<()> {
        let graph = self.planner.graph;
        let temporary = graph.inputs(id).map(|(_, input)| input).filter(|input| graph.node(*input).temporary);
        for input in temporary.collect::<Vec<_>>() {
            let Some(recorded) = recorded(&self.decisions, input).cloned() else { continue };
            let store = self.planner.store;
            let is_here = recorded.files().iter().all(|file| store.object_path(&file.digest).exists());
            if is_here || self.remade.contains_key(&input) {
                continue;
            }
            let differences = self.compare(input, &recorded, tick)?;
            let name = &graph.node(input).name;
            require!(
                differences.is_empty(),
                Source,
                "its input `{name}` comes out differently; `pipeline verify {name}` says how"
            );
        }
        Ok(())
    }

    fn compare(&mut self, id: NodeId, recorded: &Artifact, tick: Tick<'_>) -> Result<Vec<Difference>> {
        let key = self.decisions.get(&id).and_then(|decision| decision.key);
        let folder = self.planner.store.output_folder(&key.or_bug("a node that is built has a key")?)?;
        self.remake_inputs(id, tick)?;
        let decisions = &self.decisions;
        let made = |input| self::recorded(decisions, input);
        let inputs = inputs::find_with(&mut self.planner, id, &made, &self.remade)?;
        let output = Output::new(folder.clone());
        let stage = &self.planner.graph.node(id).stage;
        let recipe = decisions.get(&id).and_then(|decision| decision.recipe.as_ref());
        let recipe = recipe.or_bug("a node that is built has a recipe")?;
        let host = Measurements::new(self.planner.store, recipe, Source::Nowhere, &|_| Ok(()));
        let console = Console { log: None, line: &|_| () };
        let environment =
            Environment { backend: self.planner.backend, worker: self.worker, host: &host, console };
        let run = || stage::run(stage, &inputs, &output, &environment, tick);
        inputs::guarded(self.planner.store, stage, &inputs, run)?;
        if stage.is_reference() {
            let files = self.source_files(id, recorded)?;
            let now = |_: &FileEntry, now: &FileEntry| format!("differs: its content is now {}", now.digest);
            return Ok(differences(recorded, &files, &now));
        }
        let store = self.planner.store;
        let describe = |old: &FileEntry, new: &FileEntry| {
            describe(&new.path, &store.object_path(&old.digest), &folder.join(&new.path))
        };
        let found = differences(recorded, &output.finish().artifact, &describe);
        if found.is_empty() && self.planner.graph.node(id).temporary {
            self.remade.insert(id, folder);
        } else {
            // The next node may need the disk space.
            fs::remove_dir_all(&folder).at("remove", &folder)?;
        }
        Ok(found)
    }

    /// Hashes the source of a `base` or `adapter` as it is now, without the stat cache. Of a source on the
    /// hub only the recorded files count, because the hub's cache is shared with other programs.
    fn source_files(&self, id: NodeId, recorded: &Artifact) -> Result<Artifact> {
        let Planner { graph, sources, .. } = &self.planner;
        let path = sources.path(graph, id).or_bug("a reference has a source")?;
        if sources.own_origin(graph, id).is_none() {
            return hash_source(&path, &mut StatCache::default());
        }
        let names = recorded.files().iter().map(|file| file.path.clone());
        let there: Vec<_> = names.filter(|name| path.join(name).exists()).collect();
        Ok(hash_files(&path, &there)?.0)
    }
}

/// Returns the recorded artifact of a node, unless the node is stale.
fn recorded(decisions: &BTreeMap<NodeId, Decision>, id: NodeId) -> Option<&Artifact> {
    decisions.get(&id).filter(|decision| !decision.is_stale())?.artifact.as_ref()
}
