//! Plans a build: what it would do, and why. Runs nothing.
//! Knows nothing of how the plan is shown.

use std::collections::HashSet;
use std::thread::available_parallelism;

use super::workers::Placing;
use super::{Project, RemoteChoice};
use crate::error::{OrBug, Result, fail};
use crate::forecast::{self, Forecast};
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
    /// How many stages run at once, at least one; if `None`, as many as there are processors. MLX always runs
    /// one.
    pub jobs: Option<usize>,
    /// Whether the nodes that would run are checked, as a build does before it runs anything, and what they take is
    /// forecast.
    pub preflight: bool,
    /// The backend that computes weights.
    pub backend: BackendKind,
    /// What runs the models of benchmarks that do not say it themselves.
    pub device: DeviceChoice,
    /// Which remote is asked.
    pub remote: RemoteChoice,
    /// Which workers nodes are placed on.
    pub placing: Placing,
}

/// What a build would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the build would take; `None` if nothing would run, or if it was not asked for.
    pub forecast: Option<Forecast>,
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
        self.place_nodes(options.placing, options.device);
        let targets = self.targets(&options.targets)?;
        let ids = self.graph.closure(&targets);
        let lock = self.lockfile()?;
        self.connect(&options.remote, &lock)?;
        let mut request = self.request(&options.targets, &targets);
        if options.force {
            request.force = targets.into_iter().collect();
        }
        let mut planner = self.planner(options.backend, request);
        let decisions = planner.plan(&ids)?;
        let request = planner.request;
        let mut forecast = None;
        if options.preflight {
            self.preflight(&decisions, false)?;
            forecast = self.forecast(&decisions, request, options)?;
        }
        self.save_state();
        Ok(Plan { forecast, decisions, notices: self.take_notices() })
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

    /// Forecasts what the build of `decisions` would take, if anything would run.
    fn forecast(
        &mut self,
        decisions: &[Decision],
        request: Request,
        options: &PlanOptions,
    ) -> Result<Option<Forecast>> {
        let is_work = |decision: &Decision| decision.is_stale() || decision.verdict == Verdict::Remote;
        if !decisions.iter().any(is_work) {
            return Ok(None);
        }
        let jobs = jobs(options.jobs);
        forecast::forecast(&mut self.planner(options.backend, request), decisions, jobs, true).map(Some)
    }

    /// Fails if the build of `decisions` does not fit on the disk or into memory.
    pub(super) fn check_room(
        &mut self,
        decisions: &[Decision],
        request: Request,
        options: &PlanOptions,
    ) -> Result<Request> {
        let mut planner = self.planner(options.backend, request);
        if !forecast::fits_surely(&planner, decisions) {
            let forecast = forecast::forecast(&mut planner, decisions, jobs(options.jobs), false)?;
            if let Some(problem) = forecast.problem() {
                fail!(Room, "{problem}; --anyway goes on");
            }
        }
        Ok(planner.request)
    }

    /// Returns the request for `targets`, whose files must be here. Missing files from the hub are downloaded again only
    /// for targets that the user named, and only then are the files of temporary nodes asked for.
    pub(super) fn request(&self, names: &[String], targets: &[NodeId]) -> Request {
        let named: HashSet<NodeId> =
            if names.is_empty() { HashSet::new() } else { targets.iter().copied().collect() };
        let is_asked_for = |id: &NodeId| named.contains(id) || !self.graph.node(*id).temporary;
        let materialize = targets.iter().copied().filter(is_asked_for).collect();
        Request { download: named.clone(), materialize, kept: named, ..Request::default() }
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

/// Returns how many stages run at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)).max(1)
}
