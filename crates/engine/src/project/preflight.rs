//! Checks a plan before anything runs: the sources that are needed are there, and each stage that will run can
//! read what it is given, as far as that can be known.
//! Knows nothing of how a stage works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Project;
use crate::error::{Result, fail};
use crate::event::{Event, Observer};
use crate::graph::NodeId;
use crate::inputs;
use crate::plan::Decision;
use crate::stage::{self, Device, Quoting, Stage};
use artifact::in_one_line;
use text::yaml::Problem;

impl Project {
    /// Fails if the source of a target is not there. Says so of other nodes, whose results are on record.
    pub(super) fn check_targets(
        &self,
        decisions: &[Decision],
        targets: &[NodeId],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        for decision in decisions.iter().filter(|decision| decision.lacks_source()) {
            let node = &self.graph.node(decision.id).name;
            let path = self.sources.missing(&self.graph, decision.id).unwrap_or_default();
            if targets.contains(&decision.id) {
                return Err(self.missing_source(decision.id, path));
            }
            let message = format!("its source `{path}` is not there; what it was is known from the lock");
            observer.event(&Event::Warning { node, message });
        }
        Ok(())
    }

    /// Fails if a source is not there that a node needs which must run.
    fn check_needed_sources(&self, decisions: &[Decision]) -> Result<()> {
        let lacking: Vec<_> = decisions.iter().filter(|decision| decision.lacks_source()).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        for decision in decisions.iter().filter(|decision| decision.is_stale()) {
            let read = self.graph.inputs(decision.id).map(|(_, input)| input).chain([decision.id]);
            let mut needed = read.filter(|id| lacking.iter().any(|lacking| lacking.id == *id));
            if let Some(id) = needed.next() {
                let path = self.sources.missing(&self.graph, id).unwrap_or_default();
                return Err(self.missing_source(id, path));
            }
        }
        Ok(())
    }

    /// Fails if a node that must run reads a folder that the artifact of its input, as far as it is known, does not have.
    fn check_parts(&self, decisions: &[Decision]) -> Result<()> {
        let known = decisions.iter().filter(|decision| !decision.is_stale());
        let known: BTreeMap<_, _> =
            known.filter_map(|decision| Some((decision.id, decision.artifact.as_ref()?))).collect();
        for decision in decisions.iter().filter(|decision| decision.is_stale()) {
            for (input, of) in self.graph.edges(decision.id) {
                let (Some(path), Some(artifact)) = (&input.path, known.get(&of)) else { continue };
                if let Some(problem) = inputs::nothing_at(artifact, path, &input.node) {
                    let message = format!("node `{}`: {problem}", self.graph.node(decision.id).name);
                    return Err(self.problem(&Problem::new(input.at, message)));
                }
            }
        }
        Ok(())
    }

    /// Checks what can be checked before anything runs. If the artifacts must be those of the lock, a node that would come
    /// out differently does not run.
    pub(super) fn preflight(&self, decisions: &[Decision], is_locked: bool) -> Result<()> {
        self.check_needed_sources(decisions)?;
        self.check_parts(decisions)?;
        let mut known = BTreeSet::new();
        for decision in decisions.iter().filter(|decision| decision.is_stale()) {
            let node = self.graph.node(decision.id);
            let runs = node.stage.is_deterministic() || !is_locked;
            // What a worker makes is checked by the worker.
            let is_elsewhere = self.graph.placed(decision.id).is_some();
            if self.is_on_hub(decision.id) || !runs || is_elsewhere {
                continue;
            }
            let source = self.sources.path(&self.graph, decision.id);
            let bases = self.bases(decision.id);
            let is_ours = self.sources.is_of_the_project(decision.id);
            let quoting = if is_ours { Quoting::Allowed } else { Quoting::Forbidden };
            let checked = stage::preflight(&node.stage, source.as_deref(), quoting, &bases, &self.root);
            checked.and_then(|()| self.check_models(&node.stage, bases, &mut known)).map_err(|error| {
                let message = format!("node `{}`: {}", node.name, in_one_line(&error));
                self.problem(&Problem::new(node.at, message))
            })?;
        }
        Ok(())
    }

    /// Asks the worker of a node that runs models whether those run there. `known` are those that do.
    fn check_models(
        &self,
        stage: &Stage,
        mut bases: Vec<PathBuf>,
        known: &mut BTreeSet<(Device, PathBuf)>,
    ) -> Result<()> {
        let device = match stage {
            Stage::Benchmark(parameters) => parameters.runs_on,
            Stage::Probe(_) => Device::Cpu,
            _ => return Ok(()),
        };
        bases.retain(|base| !known.contains(&(device, base.clone())));
        if bases.is_empty() {
            return Ok(());
        }
        if let Some(problem) = self.worker.refuses(device, bases.clone()) {
            fail!(Worker, "{problem}");
        }
        known.extend(bases.into_iter().map(|base| (device, base)));
        Ok(())
    }

    /// Returns the model folders outside the graph that a node descends from, if they are on this machine. What a command
    /// makes of a model may be of another form.
    fn bases(&self, id: NodeId) -> Vec<PathBuf> {
        let (mut above, mut next) = (BTreeSet::new(), vec![id]);
        while let Some(id) = next.pop() {
            if above.insert(id) && !matches!(self.graph.node(id).stage, Stage::Run(_)) {
                next.extend(self.graph.inputs(id).map(|(_, input)| input));
            }
        }
        let bases = above.into_iter().filter(|id| self.graph.node(*id).stage == Stage::Base);
        let bases = bases.filter_map(|id| Some((id, self.sources.path(&self.graph, id)?)));
        bases.filter(|(id, path)| !self.is_on_hub(*id) || path.exists()).map(|(_, path)| path).collect()
    }
}
