//! A pool: a resource that so many stages may use at once, and those that wait for it.
//! Knows nothing of what the resource is.

use std::collections::VecDeque;

use crate::graph::NodeId;

/// Stages that use one resource.
pub(super) struct Pool {
    depth: usize,
    running: usize,
    queue: VecDeque<NodeId>,
}

impl Pool {
    /// Makes a pool that `depth` stages may use at once.
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, running: 0, queue: VecDeque::new() }
    }

    /// Puts a node at the end of the queue.
    pub(super) fn enqueue(&mut self, id: NodeId) {
        self.queue.push_back(id);
    }

    /// Takes the next node that may run, if there is room for one.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let id = if self.running < self.depth { self.queue.pop_front() } else { None };
        self.running += usize::from(id.is_some());
        id
    }

    /// Gives back the room of one that ended.
    pub(super) fn leave(&mut self) {
        self.running -= 1;
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running
    }
}
