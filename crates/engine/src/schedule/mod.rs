//! Runs a graph to the end: the state of every node, three pools, one thread per running stage or transfer.
//! Knows nothing of YAML, of what a stage computes, or of terminals.
//!
//! One thread owns all state; the threads of stages own nothing but a channel to it. A node goes through
//! `Waiting → Queued → Running → Done`, or ends `Failed` or `Skipped`. It is decided on anew when its last input is
//! done: an input that came out the same makes it fresh, and the rebuild stops there.

mod event;
mod fetch;
mod inputs;
mod locked;
mod place;
mod pool;
mod task;

pub use event::{Event, Progress};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::Duration;

use anyhow::Context;
use pool::Pool;
use task::{Executed, Task, execute};

use crate::graph::NodeId;
use crate::lockfile::Lockfile;
use crate::plan::{Decision, Planner, Verdict};
use crate::recipe::Change;
use crate::share::Miss;
use crate::stage::Unit;
use crate::store::Stat;
use artifact::{Artifact, Digest, Interrupted};

/// How often the owner looks whether it was asked to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// How to build.
#[derive(Debug)]
pub struct Options<'a> {
    /// How many stages run at once in the `cpu` pool.
    pub jobs: usize,
    /// Go on with what does not depend on a failed node.
    pub keep_going: bool,
    /// Fail a node whose artifact differs from this.
    pub locked: Option<&'a Lockfile>,
    /// Take what the cache and the remote have, and fail a node that would have to run.
    pub fetch_only: bool,
    /// Set by Ctrl-C.
    pub cancel: &'a AtomicBool,
}

/// How a build ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The nodes whose stage ran.
    pub ran: Vec<NodeId>,
    /// The nodes taken from the cache.
    pub linked: usize,
    /// The nodes brought from the remote.
    pub fetched: usize,
    /// The nodes that failed.
    pub failed: Vec<NodeId>,
    /// The nodes not run because another failed.
    pub skipped: usize,
    /// Whether it was asked to stop.
    pub interrupted: bool,
    /// Key and reproducible digest of each node that is done.
    pub done: BTreeMap<NodeId, (Digest, Digest)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(usize),
    Queued,
    Running,
    Done,
    Failed,
    Skipped,
}

enum Message {
    Tick(NodeId, u64, u64),
    Ended(NodeId, Result<Executed, anyhow::Error>),
    Fetched(NodeId, Result<Vec<(Stat, Digest)>, Miss>),
}

/// Runs what is stale among `ids`, each after its inputs; returns how it went.
pub fn run(
    planner: Planner<'_>,
    ids: &[NodeId],
    options: &Options<'_>,
    progress: &mut dyn Progress,
) -> anyhow::Result<Summary> {
    let (sender, receiver) = channel();
    thread::scope(|scope| Scheduler::new(planner, ids, options, progress, sender).run(scope, &receiver))
}

struct Scheduler<'a, 'p> {
    planner: Planner<'a>,
    options: &'p Options<'p>,
    progress: &'p mut dyn Progress,
    sender: Sender<Message>,
    states: Vec<Option<State>>,
    dependents: Vec<Vec<NodeId>>,
    ready: VecDeque<NodeId>,
    cpu: Pool,
    mlx: Pool,
    remote: Pool,
    /// The nodes that are done, but whose files are not here.
    absent: HashSet<NodeId>,
    decisions: BTreeMap<NodeId, Decision>,
    artifacts: BTreeMap<NodeId, Artifact>,
    summary: Summary,
}

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    fn new(
        planner: Planner<'a>,
        ids: &[NodeId],
        options: &'p Options<'p>,
        progress: &'p mut dyn Progress,
        sender: Sender<Message>,
    ) -> Self {
        let count = planner.graph.len();
        let (mut states, mut dependents) = (vec![None; count], vec![Vec::new(); count]);
        let mut ready = VecDeque::new();
        for &id in ids {
            // The inputs that are not written are done before those that are.
            let inputs: Vec<_> = planner.graph.written_inputs(id).map(|(_, input)| input).collect();
            states[id.index()] = Some(State::Waiting(inputs.len()));
            if inputs.is_empty() {
                ready.push_back(id);
            }
            inputs.iter().for_each(|input| dependents[input.index()].push(id));
        }
        Self {
            planner,
            options,
            progress,
            sender,
            states,
            dependents,
            ready,
            cpu: Pool::new(options.jobs),
            mlx: Pool::new(1),
            remote: Pool::new(fetch::AT_ONCE),
            absent: HashSet::new(),
            decisions: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    /// The main loop:
    /// - decide on every node whose inputs are done; what is fresh or cached is done at once, the rest is queued;
    /// - start what the pools have room for, unless a failure or Ctrl-C says to stop;
    /// - if nothing runs, nothing more can happen: the build is over;
    /// - else wait for a message, and begin again.
    fn run<'s>(mut self, scope: &'s Scope<'s, 'a>, receiver: &Receiver<Message>) -> anyhow::Result<Summary>
    where
        'p: 's,
    {
        loop {
            let stop = self.stops();
            while let Some(id) = self.ready.pop_front().filter(|_| !stop) {
                self.decide(id)?;
            }
            while !self.stops() {
                if let Some(id) = self.cpu.next().or_else(|| self.mlx.next()) {
                    self.start(id, scope)?;
                } else if let Some(id) = self.remote.next() {
                    self.fetch(id, scope)?;
                } else {
                    break;
                }
            }
            if self.cpu.running() + self.mlx.running() + self.remote.running() == 0 {
                return Ok(self.summary);
            }
            match receiver.recv_timeout(PATIENCE) {
                Ok(Message::Tick(id, done, total)) => self.tick(id, done, total),
                Ok(Message::Ended(id, outcome)) => self.ended(id, outcome)?,
                Ok(Message::Fetched(id, outcome)) => self.fetched(id, outcome)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("BUG: the scheduler holds a sender itself")
                }
            }
        }
    }

    fn stops(&mut self) -> bool {
        self.summary.interrupted |= self.options.cancel.load(Ordering::Relaxed);
        self.summary.interrupted || (!self.summary.failed.is_empty() && !self.options.keep_going)
    }

    fn decide(&mut self, id: NodeId) -> anyhow::Result<()> {
        let artifacts = &self.artifacts;
        let made = |input: NodeId| artifacts.get(&input).map(Artifact::reproducible_digest);
        let decision = self.planner.decide(id, &made)?;
        self.tell_notices();
        let failure = decision.failure.clone();
        if matches!(decision.verdict, Verdict::Fresh | Verdict::Cached | Verdict::Recorded) {
            self.keep(&decision)?;
        }
        match (decision.verdict, decision.artifact.clone()) {
            (Verdict::Fresh, Some(artifact)) => {
                self.done(id, &decision, artifact, failure)?;
                self.note_absent(id, &decision);
                Ok(())
            }
            (Verdict::Cached, Some(artifact)) => {
                self.link(id, &decision, artifact)?;
                self.note_absent(id, &decision);
                Ok(())
            }
            (Verdict::Recorded, Some(artifact)) => {
                self.planner.shelf.unpoint(&self.planner.graph.node(id).name, &artifact)?;
                self.done(id, &decision, artifact, failure)?;
                self.absent.insert(id);
                Ok(())
            }
            (Verdict::Remote, Some(_)) => {
                self.states[id.index()] = Some(State::Queued);
                self.remote.enqueue(id);
                self.decisions.insert(id, decision);
                Ok(())
            }
            (Verdict::Waits, _) => anyhow::bail!("BUG: a node is decided on when its inputs are done"),
            _ if self.options.fetch_only && !self.planner.graph.node(id).stage.is_reference() => self.failed(
                id,
                &anyhow::anyhow!("neither the cache nor the remote has it; `pipeline build` makes it"),
            ),
            _ if self.lacks_inputs(id) => Ok(()),
            _ => self.queue(id, decision),
        }
    }

    fn queue(&mut self, id: NodeId, decision: Decision) -> anyhow::Result<()> {
        self.states[id.index()] = Some(State::Queued);
        let uses_mlx = self.planner.graph.node(id).stage.uses_mlx(self.planner.backend);
        if uses_mlx { &mut self.mlx } else { &mut self.cpu }.enqueue(id);
        self.decisions.insert(id, decision);
        Ok(())
    }

    fn start<'s>(&mut self, id: NodeId, scope: &'s Scope<'s, 'a>) -> anyhow::Result<()>
    where
        'p: 's,
    {
        let decision = self.decisions.get(&id).context("BUG: a queued node was decided on")?;
        let node = self.planner.graph.node(id);
        for change in &decision.changes {
            if let Change::Damaged { problem } = change {
                let message = format!("{problem}; it is built again");
                self.progress.event(&Event::Warning { node: &node.name, message });
            }
        }
        self.progress.event(&Event::Started {
            node: &node.name,
            stage: node.stage.word(),
            changes: &decision.changes,
        });
        self.states[id.index()] = Some(State::Running);
        let task = Task {
            id,
            stage: node.stage.clone(),
            inputs: self.inputs(id)?,
            recipe: decision.recipe.clone().context("BUG: a queued node has a recipe")?,
            stock: decision.stock.clone(),
            download: self.download(id),
            rerun: !decision.changes.is_empty() && decision.artifact.is_some(),
            forced: decision.changes.contains(&Change::Forced),
        };
        let Planner { store, share, backend, .. } = self.planner;
        let (sender, cancel) = (self.sender.clone(), self.options.cancel);
        scope.spawn(move || {
            let tick = |done, total| {
                // The owner outlives the stages, and a lost tick would harm nobody.
                let _ = sender.send(Message::Tick(id, done, total));
                if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| execute(&task, store, share, backend, &tick)));
            let outcome =
                outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("BUG: the stage panicked; see above")));
            let _ = sender.send(Message::Ended(task.id, outcome));
        });
        Ok(())
    }

    fn tick(&mut self, id: NodeId, done: u64, total: u64) {
        if total > 0 {
            let node = self.planner.graph.node(id);
            let fetching =
                self.decisions.get(&id).is_some_and(|decision| decision.verdict == Verdict::Remote);
            let unit = if fetching { Unit::Bytes } else { node.stage.unit() };
            self.progress.event(&Event::Progress { node: &node.name, unit, done, total });
        }
    }

    fn ended(&mut self, id: NodeId, outcome: Result<Executed, anyhow::Error>) -> anyhow::Result<()> {
        let node = self.planner.graph.node(id);
        let pool = if node.stage.uses_mlx(self.planner.backend) { &mut self.mlx } else { &mut self.cpu };
        pool.leave();
        let decision = self.decisions.remove(&id).context("BUG: a running node was decided on")?;
        let executed = match outcome {
            Ok(executed) => executed,
            Err(error) if error.chain().any(|cause| cause.is::<Interrupted>()) => {
                self.summary.interrupted = true;
                self.states[id.index()] = Some(State::Waiting(0));
                return Ok(());
            }
            Err(error) => return self.failed(id, &error),
        };
        for (stat, digest) in executed.stats {
            self.planner.memo.remember(stat, digest);
        }
        let artifact = executed.artifact;
        if let Err(error) = self.place(id, &artifact) {
            return self.failed(id, &error);
        }
        let node = self.planner.graph.node(id);
        let digest = artifact.digest();
        let Some(seconds) = executed.seconds else {
            self.progress.event(&Event::Linked { node: &node.name, edited: None, artifact: digest });
            self.done(id, &decision, artifact, executed.failure)?;
            self.summary.linked += usize::from(self.summary.done.contains_key(&id));
            return Ok(());
        };
        let (stage, bytes) = (node.stage.word(), artifact.size());
        self.progress.event(&Event::Built { node: &node.name, stage, seconds, bytes, artifact: digest });
        for message in executed.warnings {
            self.progress.event(&Event::Warning { node: &node.name, message });
        }
        self.summary.ran.push(id);
        let recorded = self.done(id, &decision, artifact, executed.failure)?;
        if let Some(key) = decision.key.filter(|_| recorded) {
            self.progress.event(&Event::Recorded { node: &node.name, key });
        }
        Ok(())
    }

    /// The artifact of a node is in place. A gate that did not hold fails it now; it stays where it is, and is not
    /// locked. Returns whether it is what the lock says, if it has to be.
    fn done(
        &mut self,
        id: NodeId,
        decision: &Decision,
        artifact: Artifact,
        failure: Option<String>,
    ) -> anyhow::Result<bool> {
        let name = &self.planner.graph.node(id).name;
        let key = decision.key.context("BUG: a node that is done has a recipe")?;
        let digest = artifact.reproducible_digest();
        if let Some(problem) = self.options.locked.and_then(|lock| self.differs(lock, decision, &artifact)) {
            self.failed(id, &anyhow::anyhow!(problem))?;
            return Ok(false);
        }
        self.planner.memo.remember_node(name, key, &artifact, failure.as_deref());
        self.planner.store.used(&key);
        if let Some(failure) = failure {
            self.failed(id, &anyhow::anyhow!(failure))?;
            return Ok(true);
        }
        self.summary.done.insert(id, (key, digest));
        self.artifacts.insert(id, artifact);
        self.absent.remove(&id);
        self.states[id.index()] = Some(State::Done);
        for dependent in std::mem::take(&mut self.dependents[id.index()]) {
            if let Some(State::Waiting(missing)) = &mut self.states[dependent.index()] {
                *missing -= 1;
                if *missing == 0 {
                    self.ready.push_back(dependent);
                }
            }
        }
        Ok(true)
    }

    /// A failed node takes those that are made from it along.
    fn failed(&mut self, id: NodeId, error: &anyhow::Error) -> anyhow::Result<()> {
        let graph = self.planner.graph;
        let cause =
            error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
        self.states[id.index()] = Some(State::Failed);
        self.summary.failed.push(id);
        self.progress.event(&Event::Failed {
            node: &graph.node(id).name,
            error: format!("{error:#}"),
            cause,
        });
        let mut lost = self.dependents[id.index()].clone();
        while let Some(dependent) = lost.pop() {
            if self.states[dependent.index()] != Some(State::Skipped) {
                self.states[dependent.index()] = Some(State::Skipped);
                self.summary.skipped += 1;
                self.progress.event(&Event::Skipped {
                    node: &graph.node(dependent).name,
                    because: &graph.node(id).name,
                });
                lost.extend(&self.dependents[dependent.index()]);
            }
        }
        Ok(())
    }
}
