//! What happens when a node ends: its artifact is put in place and remembered, or its dependents are skipped.
//! Knows nothing of pools or threads.

use super::{Executed, NodeState, Scheduler};
use crate::Error;
use crate::error::{OrBug, Result};
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::Decision;
use crate::stage::Stage;
use artifact::{Artifact, in_one_line};

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Handles the end of a stage.
    pub(super) fn ended(&mut self, id: NodeId, outcome: Result<Executed>) -> Result<()> {
        self.slots(id).leave();
        let decision = self.decisions.remove(&id).or_bug("a running node was decided on")?;
        let executed = match outcome {
            Ok(executed) => executed,
            Err(error) if error.is_interrupted() => {
                self.summary.interrupted = true;
                self.summary.in_benchmark |= matches!(self.planner.graph.node(id).stage, Stage::Benchmark(_));
                self.set(id, NodeState::Waiting(0));
                return Ok(());
            }
            Err(error) => {
                self.failed(id, &error);
                return Ok(());
            }
        };
        for (stat, digest) in &executed.stats {
            self.planner.state.stats.remember(*stat, *digest);
        }
        if let Err(error) = self.put_in_place(id, &executed.artifact) {
            if !self.is_gone(id, &executed.artifact) {
                self.failed(id, &error);
                return Ok(());
            }
            // A file that it shares with a temporary node went with that one. It is decided on again.
            self.set(id, NodeState::Waiting(0));
            self.ready.push_back(id);
            return Ok(());
        }
        self.executed(id, &decision, executed)
    }

    /// Reports a stage whose artifact is in place, marks its node as done and uploads it.
    fn executed(&mut self, id: NodeId, decision: &Decision, executed: Executed) -> Result<()> {
        let node = self.planner.graph.node(id);
        let Executed { artifact, seconds, warnings, failure, counted, .. } = executed;
        self.summary.counted += counted;
        let digest = artifact.digest();
        let Some(seconds) = seconds else {
            self.observer.event(&Event::Linked { node: &node.name, edited: None, artifact: digest });
            self.done(id, decision, artifact, failure)?;
            self.summary.linked += usize::from(self.summary.done.contains_key(&id));
            return Ok(());
        };
        let (stage, bytes) = (node.stage.word(), artifact.size());
        self.observer.event(&Event::Built { node: &node.name, stage, seconds, bytes, artifact: digest });
        for message in warnings {
            self.observer.event(&Event::Warning { node: &node.name, message });
        }
        self.summary.ran.push(id);
        let made = artifact.clone();
        let recorded = self.done(id, decision, artifact, failure)?;
        if let Some(key) = decision.key.filter(|_| recorded) {
            self.observer.event(&Event::Recorded { node: &node.name, key });
            self.upload(id, key, made);
        }
        Ok(())
    }

    /// Marks a node as done: its artifact is known, and in place if it is needed. If a gate failed, the node
    /// fails here: the artifact is kept but not locked. Returns `false` if the artifact must match the lock
    /// and does not.
    pub(super) fn done(
        &mut self,
        id: NodeId,
        decision: &Decision,
        artifact: Artifact,
        failure: Option<String>,
    ) -> Result<bool> {
        let name = &self.planner.graph.node(id).name;
        let key = decision.key.or_bug("a node that is done has a recipe")?;
        let digest = artifact.reproducible_digest();
        if self.contradicts_the_lock(id, decision, &artifact) {
            return Ok(false);
        }
        self.planner.state.nodes.set(name, key, &artifact, failure.as_deref());
        self.planner.store.mark_used(&key);
        self.forget_note(id, &key);
        self.finished.insert(id);
        self.leaving.push(id);
        if let Some(failure) = failure {
            self.failed(id, &Error::Gate(failure));
            return Ok(true);
        }
        self.summary.done.insert(id, (key, digest));
        self.artifacts.insert(id, artifact);
        self.absent.remove(&id);
        self.set(id, NodeState::Done);
        for dependent in std::mem::take(&mut self.dependents[id.index()]) {
            if let Some(NodeState::Waiting(missing)) = self.state(dependent) {
                self.set(dependent, NodeState::Waiting(missing - 1));
                if missing == 1 {
                    self.ready.push_back(dependent);
                }
            }
        }
        Ok(true)
    }

    /// Fails a node whose artifact must match the lock and does not. What somebody else made must be asked about
    /// before it is put in place, because what contradicts the lock is not to be used.
    pub(super) fn contradicts_the_lock(
        &mut self,
        id: NodeId,
        decision: &Decision,
        artifact: &Artifact,
    ) -> bool {
        let problem = self.options.locked.and_then(|lock| self.differs(lock, decision, artifact));
        if let Some(problem) = &problem {
            self.failed(id, &Error::Locked(problem.clone()));
        }
        problem.is_some()
    }

    /// Fails a node that had a slot and made nothing.
    pub(super) fn given_up(&mut self, id: NodeId, error: &Error) -> Result<()> {
        self.slots(id).leave();
        self.decisions.remove(&id).or_bug("a node with a slot was decided on")?;
        self.failed(id, error);
        Ok(())
    }

    /// Marks a node as failed, and skips the nodes that are made from it.
    pub(super) fn failed(&mut self, id: NodeId, error: &Error) {
        let graph = self.planner.graph;
        let node = &graph.node(id).name;
        self.set(id, NodeState::Failed);
        self.summary.failed.push(id);
        self.observer.event(&Event::Failed { node, error: in_one_line(error), hint: error.hint() });
        let mut lost = self.dependents[id.index()].clone();
        while let Some(dependent) = lost.pop() {
            if self.state(dependent) != Some(NodeState::Skipped) {
                self.set(dependent, NodeState::Skipped);
                self.summary.skipped += 1;
                self.observer.event(&Event::Skipped { node: &graph.node(dependent).name, because: node });
                lost.extend(&self.dependents[dependent.index()]);
            }
        }
    }
}
