//! The states of a node in a build, and the one place where they change.
//! Knows nothing of why they change.

use super::Scheduler;
use crate::graph::NodeId;

/// Where a node is in a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// This many of its inputs are not done.
    Waiting(usize),
    /// It waits for a place in a pool.
    Queued,
    /// Its stage runs, or its files are being fetched.
    Running,
    /// Its artifact is known, and in place if it is needed.
    Done,
    /// It failed.
    Failed,
    /// It does not run, because an input failed.
    Skipped,
}

impl NodeState {
    /// Whether a node may go from this state to `next`.
    fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // A node waits again if another input is done, if it was interrupted, or if its files are gone or
            // needed after all.
            (Self::Waiting(_) | Self::Running | Self::Done, Self::Waiting(_))
            | (Self::Waiting(_), Self::Queued)
            | (Self::Queued, Self::Running)
            // If the inputs of a queued node cannot be found, it fails without running.
            | (Self::Waiting(_) | Self::Queued | Self::Running, Self::Done | Self::Failed)
            | (Self::Waiting(_) | Self::Failed, Self::Skipped) => true,
            _ => false,
        }
    }
}

impl Scheduler<'_, '_> {
    /// Sets the state of a node. All changes of state go through here.
    pub(super) fn set(&mut self, id: NodeId, state: NodeState) {
        let old = self.states[id.index()].replace(state);
        debug_assert!(
            old.is_some_and(|old| old.may_become(state)),
            "BUG: node `{}` went from {old:?} to {state:?}",
            self.planner.graph.node(id).name
        );
    }

    /// Returns the state of a node, or `None` if it is not part of this build.
    pub(super) fn state(&self, id: NodeId) -> Option<NodeState> {
        self.states[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::NodeState::{Done, Failed, Queued, Running, Skipped, Waiting};

    #[test]
    fn nodes_go_forward_or_wait_again() {
        for (from, to) in [
            (Waiting(0), Queued),
            (Queued, Running),
            (Running, Done),
            (Waiting(0), Done),
            (Running, Waiting(0)),
            (Done, Waiting(0)),
            (Waiting(2), Skipped),
        ] {
            assert!(from.may_become(to), "{from:?} to {to:?}");
        }
        for (from, to) in [(Done, Running), (Failed, Done), (Skipped, Queued), (Queued, Waiting(0))] {
            assert!(!from.may_become(to), "{from:?} to {to:?}");
        }
    }
}
