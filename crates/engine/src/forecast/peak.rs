//! How many bytes of a build are on the disk at once, at most: its nodes are run in the mind, in the order in which the
//! scheduler runs them.
//! Knows nothing of where the sizes come from.

use std::collections::HashSet;

use super::NodeForecast;
use crate::graph::NodeId;
use crate::plan::{Decision, Planner};

/// One node that runs.
#[derive(Clone, Debug)]
pub(super) struct Step {
    id: NodeId,
    bytes: u64,
    /// Whether its files go when its readers are done.
    temporary: bool,
    /// The nodes that it reads. Those that need not run are not among them.
    inputs: Vec<NodeId>,
    /// Whether it reads temporary files.
    uses_up: bool,
}

impl Step {
    pub(super) fn new(planner: &Planner<'_>, node: &NodeForecast, decisions: &[Decision]) -> Self {
        let Planner { graph, request, .. } = planner;
        let is_temporary = |id: NodeId| graph.node(id).temporary && !request.kept.contains(&id);
        let all = || graph.inputs(node.id).map(|(_, input)| input);
        let runs =
            |input: &NodeId| decisions.iter().any(|decision| decision.id == *input && decision.is_stale());
        Self {
            id: node.id,
            bytes: node.size.bytes(),
            temporary: is_temporary(node.id),
            inputs: all().filter(runs).collect(),
            uses_up: all().any(is_temporary),
        }
    }
}

/// Returns the most bytes that are on the disk at once, if up to `jobs` steps run at a time.
pub(super) fn peak(steps: &[Step], jobs: usize) -> u64 {
    let mut waiting: Vec<&Step> = steps.iter().collect();
    let (mut running, mut done) = (Vec::<&Step>::new(), HashSet::new());
    let mut here: Vec<&Step> = Vec::new();
    let mut most = 0;
    loop {
        while running.len() < jobs.max(1) {
            let is_ready = |step: &&&Step| step.inputs.iter().all(|input| done.contains(input));
            // The same order as in the scheduler's pools.
            let next =
                waiting.iter().filter(is_ready).min_by_key(|step| (!step.uses_up, step.temporary)).copied();
            let Some(next) = next else { break };
            waiting.retain(|step| step.id != next.id);
            running.push(next);
            here.push(next);
        }
        most = most.max(here.iter().map(|step| step.bytes).sum());
        if running.is_empty() {
            return most;
        }
        done.insert(running.remove(0).id);
        here.retain(|step| {
            let mut readers = steps.iter().filter(|reader| reader.inputs.contains(&step.id));
            !(step.temporary && done.contains(&step.id)) || readers.any(|reader| !done.contains(&reader.id))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::manifest::Manifest;

    /// Three chains: a temporary node of 16 bytes, and one of 8 and one of 4 that read it.
    fn steps(temporary: bool) -> Vec<Step> {
        let nodes: String =
            (0..9).map(|number| format!("  n{number}: {{stage: base, source: s}}\n")).collect();
        let graph = Graph::check(Manifest::parse(&format!("version: 1\nnodes:\n{nodes}")).unwrap()).unwrap();
        let ids: Vec<_> = graph.order().to_vec();
        let chain = |number: usize| {
            let fused = Step { id: ids[number], bytes: 16, temporary, inputs: Vec::new(), uses_up: false };
            let reader = |place: usize, bytes| Step {
                id: ids[place],
                bytes,
                temporary: false,
                inputs: vec![fused.id],
                uses_up: temporary,
            };
            [fused.clone(), reader(3 + number, 8), reader(6 + number, 4)]
        };
        (0..3).flat_map(chain).collect()
    }

    #[test]
    fn temporary_files_go_before_others_are_made() {
        assert_eq!(peak(&steps(false), 1), 3 * (16 + 8 + 4));
        assert_eq!(peak(&steps(true), 1), 16 + 3 * (8 + 4));
        assert_eq!(peak(&steps(true), 100), 3 * (16 + 8 + 4));
        assert_eq!(peak(&[], 1), 0);
    }
}
