//! Plans a build: what it would do, and why. Runs nothing.
//! Knows nothing of how the plan is shown.

use super::{Project, RemoteChoice};
use crate::error::{OrBug, Result};
use crate::graph::NodeId;
use crate::plan::{Decision, Request, Verdict};
use crate::stage::{BackendKind, DeviceChoice};

/// What to plan for.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The names of the nodes. If empty, all nodes.
    pub targets: Vec<String>,
    /// Whether the targets run even if they are up to date.
    pub force: bool,
    /// Whether the nodes that would run are checked, as a build does before it runs anything.
    pub preflight: bool,
    /// The backend that computes weights.
    pub backend: BackendKind,
    /// What runs the models of benchmarks that do not say it themselves.
    pub device: DeviceChoice,
    /// Which remote is asked.
    pub remote: RemoteChoice,
}

/// What a build would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A decision for each target and each of its ancestors, each after its inputs.
    pub decisions: Vec<Decision>,
    /// Messages about the remote for the user.
    pub notices: Vec<String>,
}

impl Plan {
    /// Returns the decisions that explain the last one: that one itself, and if it waits, those of all nodes
    /// that must run before.
    pub fn causes(&self) -> Vec<&Decision> {
        let Some(last) = self.decisions.last() else { return Vec::new() };
        let is_cause = |decision: &&Decision| {
            last.verdict == Verdict::Waits && decision.verdict == Verdict::Stale && decision.id != last.id
        };
        [last].into_iter().chain(self.decisions.iter().filter(is_cause)).collect()
    }
}

impl Project {
    /// Decides what a build of these targets would do. Writes nothing except the local state.
    ///
    /// # Errors
    /// Fails if a target does not exist, if a source cannot be read, or if `preflight` is set and a stage
    /// that would run is known to fail.
    pub fn plan(&mut self, options: &PlanOptions) -> Result<Plan> {
        self.graph.choose_device(options.device);
        let targets = self.targets(&options.targets)?;
        let ids = self.graph.closure(&targets);
        let lock = self.lockfile()?;
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

    /// Decides on one node and on all its ancestors. The last decision is that of the node.
    ///
    /// # Errors
    /// Fails as [`Self::plan`] does.
    pub fn why(&mut self, target: &str, options: &PlanOptions) -> Result<Plan> {
        let plan = self.plan(&PlanOptions { targets: vec![target.to_owned()], ..options.clone() })?;
        plan.decisions.last().or_bug("a target is among what it is made from")?;
        Ok(plan)
    }

    /// Decides on `ids` from what is here and on record. A node with a record does not need its files here.
    ///
    /// # Errors
    /// Fails if a source cannot be read.
    pub fn plan_records(&mut self, ids: &[NodeId], backend: BackendKind) -> Result<Vec<Decision>> {
        let decisions = self.planner(backend, Request::default()).plan(ids)?;
        self.save_state();
        Ok(decisions)
    }
}

/// Returns the request for `targets`, whose files must be here. Missing files from the hub are downloaded
/// again only for targets that the user named.
pub(super) fn request(names: &[String], targets: &[NodeId]) -> Request {
    let named: &[NodeId] = if names.is_empty() { &[] } else { targets };
    let download = named.iter().copied().collect();
    Request { download, materialize: targets.iter().copied().collect(), ..Request::default() }
}
