//! The scheduler: keeps the state of every node, and runs stages and transfers on threads, limited by three
//! pools.
//! Knows nothing of YAML, of what a stage computes, or of terminals.
//!
//! One thread, the owner, has all state. The threads of stages and transfers only send messages to it. A node
//! goes through `Waiting → Queued → Running → Done`, or ends as `Failed` or `Skipped`; only
//! `Scheduler::set` changes its state. A node is decided on when its last input is done. If the input came
//! out the same, the node is fresh, and the rebuild stops there. One more thread uploads new artifacts to the
//! remote while the build goes on.

mod assign;
mod attest;
mod driver;
mod fetch;
mod finish;
mod link;
mod locked;
mod pool;
mod records;
mod refusal;
mod release;
mod seat;
mod state;
mod task;
mod threads;
mod upload;

pub(crate) use attest::attest;
pub(crate) use driver::Note;
pub(crate) use task::{Listeners, Task, execute};
pub(crate) use upload::{MaySign, place_of, send};

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::Duration;

use assign::Worked;
use driver::Report;
use pool::{Pool, Urgency};
use seat::Seats;
use state::NodeState;
use task::Executed;
use upload::{UploadEvent, Uploads};

use crate::error::{Result, fail};
use crate::event::{Event, Observer};
use crate::executor::Crew;
use crate::graph::NodeId;
use crate::lockfile::Lockfile;
use crate::plan::{Decision, Planner, Verdict};
use crate::share::Miss;
use crate::stage::{Counted, Measuring, Unit, WorkerProgram};
use crate::store::Stat;
use artifact::{Artifact, Digest};

/// How often the owner checks the cancel flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How to build.
#[derive(Debug)]
pub struct Options<'a> {
    /// How many stages run at once in the `cpu` pool.
    pub jobs: usize,
    /// Go on with nodes that do not depend on a failed one.
    pub keep_going: bool,
    /// Fail nodes whose artifact differs from this lock.
    pub locked: Option<&'a Lockfile>,
    /// Take what the cache and the remote have, and fail a node that would have to run. `base` and `adapter`
    /// nodes may run.
    pub fetch_only: bool,
    /// Run the commands of `run` nodes.
    pub commands: bool,
    /// Upload new artifacts to the remote, if there is one.
    pub upload: bool,
    /// Tell the observer each line that a command writes.
    pub verbose: bool,
    /// The worker program, which runs what needs MLX.
    pub worker: &'a WorkerProgram,
    /// The workers that nodes are placed on, in the order of their numbers.
    pub crews: &'a [Crew],
    /// End when only workers have something to do, and let them go on.
    pub detach: bool,
    /// The caller sets this flag to stop the build.
    pub cancel: &'a AtomicBool,
}

/// How a build ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The nodes whose stage ran.
    pub ran: Vec<NodeId>,
    /// The nodes that workers made.
    pub by_workers: Vec<NodeId>,
    /// The nodes that workers were left with.
    pub left: Vec<NodeId>,
    /// How many nodes were taken from the cache.
    pub linked: usize,
    /// How many nodes were fetched from the remote.
    pub fetched: usize,
    /// What benchmarks measured, and what they knew.
    pub counted: Counted,
    /// The nodes that failed.
    pub failed: Vec<NodeId>,
    /// How many nodes were not run because another failed.
    pub skipped: usize,
    /// Whether it was asked to stop.
    pub interrupted: bool,
    /// Whether a benchmark was running then. What it has measured is kept.
    pub in_benchmark: bool,
    /// The nodes that ran, and whose files are still here: all but the temporary ones that were released.
    pub kept: Vec<NodeId>,
    /// Key and reproducible digest of each node that is done.
    pub done: BTreeMap<NodeId, (Digest, Digest)>,
}

/// A message from a thread to the owner.
enum Message {
    Progress(NodeId, u64, u64),
    Measuring(NodeId, Measuring),
    Said(NodeId, String),
    Ended(NodeId, Result<Executed>),
    Fetched(NodeId, Result<Vec<(Stat, Digest)>, Miss>),
    Upload(UploadEvent),
    Worker(NodeId, Report),
    Notice(String),
}

/// Runs the stale nodes of `ids`, which must be in an order with inputs first. A node that fails is not an
/// error: it is in the summary, and the observer was told.
///
/// # Errors
/// Fails if a source cannot be read, or if the cache or `artifacts/` cannot be written.
pub(crate) fn run(
    planner: Planner<'_>,
    ids: &[NodeId],
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Summary> {
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let mut scheduler = Scheduler::new(planner, ids, options, observer, sender);
        scheduler.start_uploads(scope);
        let built = scheduler.build(scope, &receiver);
        scheduler.finish_uploads(&receiver);
        built.and_then(|()| scheduler.release_all())?;
        let ran = scheduler.summary.ran.clone();
        scheduler.summary.kept = ran.into_iter().filter(|id| !scheduler.absent.contains(id)).collect();
        Ok(scheduler.summary)
    })
}

struct Scheduler<'a, 'p> {
    planner: Planner<'a>,
    options: &'p Options<'a>,
    observer: &'p mut dyn Observer,
    sender: Sender<Message>,
    /// By the index of the node; `None` for a node that is not part of this build.
    states: Vec<Option<NodeState>>,
    dependents: Vec<Vec<NodeId>>,
    ready: VecDeque<NodeId>,
    /// Where nodes run.
    seats: Seats,
    /// The transfers from the remote.
    remote: Pool,
    /// What workers have made, until the node is decided on again.
    worked: BTreeMap<NodeId, Worked>,
    /// The notes on jobs of earlier builds, by the keys of the nodes.
    notes: HashMap<Digest, Vec<u8>>,
    /// The contents that the remote is known to have.
    in_remote: HashSet<Digest>,
    /// The nodes of workers whose contents the remote has lost. They are made again once.
    lost_in_remote: HashSet<NodeId>,
    /// Set when the build leaves its workers alone.
    leaving_workers: Arc<AtomicBool>,
    uploads: Uploads,
    /// How many lines of commands were sent to the owner and not told yet.
    lines: Arc<AtomicUsize>,
    /// The nodes that are done, but whose files are not here.
    absent: HashSet<NodeId>,
    /// The nodes that have been made, and so need their inputs no more.
    finished: HashSet<NodeId>,
    /// Those of them whose inputs may be released now.
    leaving: Vec<NodeId>,
    /// For each temporary node, the nodes of this build that read it.
    readers: Vec<Vec<NodeId>>,
    decisions: BTreeMap<NodeId, Decision>,
    artifacts: BTreeMap<NodeId, Artifact>,
    summary: Summary,
}

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    fn new(
        planner: Planner<'a>,
        ids: &[NodeId],
        options: &'p Options<'a>,
        observer: &'p mut dyn Observer,
        sender: Sender<Message>,
    ) -> Self {
        let count = planner.graph.len();
        let (mut states, mut dependents) = (vec![None; count], vec![Vec::new(); count]);
        let (mut ready, mut readers) = (VecDeque::new(), vec![Vec::new(); count]);
        for &id in ids {
            for (_, input) in
                planner.graph.inputs(id).filter(|(_, input)| planner.graph.node(*input).temporary)
            {
                readers[input.index()].push(id);
            }
            // The inputs that the pipeline file does not name are ancestors of those that it names, so they
            // are done before.
            let inputs: Vec<_> = planner.graph.written_inputs(id).map(|(_, input)| input).collect();
            states[id.index()] = Some(NodeState::Waiting(inputs.len()));
            if inputs.is_empty() {
                ready.push_back(id);
            }
            inputs.iter().for_each(|input| dependents[input.index()].push(id));
        }
        Self {
            options,
            observer,
            sender,
            states,
            dependents,
            ready,
            seats: Seats::new(options, planner.graph),
            remote: Pool::new(fetch::AT_ONCE),
            worked: BTreeMap::new(),
            notes: if options.crews.is_empty() { HashMap::new() } else { planner.store.job_notes() },
            in_remote: HashSet::new(),
            lost_in_remote: HashSet::new(),
            leaving_workers: Arc::default(),
            lines: Arc::default(),
            uploads: Uploads::default(),
            absent: HashSet::new(),
            finished: HashSet::new(),
            leaving: Vec::new(),
            readers,
            decisions: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            summary: Summary::default(),
            planner,
        }
    }

    /// The main loop:
    /// - decide on every node whose inputs are done: what is fresh or cached is done at once, the rest is
    ///   queued;
    /// - start what the pools have room for, unless a failure or the cancel flag stops the build;
    /// - if nothing runs, nothing more can happen: the build is over;
    /// - otherwise wait for a message, and begin again.
    fn build<'s>(&mut self, scope: &'s Scope<'s, 'a>, receiver: &Receiver<Message>) -> Result<()>
    where
        'p: 's,
    {
        loop {
            let stop = self.stops();
            while let Some(id) = self.ready.pop_front().filter(|_| !stop) {
                self.decide(id)?;
            }
            while !self.stops() {
                if let Some(id) = self.next() {
                    self.begin(id, scope)?;
                } else if let Some(id) = self.remote.next() {
                    self.fetch(id, scope)?;
                } else {
                    break;
                }
            }
            self.release_all()?;
            if self.seats.running() + self.remote.running() == 0 {
                return Ok(());
            }
            self.leave_workers();
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok(Message::Progress(id, done, total)) => self.progress(id, done, total),
                Ok(Message::Measuring(id, measuring)) => {
                    let node = &self.planner.graph.node(id).name;
                    self.observer.event(&Event::Measuring { node, measuring: &measuring });
                }
                Ok(Message::Said(id, line)) => {
                    self.lines.fetch_sub(1, Ordering::Relaxed);
                    self.observer.event(&Event::Said { node: &self.planner.graph.node(id).name, line });
                }
                Ok(Message::Ended(id, outcome)) => self.ended(id, outcome)?,
                Ok(Message::Fetched(id, outcome)) => self.fetched(id, outcome)?,
                Ok(Message::Upload(event)) => self.uploaded(event),
                Ok(Message::Worker(id, report)) => self.reported(id, report)?,
                Ok(Message::Notice(message)) => self.observer.event(&Event::Notice { message }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => fail!(Bug, "the scheduler holds a sender itself"),
            }
        }
    }

    fn stops(&mut self) -> bool {
        self.summary.interrupted |= self.options.cancel.load(Ordering::Relaxed);
        let leaves = self.leaving_workers.load(Ordering::Relaxed);
        leaves || self.summary.interrupted || (!self.summary.failed.is_empty() && !self.options.keep_going)
    }

    fn decide(&mut self, id: NodeId) -> Result<()> {
        let artifacts = &self.artifacts;
        let decision = self.planner.decide(id, &|input| artifacts.get(&input))?;
        self.tell_notices();
        if matches!(decision.verdict, Verdict::Fresh | Verdict::Cached | Verdict::Recorded) {
            self.keep_record(&decision)?;
        }
        let node = self.planner.graph.node(id);
        let worked = self.worked.remove(&id);
        if worked.is_some() && decision.artifact.is_some() && !decision.is_stale() {
            self.summary.by_workers.push(id);
        }
        match (decision.verdict, decision.artifact.clone()) {
            (Verdict::Fresh, Some(artifact)) => {
                self.done(id, &decision, artifact, decision.failure.clone())?;
                self.note_absent(id, &decision);
            }
            (Verdict::Cached, Some(artifact)) => {
                self.link(id, &decision, artifact)?;
                self.note_absent(id, &decision);
            }
            (Verdict::Recorded, Some(artifact)) => {
                if !decision.lacks_source() {
                    self.planner.artifacts_dir.unlink(&node.name, &artifact)?;
                }
                self.done(id, &decision, artifact, decision.failure.clone())?;
                self.absent.insert(id);
            }
            (Verdict::Remote, Some(_)) => {
                self.set(id, NodeState::Queued);
                self.remote.enqueue(id, self.urgency(id));
                self.decisions.insert(id, decision);
            }
            (Verdict::Waits, _) => fail!(Bug, "a node is decided on when its inputs are done"),
            _ if let Some(worked) = worked => self.failed(id, &worked.refused()),
            _ if let Some(error) = self.refusal(id, &decision) => self.failed(id, &error),
            _ if self.lacks_inputs(id)? => {}
            _ => {
                self.set(id, NodeState::Queued);
                let urgency = self.urgency(id);
                self.slots(id).enqueue(id, urgency);
                self.decisions.insert(id, decision);
            }
        }
        Ok(())
    }

    /// Returns the slots that a node runs in.
    fn slots(&mut self, id: NodeId) -> &mut Pool {
        self.seats.of(id, self.planner.graph, self.planner.backend)
    }

    fn urgency(&self, id: NodeId) -> Urgency {
        let is_temporary = |id: NodeId| self.planner.graph.node(id).temporary;
        if self.planner.graph.inputs(id).any(|(_, input)| is_temporary(input)) {
            Urgency::UsesUp
        } else if is_temporary(id) {
            Urgency::MakesTemporary
        } else {
            Urgency::Ordinary
        }
    }

    /// Takes the next node that there is a slot for.
    fn next(&mut self) -> Option<NodeId> {
        self.seats.next()
    }

    /// Starts a node: on a thread of its own, or on the worker that it is placed on.
    fn begin<'s>(&mut self, id: NodeId, scope: &'s Scope<'s, 'a>) -> Result<()>
    where
        'p: 's,
    {
        match self.planner.graph.placed(id) {
            Some(number) => self.assign(id, number, scope),
            None => self.start(id, scope),
        }
    }

    fn progress(&mut self, id: NodeId, done: u64, total: u64) {
        if total > 0 {
            let node = self.planner.graph.node(id);
            let fetching =
                self.decisions.get(&id).is_some_and(|decision| decision.verdict == Verdict::Remote);
            let unit = if fetching { Unit::Bytes } else { node.stage.unit() };
            self.observer.event(&Event::Progress { node: &node.name, unit, done, total });
        }
    }
}
