//! Nodes whose files are not here: they are fetched from the remote when they are needed, and built here if
//! that fails.
//! Knows nothing of how files are transferred.
//!
//! Of a node that no other node reads, it is enough to know the digest of the artifact. If a node must run
//! after all, its inputs that are not here are needed: each is decided on once more, and the node waits for
//! them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread::Scope;

use super::{Message, NodeState, Scheduler};
use crate::Error;
use crate::error::{OrBug, Result};
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::Decision;
use crate::recipe::Change;
use crate::share::Miss;
use crate::store::Stat;
use artifact::{Digest, Interrupted, IoError};

/// How many artifacts are fetched at once. One saturates most links; the second uses the link while the first
/// fetches small files.
pub(super) const AT_ONCE: usize = 2;

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Starts to fetch the artifact of a node on a thread.
    pub(super) fn fetch<'s>(&mut self, id: NodeId, scope: &'s Scope<'s, 'a>) -> Result<()>
    where
        'p: 's,
    {
        let decision = self.decisions.get(&id).or_bug("a queued node was decided on")?;
        let artifact = decision.artifact.clone().or_bug("what is fetched is known")?;
        let share = self.planner.share.or_bug("what is fetched is in a remote")?;
        let node = &self.planner.graph.node(id).name;
        for change in &decision.changes {
            if let Change::Damaged { problem } = change {
                let message = format!("{problem}; it is fetched again");
                self.observer.event(&Event::Warning { node, message });
            }
        }
        self.observer.event(&Event::Fetching { node, bytes: artifact.size() });
        self.set(id, NodeState::Running);
        let (store, sender, cancel) = (self.planner.store, self.sender.clone(), self.options.cancel);
        let started = artifact::start(scope, move || {
            let tick = |done, total| {
                // The owner outlives the transfers, and a lost message does no harm.
                let _ = sender.send(Message::Progress(id, done, total));
                if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| share.pull(store, &artifact, &tick)));
            let outcome = outcome.unwrap_or_else(|_| {
                Err(Miss::LocalIo(Error::Bug("the transfer panicked; see above".to_owned())))
            });
            let _ = sender.send(Message::Fetched(id, outcome));
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => self.fetched(id, Err(Miss::LocalIo(Error::no_thread(&error)))),
        }
    }

    /// Handles the end of a fetch. What was fetched is put in place. If the remote failed or lost a file, its
    /// record is forgotten, and the node is decided on again.
    pub(super) fn fetched(&mut self, id: NodeId, outcome: Result<Vec<(Stat, Digest)>, Miss>) -> Result<()> {
        self.remote.leave();
        self.tell_notices();
        let decision = self.decisions.remove(&id).or_bug("a running node was decided on")?;
        let stats = match outcome {
            Ok(stats) => stats,
            Err(Miss::Interrupted(_)) => {
                self.summary.interrupted = true;
                self.set(id, NodeState::Waiting(0));
                return Ok(());
            }
            Err(Miss::LocalIo(error)) => {
                self.failed(id, &error);
                return Ok(());
            }
            Err(Miss::Lost(problem)) if self.is_lost_twice(id) => {
                self.failed(id, &Error::NotBuilt(problem));
                return Ok(());
            }
            Err(Miss::Lost(_) | Miss::Down(_)) => {
                if let (Some(share), Some(key)) = (self.planner.share, &decision.key) {
                    share.forget(key);
                }
                self.set(id, NodeState::Waiting(0));
                self.ready.push_back(id);
                return Ok(());
            }
        };
        for (stat, digest) in stats {
            self.planner.state.stats.remember(stat, digest);
        }
        let artifact = decision.artifact.clone().or_bug("what is fetched is known")?;
        if self.contradicts_the_lock(id, &decision, &artifact) {
            return Ok(());
        }
        if let Err(error) = self.put_in_place(id, &artifact) {
            if !self.is_gone(id, &artifact) {
                self.failed(id, &error);
                return Ok(());
            }
            // A file that was here already, and that no record named, was collected while the rest was
            // fetched.
            self.set(id, NodeState::Waiting(0));
            self.ready.push_back(id);
            return Ok(());
        }
        self.keep_record(&decision)?;
        let node = &self.planner.graph.node(id).name;
        let (bytes, digest) = (artifact.size(), artifact.digest());
        self.observer.event(&Event::Fetched { node, bytes, artifact: digest });
        self.done(id, &decision, artifact, decision.failure.clone())?;
        let counts = self.summary.done.contains_key(&id) && !self.summary.by_workers.contains(&id);
        self.summary.fetched += usize::from(counts);
        Ok(())
    }

    /// Notes that the remote has lost the files of a node that a worker makes. Returns whether it was made again already.
    fn is_lost_twice(&mut self, id: NodeId) -> bool {
        self.planner.graph.placed(id).is_some() && !self.lost_in_remote.insert(id)
    }

    /// Writes the remote's record of a node to the cache, once its files are in place or not needed.
    pub(super) fn keep_record(&self, decision: &Decision) -> Result<(), IoError> {
        match (self.planner.share, &decision.key) {
            (Some(share), Some(key)) => share.keep(key, self.planner.store),
            _ => Ok(()),
        }
    }

    /// Whether inputs of a node that must run are not here. If so, their files are requested, and the node
    /// waits for them.
    pub(super) fn lacks_inputs(&mut self, id: NodeId) -> Result<bool> {
        let inputs = self.planner.graph.inputs(id).map(|(_, input)| input);
        let mut absent: Vec<_> = inputs.filter(|input| self.absent.contains(input)).collect();
        absent.sort();
        absent.dedup();
        if self.planner.graph.placed(id).is_some() {
            // A worker brings its inputs from the remote.
            let is_there = absent.iter().map(|input| self.is_in_remote(*input));
            let is_there = is_there.collect::<Result<Vec<_>>>()?;
            absent = absent.into_iter().zip(is_there).filter(|(_, there)| !there).map(|(id, _)| id).collect();
        }
        if absent.is_empty() {
            return Ok(false);
        }
        self.planner.materialize(&absent);
        self.set(id, NodeState::Waiting(absent.len()));
        for input in absent {
            self.dependents[input.index()].push(id);
            if self.state(input) == Some(NodeState::Done) {
                self.needs_inputs_again(input);
                self.set(input, NodeState::Waiting(0));
                self.ready.push_back(input);
            }
        }
        Ok(true)
    }

    /// Notes a node whose source on the hub is known by its commit, but whose files are not here.
    pub(super) fn note_absent(&mut self, id: NodeId, decision: &Decision) {
        if decision.lacks_download() {
            self.absent.insert(id);
        }
    }

    /// Passes the messages about the remote on to the observer.
    pub(super) fn tell_notices(&mut self) {
        for message in self.planner.share.map(crate::share::Share::notices).unwrap_or_default() {
            self.observer.event(&Event::Notice { message });
        }
    }
}
