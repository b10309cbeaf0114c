//! Why a node that must run does not run in this build.
//! Knows nothing of how nodes run.

use super::Scheduler;
use crate::Error;
use crate::graph::NodeId;
use crate::plan::Decision;
use crate::recipe::Change;
use crate::stage::Stage;

impl Scheduler<'_, '_> {
    /// Returns the error of a node that may not run in this build, or that nobody asked to make anew.
    pub(super) fn refusal(&self, id: NodeId, decision: &Decision) -> Option<Error> {
        let node = self.planner.graph.node(id);
        let (stage, name, options) = (&node.stage, &node.name, self.options);
        if options.fetch_only && !stage.is_reference() {
            let problem = "neither the cache nor the remote has it; `pipeline build` makes it";
            return Some(Error::NotBuilt(problem.to_owned()));
        }
        if !options.commands && matches!(stage, Stage::Run(_)) {
            let problem = "neither the cache nor the remote has it, and its command may not run";
            return Some(Error::NotBuilt(problem.to_owned()));
        }
        if let Err(error) = self.unplaceable(id) {
            return Some(error);
        }
        if stage.is_deterministic() {
            return None;
        }
        if options.locked.is_some() {
            let problem = "`deterministic: false`: it would come out differently than in the lock, so it is not made again; \
                           neither the cache nor the remote has what the lock names: `pipeline pull` brings it from a remote, \
                           and without --locked it is made anew";
            return Some(Error::Locked(problem.to_owned()));
        }
        let lost = lost(decision)?;
        Some(Error::NotBuilt(format!(
            "{lost}; `deterministic: false`: it would come out differently, so it is not made again by itself: \
             `pipeline pull {name}` brings it from a remote, `pipeline build {name} --force` makes another"
        )))
    }
}

/// Returns why a recorded artifact cannot be used, if that is why its node must run.
fn lost(decision: &Decision) -> Option<String> {
    decision.changes.iter().find_map(|change| match change {
        Change::Damaged { problem } => Some(problem.clone()),
        Change::FilesLost => Some("its files are not here, nor in a remote that was asked".to_owned()),
        _ => None,
    })
}
