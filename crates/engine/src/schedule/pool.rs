//! A pool: limits how many nodes use a resource at once, and queues those that wait for it.
//! Knows nothing of what the resource is.

use std::collections::VecDeque;

use crate::graph::NodeId;

/// The nodes that use one resource or wait for it.
pub(super) struct Pool {
    depth: usize,
    running: usize,
    queue: VecDeque<NodeId>,
}

impl Pool {
    /// Makes a pool that `depth` nodes may use at once.
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, running: 0, queue: VecDeque::new() }
    }

    /// Puts a node at the end of the queue.
    pub(super) fn enqueue(&mut self, id: NodeId) {
        self.queue.push_back(id);
    }

    /// Takes the next node from the queue, if there is a free place.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let id = if self.running < self.depth { self.queue.pop_front() } else { None };
        self.running += usize::from(id.is_some());
        id
    }

    /// Frees the place of a node that ended.
    pub(super) fn leave(&mut self) {
        self.running -= 1;
    }

    /// Returns how many nodes run.
    pub(super) fn running(&self) -> usize {
        self.running
    }
}
