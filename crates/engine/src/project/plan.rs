//! What a build would do, and why: decided, and nothing run.
//! Knows nothing of how it is shown.

use super::{Project, RemoteChoice};
use crate::error::{OrBug, Result};
use crate::graph::NodeId;
use crate::plan::{Decision, Request, Verdict};
use crate::stage::BackendKind;

/// What to plan for.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The names of the nodes; none means all.
    pub targets: Vec<String>,
    /// Whether the targets run even if they are up to date.
    pub force: bool,
    /// Whether what would run is checked, as a build does before it runs anything.
    pub preflight: bool,
    /// What weights are computed with.
    pub backend: BackendKind,
    /// Which remote is asked.
    pub remote: RemoteChoice,
}

/// What a build would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A decision for each target and all it is made from, each after its inputs.
    pub decisions: Vec<Decision>,
    /// What the user should be told of the remote.
    pub notices: Vec<String>,
}

impl Plan {
    /// Returns the decisions that explain the last one: its own, and if it waits, those of all nodes that must run before.
    pub fn causes(&self) -> Vec<&Decision> {
        let Some(last) = self.decisions.last() else { return Vec::new() };
        let is_cause = |decision: &&Decision| {
            last.verdict == Verdict::Waits && decision.verdict == Verdict::Stale && decision.id != last.id
        };
        [last].into_iter().chain(self.decisions.iter().filter(is_cause)).collect()
    }
}

impl Project {
    /// Decides what a build of these targets would do. Writes nothing but what this machine remembers of the disk.
    ///
    /// # Errors
    /// Fails if a target does not exist, if a source cannot be read, or if a stage that would run is known to fail and
    /// `preflight` is set.
    pub fn plan(&mut self, options: &PlanOptions) -> Result<Plan> {
        let targets = self.targets(&options.targets)?;
        let ids = self.graph.closure(&targets);
        let lock = self.lockfile();
        self.connect(&options.remote, &lock)?;
        let mut request = request(&options.targets, &targets);
        if options.force {
            request.force = targets.into_iter().collect();
        }
        let decisions = self.planner(options.backend, request).plan(&ids)?;
        if options.preflight {
            self.preflight(&decisions)?;
        }
        self.save_state();
        Ok(Plan { decisions, notices: self.take_notices() })
    }

    /// Decides on one node, and on all it is made from: the last decision is that of the node.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn why(&mut self, target: &str, options: &PlanOptions) -> Result<Plan> {
        let plan = self.plan(&PlanOptions { targets: vec![target.to_owned()], ..options.clone() })?;
        plan.decisions.last().or_bug("a target is among what it is made from")?;
        Ok(plan)
    }

    /// Decides on all nodes by what is here and on record. Files that are not here are not missed.
    ///
    /// # Errors
    /// Fails if a source cannot be read.
    pub fn plan_records(&mut self, ids: &[NodeId], backend: BackendKind) -> Result<Vec<Decision>> {
        let decisions = self.planner(backend, Request::default()).plan(ids)?;
        self.save_state();
        Ok(decisions)
    }
}

/// Returns what is asked by naming `targets`.
pub(super) fn request(names: &[String], targets: &[NodeId]) -> Request {
    let named: &[NodeId] = if names.is_empty() { &[] } else { targets };
    let download = named.iter().copied().collect();
    Request { download, materialize: targets.iter().copied().collect(), ..Request::default() }
}
