//! Push and pull: uploads artifacts to the remote, and downloads them from it.
//! Knows nothing of how files are transferred.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NEVER, PlanOptions, Project};
use crate::Error;
use crate::error::{OrBug, Result};
use crate::event::{Event, Observer};
use crate::graph::NodeId;
use crate::plan::{Decision, Request, Verdict};
use crate::schedule::{self, MaySign, Options, Summary};
use crate::share::{Traffic, Unsent};
use crate::stage::Unit;
use crate::store::Counters;
use artifact::Interrupted;

/// What to push or pull.
#[derive(Clone, Debug)]
pub struct TransferOptions<'a> {
    /// Which nodes, and which remote.
    pub plan: PlanOptions,
    /// Whether a push signs with the user's key also what somebody else made.
    pub adopt: bool,
    /// The caller sets this flag to stop the transfer.
    pub cancel: &'a AtomicBool,
}

impl Default for TransferOptions<'_> {
    fn default() -> Self {
        Self { plan: PlanOptions::default(), adopt: false, cancel: &NEVER }
    }
}

/// The result of a pull.
#[derive(Clone, Debug)]
pub struct PullOutcome {
    /// How the pull ended. A node that is neither here nor in the remote has failed.
    pub summary: Summary,
    /// How many bytes were transferred.
    pub traffic: Traffic,
}

/// The result of a push.
#[derive(Clone, Debug, Default)]
pub struct PushOutcome {
    /// How many nodes are in the remote now.
    pub sent: usize,
    /// How many are not built here.
    pub not_built: usize,
    /// How many were not sent, because somebody else made them and nobody who is trusted signed them.
    pub not_ours: usize,
    /// How many bytes were transferred.
    pub traffic: Traffic,
    /// Messages about the remote for the user.
    pub notices: Vec<String>,
}

impl Project {
    /// Fetches the artifacts of the targets, and the records of all their ancestors. The only stages that run
    /// are `base` and `adapter`, which take in sources.
    ///
    /// # Errors
    /// Fails if there is no remote or a target does not exist, if a source cannot be read, or if the cache or
    /// `artifacts/` cannot be written.
    pub fn pull(
        &mut self,
        options: &TransferOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<PullOutcome> {
        self.place_nodes(options.plan.placing, options.plan.device);
        self.must_connect(&options.plan.remote)?;
        let targets = self.targets(&options.plan.targets)?;
        let ids = self.graph.closure(&targets);
        self.store.prepare()?;
        self.artifacts_dir.prepare()?;
        let worker = self.worker.clone();
        let fetch = Options {
            jobs: 1,
            keep_going: true,
            locked: None,
            fetch_only: true,
            commands: false,
            upload: false,
            verbose: false,
            worker: &worker,
            crews: &[],
            detach: false,
            cancel: options.cancel,
        };
        let request = self.request(&options.plan.targets, &targets);
        let planner = self.planner(options.plan.backend, request);
        let summary = schedule::run(planner, &ids, &fetch, observer);
        self.save_state();
        if let Ok(Summary { fetched, .. }) = &summary {
            let remote_hits = u64::try_from(*fetched).unwrap_or(u64::MAX);
            self.store.count(&Counters { remote_hits, ..self.moved() });
        }
        self.store.finish()?;
        Ok(PullOutcome { summary: summary?, traffic: self.traffic() })
    }

    /// Uploads the artifacts of the targets and of all their ancestors, signed, as far as they are built
    /// here.
    ///
    /// # Errors
    /// Fails if there is no remote or no signing key, if a target does not exist, or if the remote refuses or
    /// does not answer. A node that is not built here is not an error: it is counted, and the observer was
    /// told.
    pub fn push(
        &mut self,
        options: &TransferOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<PushOutcome> {
        self.place_nodes(options.plan.placing, options.plan.device);
        self.must_connect(&options.plan.remote)?;
        let targets = self.targets(&options.plan.targets)?;
        let ids = self.graph.closure(&targets);
        // The plan is made without the remote, because only what is here can be uploaded.
        let share = self.share.take();
        let decisions = self.planner(options.plan.backend, Request::default()).plan(&ids);
        self.share = share;
        let decisions = decisions?;
        self.save_state();
        self.store.prepare()?;
        let named = if options.plan.targets.is_empty() { &[] } else { targets.as_slice() };
        let pushed = self.push_all(&decisions, named, options, observer);
        let notices = self.take_notices();
        self.store.count(&self.moved());
        self.store.finish()?;
        match pushed {
            Ok(pushed) => Ok(PushOutcome { traffic: self.traffic(), notices, ..pushed }),
            Err(problem) => {
                notices.into_iter().for_each(|message| observer.event(&Event::Notice { message }));
                Err(problem.into())
            }
        }
    }

    fn push_all(
        &self,
        decisions: &[Decision],
        named: &[NodeId],
        options: &TransferOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<PushOutcome, Unsent> {
        let share = self.share.as_ref().or_bug("a push has a remote")?;
        let observer = Mutex::new(observer);
        let show = |event: &Event<'_>| {
            if let Ok(mut observer) = observer.lock() {
                observer.event(event);
            }
        };
        let mut pushed = PushOutcome::default();
        for decision in decisions {
            let node = &self.graph.node(decision.id).name;
            if decision.verdict == Verdict::Recorded && !named.contains(&decision.id) {
                // Its files are not here: whoever made them uploaded them, or they are no longer needed.
                continue;
            }
            let is_built = matches!(decision.verdict, Verdict::Fresh | Verdict::Cached);
            let Some(key) = decision.key.filter(|_| is_built) else {
                pushed.not_built += 1;
                let message = "not here; `pipeline build` makes it".to_owned();
                show(&Event::Warning { node, message });
                continue;
            };
            show(&Event::Sending { node });
            let tick = |done, total| {
                show(&Event::Progress { node, unit: Unit::Bytes, done, total });
                if options.cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
            };
            let before = share.traffic();
            let may_sign = if options.adopt { MaySign::Anything } else { MaySign::MadeHere };
            let source = self.sources.path(&self.graph, decision.id);
            match schedule::send(share, &self.store, &key, may_sign, source.as_deref(), &tick) {
                Err(problem @ Unsent::NotOurs) => {
                    pushed.not_ours += 1;
                    show(&Event::Warning { node, message: problem.to_string() });
                    continue;
                }
                sent => sent?,
            }
            let now = share.traffic();
            let (bytes, already_there) = (now.sent - before.sent, now.already_there - before.already_there);
            show(&Event::Sent { node, bytes, already_there });
            pushed.sent += 1;
        }
        Ok(pushed)
    }
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::NoKey | Unsent::NotOurs => Self::Key(unsent.to_string()),
            Unsent::Down(error) => Self::Remote(error),
            Unsent::AlreadyReported => Self::Store(unsent.to_string()),
            Unsent::Interrupted(interrupted) => Self::Interrupted(interrupted),
            Unsent::LocalIo(error) => error,
        }
    }
}
