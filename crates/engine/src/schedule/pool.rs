//! A pool: limits how many nodes use a resource at once, and queues those that wait for it.
//! Knows nothing of what the resource is.

use std::collections::VecDeque;

use crate::graph::NodeId;

/// The nodes that use one resource or wait for it.
pub(super) struct Pool {
    depth: usize,
    running: usize,
    /// The most urgent first; among the same urgency, in the order in which they came.
    queue: VecDeque<(Urgency, NodeId)>,
}

/// How soon a waiting node runs. Temporary files are used up before new ones are made, so that few of them are on the
/// disk at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It reads temporary files.
    UsesUp,
    /// It has nothing to do with temporary files.
    Ordinary,
    /// It makes temporary files.
    MakesTemporary,
}

impl Pool {
    /// Makes a pool that `depth` nodes may use at once.
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, running: 0, queue: VecDeque::new() }
    }

    /// Puts a node into the queue, behind those that are as urgent.
    pub(super) fn enqueue(&mut self, id: NodeId, urgency: Urgency) {
        let place = self.queue.partition_point(|(other, _)| *other <= urgency);
        self.queue.insert(place, (urgency, id));
    }

    /// Takes the next node from the queue, if there is a free place.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let next = if self.running < self.depth { self.queue.pop_front() } else { None };
        let id = next.map(|(_, id)| id);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::manifest::Manifest;

    #[test]
    fn temporary_files_are_used_up_before_new_ones_are_made() {
        let nodes: String =
            (0..5).map(|number| format!("  n{number}: {{stage: base, source: s}}\n")).collect();
        let graph = Graph::check(Manifest::parse(&format!("version: 1\nnodes:\n{nodes}")).unwrap()).unwrap();
        let mut pool = Pool::new(4);
        let urgencies = [
            Urgency::MakesTemporary,
            Urgency::Ordinary,
            Urgency::UsesUp,
            Urgency::MakesTemporary,
            Urgency::UsesUp,
        ];
        graph.order().iter().zip(urgencies).for_each(|(id, urgency)| pool.enqueue(*id, urgency));
        let order: Vec<_> = (0..5).map_while(|_| pool.next()).map(NodeId::index).collect();
        assert_eq!(order, [2, 4, 1, 0], "and no more than may run at once");
        pool.leave();
        assert_eq!(pool.next().map(NodeId::index), Some(3));
    }
}
