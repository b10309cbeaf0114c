//! Builds a project: resolves commits, plans, checks, runs stages, signs, and writes the lock.
//! Knows nothing of how a stage works, nor of how progress is shown.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::plan::jobs;
use super::up_to_date::question;
use super::workers::Placing;
use super::{NEVER, PlanOptions, Project};
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::graph::NodeId;
use crate::lockfile::Lockfile;
use crate::plan::{Decision, Request, Verdict};
use crate::schedule::{self, Options, Summary};
use crate::share::Believed;
use crate::stage::BackendKind;
use crate::store::{Counters, Repair, has_no_locks};
use artifact::{Digest, in_one_line};

const NO_LOCKS: &str = "the file system of the cache has no locks; do not run two builds on it at once";

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct BuildOptions<'a> {
    /// Which nodes to build, and with which backend and remote.
    pub plan: PlanOptions,
    /// Whether to go on with nodes that do not depend on a failed one.
    pub keep_going: bool,
    /// Whether to build what will not fit on the disk or into memory.
    pub anyway: bool,
    /// Which revisions of sources on the hub are resolved.
    pub revisions: Revisions,
    /// Whether the commands of `run` nodes may run. If not, workers are not used either, because their engines are commands.
    pub commands: bool,
    /// Whether to end when only workers have something to do, and to let them go on.
    pub detach: bool,
    /// Whether new artifacts are uploaded to the remote.
    pub upload: bool,
    /// Whether the observer gets each line that a command writes.
    pub verbose: bool,
    /// The caller sets this flag to stop the build.
    pub cancel: &'a AtomicBool,
}

impl Default for BuildOptions<'_> {
    fn default() -> Self {
        Self {
            plan: PlanOptions::default(),
            keep_going: false,
            anyway: false,
            revisions: Revisions::default(),
            commands: true,
            detach: false,
            upload: true,
            verbose: false,
            cancel: &NEVER,
        }
    }
}

/// Which branches and tags of sources on the hub are resolved to commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revisions {
    /// Those that the lock does not have.
    #[default]
    New,
    /// All, and the lock is updated.
    Update,
    /// None: the lock must have all of them, and every artifact must be what the lock says.
    Locked,
}

/// What a build did.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// The targets and all their ancestors, each after its inputs.
    pub nodes: Vec<NodeId>,
    /// How the build ended.
    pub summary: Summary,
}

impl BuildOutcome {
    /// Returns how many nodes were up to date.
    pub fn up_to_date(&self) -> usize {
        let Summary { ran, by_workers, linked, fetched, done, .. } = &self.summary;
        let is_same = |id: &&NodeId| !ran.contains(id) && !by_workers.contains(id);
        done.keys().filter(is_same).count().saturating_sub(linked + fetched)
    }

    /// Whether every node is done.
    pub fn is_success(&self) -> bool {
        self.summary.failed.is_empty() && !self.summary.interrupted
    }
}

impl BuildOptions<'_> {
    /// Returns which workers are used.
    pub(super) fn placing(&self) -> Placing {
        if self.commands { self.plan.placing } else { Placing::Here }
    }
}

impl Project {
    /// Builds what is missing or stale. Writes `pipeline.lock`, except with [`Revisions::Locked`].
    ///
    /// ```
    /// use engine::event::Silent;
    /// use engine::project::{BuildOptions, Project, ProjectPath};
    ///
    /// # fn write_model(folder: &std::path::Path) -> std::io::Result<()> {
    /// #     use std::fs::write;
    /// #     std::fs::create_dir_all(folder)?;
    /// #     write(folder.join("config.json"), r#"{"model_type": "llama", "num_hidden_layers": 1}"#)?;
    /// #     write(folder.join("tokenizer.json"), r#"{"model": {}}"#)?;
    /// #     let header = r#"{"model.embed_tokens.weight":{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]}}"#;
    /// #     let header = format!("{header:<0$}", header.len().next_multiple_of(8));
    /// #     let data = (0..64).flat_map(|value: u8| f32::from(value).to_le_bytes());
    /// #     let bytes: Vec<u8> =
    /// #         (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(data).collect();
    /// #     write(folder.join("model.safetensors"), bytes)
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// write_model(&folder.path().join("model"))?;
    /// std::fs::write(
    ///     folder.path().join("pipeline.yaml"),
    ///     "version: 1\nnodes:\n  base: {stage: base, source: model}\n  \
    ///      8bit: {stage: quantize, model: base, bits: 8, group_size: 32}\n",
    /// )?;
    /// let mut project = Project::open(&ProjectPath::in_folder(folder.path()))?;
    /// let built = project.build(&BuildOptions::default(), &mut Silent)?;
    /// assert!(built.is_success());
    /// assert_eq!(built.summary.ran.len(), 2);
    /// assert!(folder.path().join("artifacts/8bit/model.safetensors").exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Fails if a target does not exist, if a source cannot be read or resolved, if a stage that would run is
    /// known to fail, or if the cache, `artifacts/` or the lock cannot be written. A node that fails is not
    /// an error: it is in the summary, and the observer was told.
    pub fn build(&mut self, options: &BuildOptions<'_>, observer: &mut dyn Observer) -> Result<BuildOutcome> {
        self.place_nodes(options.placing(), options.plan.device);
        let targets = self.targets(&options.plan.targets)?;
        let (nodes, wanted) = (self.graph.closure(&targets), targets.clone());
        self.resolve(&nodes, options.revisions)?;
        let mut request = self.request(&options.plan.targets, &targets);
        if options.plan.force {
            request.force = targets.into_iter().collect();
        }
        self.put_right(observer)?;
        let lock = self.lockfile()?;
        self.connect(&options.plan.remote, &lock)?;
        let is_locked = options.revisions == Revisions::Locked;
        if is_locked && (self.keys_are_given || !self.cache.trusted_keys.is_empty()) {
            let locked = nodes.iter().filter_map(|id| lock.get(&self.graph.node(*id).name));
            let locked = locked.map(|locked| (locked.key, locked.artifact)).collect();
            self.believed = Some(Believed { keys: self.trusted()?, locked });
        }
        if is_locked {
            request.locked = self.never_made_anew(&nodes, &lock);
        }
        let mut planner = self.planner(options.plan.backend, request);
        let decisions = planner.plan(&nodes)?;
        let request = planner.request;
        self.preflight(&decisions, is_locked)?;
        self.check_targets(&decisions, &wanted, observer)?;
        let is_left = |decision: &Decision| {
            let is_here = decision.verdict == Verdict::Fresh && !request.kept.contains(&decision.id);
            is_here && self.graph.node(decision.id).temporary
        };
        let all_done = decisions.iter().all(|decision| decision.is_done() && !is_left(decision));
        let summary = if all_done && !is_locked {
            self.nothing_to_do(&decisions)?
        } else {
            let request = match options.anyway {
                true => request,
                false => self.check_room(&decisions, request, &options.plan)?,
            };
            self.run(options, &nodes, request, &lock, observer)?
        };
        let relocked = if is_locked { Ok(false) } else { self.update_lock(lock, &summary) };
        self.save_state();
        if let Some(question) = question(&self.path, options)
            && all_done
            && !decisions.iter().any(Decision::lacks_source)
            && relocked.as_ref().is_ok_and(|written| !written)
        {
            self.write_stamp(question, nodes.len());
        }
        self.store.finish()?;
        relocked?;
        if !all_done {
            self.collect(observer)?;
        }
        Ok(BuildOutcome { nodes, summary })
    }

    /// Puts right what was found damaged in the cache, and tells the observer.
    fn put_right(&mut self, observer: &mut dyn Observer) -> Result<()> {
        for (object, repair) in self.repair_store()? {
            let message = match repair {
                Repair::Sound => continue,
                Repair::Copied(copy) => format!(
                    "the stored content {} was damaged; it is put right from {}",
                    object.short(),
                    copy.display()
                ),
                Repair::Removed => format!(
                    "the stored content {} was damaged and is removed; what needs it is made again",
                    object.short()
                ),
            };
            observer.event(&Event::Notice { message });
        }
        Ok(())
    }

    /// Returns the artifacts in the lock of the nodes that would come out differently if they were made again.
    fn never_made_anew(&self, nodes: &[NodeId], lock: &Lockfile) -> HashMap<NodeId, Digest> {
        let random = nodes.iter().map(|id| (*id, self.graph.node(*id)));
        let random = random.filter(|(_, node)| !node.stage.is_deterministic());
        random.filter_map(|(id, node)| Some((id, lock.get(&node.name)?.artifact))).collect()
    }

    /// Returns the summary of a build in which every node is in place. No thread is started and nothing is
    /// built.
    fn nothing_to_do(&mut self, decisions: &[Decision]) -> Result<Summary> {
        self.store.sweep()?;
        let mut summary = Summary::default();
        for decision in decisions {
            if let (Some(key), Some(artifact)) = (decision.key, &decision.artifact) {
                self.state.nodes.set(&self.graph.node(decision.id).name, key, artifact, None);
                summary.done.insert(decision.id, (key, artifact.reproducible_digest()));
            }
        }
        Ok(summary)
    }

    fn run(
        &mut self,
        options: &BuildOptions<'_>,
        nodes: &[NodeId],
        request: Request,
        lock: &Lockfile,
        observer: &mut dyn Observer,
    ) -> Result<Summary> {
        self.store.prepare()?;
        self.artifacts_dir.prepare()?;
        if has_no_locks() {
            observer.event(&Event::Notice { message: NO_LOCKS.to_owned() });
        }
        let worker = self.worker.clone();
        let crews = self.crews(options.placing())?;
        let backend = options.plan.backend;
        let options = Options {
            jobs: jobs(options.plan.jobs),
            keep_going: options.keep_going,
            locked: (options.revisions == Revisions::Locked).then_some(lock),
            fetch_only: false,
            commands: options.commands,
            upload: options.upload,
            verbose: options.verbose,
            worker: &worker,
            crews: &crews,
            detach: options.detach,
            cancel: options.cancel,
        };
        let planner = self.planner(backend, request);
        let outcome = schedule::run(planner, nodes, &options, observer);
        if let Ok(summary) = &outcome {
            self.store.count(&self.counters(summary));
        }
        match &outcome {
            Ok(summary) => self.attest(backend, summary, observer),
            Err(_) => {
                self.save_state();
                self.store.finish()?;
            }
        }
        outcome
    }

    fn counters(&self, summary: &Summary) -> Counters {
        let count = |nodes: usize| u64::try_from(nodes).unwrap_or(u64::MAX);
        Counters {
            local_hits: count(summary.linked),
            remote_hits: count(summary.fetched),
            misses: count(summary.ran.len()),
            ..self.moved()
        }
    }

    /// Signs the records of the nodes that ran here, if the user has a key that can be used. Otherwise they
    /// stay unsigned: only sharing them requires a signature. So an error here is told, and ends nothing. What was temporary
    /// is signed already.
    fn attest(&mut self, backend: BackendKind, summary: &Summary, observer: &mut dyn Observer) {
        let planner = self.planner(backend, Request::default());
        for (id, (key, _)) in summary.done.iter().filter(|(id, _)| summary.ran.contains(id)) {
            let node = planner.graph.node(*id);
            if node.temporary && !summary.kept.contains(id) {
                continue;
            }
            if let Err(error) = schedule::attest(&planner, *id, key) {
                let message = format!("it is not signed: {}", in_one_line(&error));
                observer.event(&Event::Warning { node: &node.name, message });
            }
        }
    }
}
