//! Seats: where nodes run, and how many at once. The threads of this process are seats, the one worker program of models,
//! the pools that a pipeline file names, and each worker on other machines.
//! Knows nothing of how a node is started there.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use super::Options;
use super::driver::Assignment;
use super::pool::Pool;
use crate::graph::{Graph, NodeId};
use crate::stage::BackendKind;

/// All seats of a build.
pub(super) struct Seats {
    /// Threads.
    cpu: Pool,
    /// The worker program, which takes the whole machine.
    mlx: Pool,
    /// The pools that the pipeline file names.
    named: BTreeMap<String, Pool>,
    /// The workers, by their numbers.
    pub(super) workers: Vec<WorkerSeat>,
}

/// The seat of one worker.
pub(super) struct WorkerSeat {
    slots: Pool,
    /// Where its jobs go; `None` before the first.
    pub(super) assignments: Option<Sender<Assignment>>,
}

impl Seats {
    pub(super) fn new(options: &Options<'_>, graph: &Graph) -> Self {
        let named = graph.pools().iter().map(|(name, size)| (name.clone(), Pool::new(*size)));
        let seat = |slots| WorkerSeat { slots: Pool::new(slots), assignments: None };
        Self {
            cpu: Pool::new(options.jobs),
            mlx: Pool::new(1),
            named: named.collect(),
            workers: options.crews.iter().map(|crew| seat(crew.executor.slots())).collect(),
        }
    }

    /// Returns the slots that a node runs in.
    pub(super) fn of(&mut self, id: NodeId, graph: &Graph, backend: BackendKind) -> &mut Pool {
        let node = graph.node(id);
        if let Some(worker) = graph.placed(id).and_then(|number| self.workers.get_mut(number)) {
            return &mut worker.slots;
        }
        match node.pool.as_ref().and_then(|name| self.named.get_mut(name)) {
            Some(pool) => pool,
            None if node.stage.uses_worker(backend) => &mut self.mlx,
            None => &mut self.cpu,
        }
    }

    /// Takes the next node that there is a slot for.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        let here = self.here().find_map(Pool::next);
        here.or_else(|| self.elsewhere().find_map(Pool::next))
    }

    /// Returns how many nodes run.
    pub(super) fn running(&mut self) -> usize {
        self.running_here() + self.elsewhere().map(|slots| slots.running()).sum::<usize>()
    }

    /// Returns how many nodes run on this machine.
    pub(super) fn running_here(&mut self) -> usize {
        self.here().map(|slots| slots.running()).sum()
    }

    fn here(&mut self) -> impl Iterator<Item = &mut Pool> {
        [&mut self.cpu, &mut self.mlx].into_iter().chain(self.named.values_mut())
    }

    fn elsewhere(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.workers.iter_mut().map(|worker| &mut worker.slots)
    }
}
