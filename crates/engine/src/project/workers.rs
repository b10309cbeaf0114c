//! The workers of a project: those that the user has, in a file of their own, and those of the pipeline file.
//! Knows nothing of how a job is run.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Project, text_file, usage};
use crate::error::{Result, fail};
use crate::executor::{Condition, Crew, Executor, Foreground, Invocation, Slurm, Ssh};
use crate::graph::NodeId;
use crate::manifest::{Engine, Hosts, Worker, is_host, read_workers};
use crate::schedule::Note;
use crate::stage::DeviceChoice;
use crate::{Error, paths};
use artifact::Digest;

/// The longest host file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Which workers nodes are placed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Placing {
    /// Those of the user and of the pipeline file.
    #[default]
    All,
    /// None: everything is made here.
    Here,
}

/// The workers of a project. Those of the user come first, and hide others of the same name.
#[derive(Clone, Default)]
pub(super) struct Workers {
    all: Vec<Worker>,
    /// Executors that a caller gave, by the names of workers.
    given: Vec<Crew>,
}

/// A job of a worker that an earlier build has left, or that a build runs now.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerJob {
    /// The key of what it makes.
    pub key: Digest,
    /// The node.
    pub node: String,
    /// The worker.
    pub worker: String,
    /// Where it is, as it was last heard of.
    pub place: String,
}

/// One entry of a host file of `mlx.launch`.
#[derive(Deserialize)]
struct HostEntry {
    ssh: String,
}

impl Workers {
    /// Reads the file of the user, and adds the workers of a pipeline file.
    pub(super) fn read(written: &[Worker]) -> Result<Self> {
        let mut all = match own_path() {
            Some(path) => read_own(&path)?,
            None => Vec::new(),
        };
        let is_new = |worker: &&Worker| all.iter().all(|own: &Worker| own.name != worker.name);
        let others: Vec<_> = written.iter().filter(is_new).cloned().collect();
        all.extend(others);
        Ok(Self { all, given: Vec::new() })
    }

    fn used(&self, placing: Placing) -> &[Worker] {
        match placing {
            Placing::All => &self.all,
            Placing::Here => &[],
        }
    }
}

impl Project {
    /// Uses `executor` for the jobs of the worker `name`, which must be one of the project.
    #[must_use]
    pub fn with_executor(mut self, name: &str, executor: Arc<dyn Executor>) -> Self {
        self.workers.given.push(Crew { name: name.to_owned(), executor });
        self
    }

    /// Returns the name of the worker that makes a node; `None` if it is made here. A plan decides it.
    pub fn worker_of(&self, id: NodeId) -> Option<&str> {
        let worker = self.workers.all.get(self.graph.placed(id)?)?;
        Some(&worker.name)
    }

    /// Decides where each node is made, and what benchmarks run on.
    pub(super) fn place_nodes(&mut self, placing: Placing, device: DeviceChoice) {
        self.graph.place(self.workers.used(placing), device);
    }

    /// Returns what starts the jobs of each worker. Nothing is started.
    pub(super) fn crews(&self, placing: Placing) -> Result<Vec<Crew>> {
        let is_used = self.graph.order().iter().any(|id| self.graph.placed(*id).is_some());
        if !is_used {
            return Ok(Vec::new());
        }
        self.workers.used(placing).iter().map(|worker| self.crew(worker)).collect()
    }

    fn crew(&self, worker: &Worker) -> Result<Crew> {
        if let Some(given) = self.workers.given.iter().find(|crew| crew.name == worker.name) {
            return Ok(given.clone());
        }
        let url = || self.share.as_ref().map(|share| share.url().to_owned());
        let invocation = Invocation {
            folder: worker.folder.clone(),
            program: worker.program.clone(),
            remote: worker.remote.clone().or_else(url).unwrap_or_default(),
        };
        let patience = Duration::from_secs(worker.patience);
        let executor: Arc<dyn Executor> = match &worker.engine {
            Engine::Ssh { hosts, options } => {
                let hosts = self.hosts(hosts, &worker.name)?;
                Arc::new(Ssh::new(hosts, worker.slots, options.clone(), patience, invocation))
            }
            Engine::Slurm { submit, options } => {
                Arc::new(Slurm::new(submit.clone(), options.clone(), worker.slots, invocation))
            }
            Engine::Command { run, cancel } => {
                Arc::new(Foreground::new(run.clone(), cancel.clone(), worker.slots, invocation))
            }
        };
        Ok(Crew { name: worker.name.clone(), executor })
    }

    /// Returns the hosts of a worker.
    fn hosts(&self, hosts: &Hosts, worker: &str) -> Result<Vec<String>> {
        let file = match hosts {
            Hosts::Listed(hosts) => return Ok(hosts.clone()),
            Hosts::File(file) => self.root.join(file),
        };
        let wrong = |problem: String| {
            let shown = file.display();
            Error::Usage(format!("worker `{worker}`: the host file {shown}: {problem}"))
        };
        let text = text_file::read(&file).map_err(|error| wrong(error.to_string()))?;
        if text.len() as u64 > LONGEST {
            return Err(wrong(format!("it has more than {LONGEST} bytes")));
        }
        let form = "it is a list of `{\"ssh\": HOST}`, as `mlx.launch` reads it";
        let entries: Vec<HostEntry> =
            serde_json::from_str(&text).map_err(|error| wrong(format!("line {}: {form}", error.line())))?;
        let names: Vec<_> = entries.into_iter().map(|entry| entry.ssh).collect();
        match names.iter().find(|name| !is_host(name)) {
            Some(_) => Err(wrong(format!("an entry is not a host; {form}"))),
            None if names.is_empty() => Err(wrong(format!("it names no host; {form}"))),
            None => Ok(names),
        }
    }

    /// Returns the jobs of workers that are on note, and where they are now, as far as a queue tells it.
    pub fn worker_jobs(&self) -> Vec<WorkerJob> {
        let notes = self.store.job_notes().into_iter();
        let read = |(key, note): (Digest, Vec<u8>)| Some((key, Note::read(&note)?));
        let mut notes: Vec<_> = notes.filter_map(read).collect();
        notes.sort_by_key(|(key, _)| *key);
        let mut places = BTreeMap::new();
        for worker in &self.workers.all {
            let own: Vec<_> = notes.iter().filter(|(_, note)| note.worker == worker.name).collect();
            if !own.is_empty() && matches!(worker.engine, Engine::Slurm { .. }) {
                let attempts: Vec<_> = own.iter().map(|(_, note)| note.attempt.clone()).collect();
                let told = self.crew(worker).and_then(|crew| crew.executor.poll(&attempts));
                let told = told.map_or_else(
                    |error| vec![error.to_string(); own.len()],
                    |told| told.iter().map(place_of).collect(),
                );
                places.extend(own.iter().map(|(key, _)| *key).zip(told));
            }
        }
        let job = |(key, note): (Digest, Note)| {
            let place = places.get(&key).cloned().unwrap_or(note.place);
            WorkerJob { key, node: note.node, worker: note.worker, place }
        };
        notes.into_iter().map(job).collect()
    }
}

fn place_of(condition: &Condition) -> String {
    match condition {
        Condition::Waits(reason) => reason.clone(),
        Condition::Runs { host, .. } => format!("runs on {host}"),
        Condition::Gone { .. } => "has left the queue; a build reads how it ended".to_owned(),
    }
}

/// Returns the path of the user's file: `pipeline/workers.yaml` below `XDG_CONFIG_HOME`, or below `.config` in the home
/// folder.
fn own_path() -> Option<PathBuf> {
    let whole = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = whole("XDG_CONFIG_HOME").or_else(|| whole("HOME").map(|home| home.join(".config")))?;
    Some(config.join("pipeline/workers.yaml"))
}

/// Returns the digest of the user's file, if there is one.
pub(super) fn own_file() -> Option<Digest> {
    Some(Digest::of(&fs::read(own_path()?).ok()?))
}

/// Reads the user's file. Host files are relative to its folder.
fn read_own(path: &Path) -> Result<Vec<Worker>> {
    let text = match text_file::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => fail!(Usage, "cannot read {}: {error}", path.display()),
    };
    let mut workers = read_workers(&text).map_err(|problem| usage(&problem, path, &text))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    for worker in &mut workers {
        if let Engine::Ssh { hosts: Hosts::File(file), .. } = &mut worker.engine {
            let whole = paths::expand(file).map_err(|error| Error::Usage(error.to_string()))?;
            *file = folder.join(whole).display().to_string();
        }
    }
    Ok(workers)
}
