//! Drives one worker: sends what its jobs need, submits them, asks where they are, and reads in the remote how they ended.
//! Knows nothing of the graph. It runs on a thread of its own, because every step waits for a network.
//!
//! What a worker has made is in the remote, whatever the executor says. So a job that the executor has lost may be done, and
//! a job that is given up and ends later does no harm: it made the same.

mod ending;
mod note;
mod publish;

pub(crate) use note::Note;
pub(super) use publish::Publisher;

use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use super::Message;
use crate::Error;
use crate::executor::{Attempt, Condition, Crew, Executor, Heard, Job};
use crate::graph::NodeId;
use crate::request::WorkRequest;
use crate::share::{Share, SharePolicy};
use crate::store::LocalStore;
use artifact::{Digest, FileEntry, in_one_line};
use ending::Next;

/// How often a job may be lost before its node fails.
const ATTEMPTS: usize = 5;

/// How long an executor or a remote may fail to answer before the jobs are given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a job may wait before that is worth a word.
const SHORT: Duration = Duration::from_secs(2);

/// What the name of a batch begins with.
const BATCH: &str = "pipeline-";

/// How many digits of a digest follow in the name of a batch.
const DIGITS: usize = 16;

/// How often a driver without jobs looks whether the build is over.
const IDLE: Duration = Duration::from_millis(50);

/// What a worker is to make.
pub(super) struct Assignment {
    pub(super) id: NodeId,
    pub(super) request: WorkRequest,
    /// The contents that it needs and that the remote may lack, and where they are here.
    pub(super) contents: Vec<(FileEntry, PathBuf)>,
    pub(super) policy: SharePolicy,
    /// The note of an earlier build on the same work.
    pub(super) note: Option<Vec<u8>>,
}

/// What a driver says of a node.
pub(super) enum Report {
    /// So many bytes of so many that it needs are in the remote.
    Sends(u64, u64),
    /// It waits, for a reason.
    Waits(String),
    /// It runs on this host.
    Runs(String),
    /// Its worker said this.
    Heard(Heard),
    /// It is made, and its record is in the remote.
    Made { host: String, seconds: Option<f64>, warnings: Vec<String> },
    /// It cannot be made.
    Failed(Error),
    /// It was cancelled.
    Interrupted,
    /// The build leaves it; whether it goes on.
    Left(bool),
}

/// A job that was submitted.
struct Running {
    assignment: Assignment,
    attempt: Attempt,
    /// How many attempts were lost before this one.
    lost: usize,
    /// When it was submitted.
    since: Instant,
    /// What was last told of it.
    told: String,
    /// Whether an earlier build has left it on a host, where this one waits for it.
    is_left: bool,
    /// Since when the remote does not say how it ended, and what the executor said.
    unknown: Option<(Instant, Option<String>, bool)>,
}

impl Running {
    fn new(assignment: Assignment, attempt: Attempt, lost: usize) -> Self {
        let (since, told) = (Instant::now(), String::new());
        Self { assignment, attempt, lost, since, told, is_left: false, unknown: None }
    }
}

/// Drives one worker.
pub(super) struct Driver<'a> {
    name: &'a str,
    executor: &'a dyn Executor,
    share: &'a Share,
    store: &'a LocalStore,
    cancel: &'a AtomicBool,
    leaving: Arc<AtomicBool>,
    messages: Sender<Message>,
    jobs: Vec<Running>,
    /// Since when the executor does not answer.
    silent: Option<Instant>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        crew: &'a Crew,
        share: &'a Share,
        store: &'a LocalStore,
        cancel: &'a AtomicBool,
        leaving: Arc<AtomicBool>,
        messages: Sender<Message>,
    ) -> Self {
        let (name, executor) = (crew.name.as_str(), crew.executor.as_ref());
        Self { name, executor, share, store, cancel, leaving, messages, jobs: Vec::new(), silent: None }
    }

    /// Takes published assignments until there are no more and all jobs are over, or until it is asked to leave.
    pub(super) fn run(mut self, queue: &Receiver<Vec<Assignment>>) {
        loop {
            let (new, is_over) = self.receive(queue);
            if self.cancel.load(Ordering::Relaxed) {
                new.iter().for_each(|assignment| self.report(assignment.id, Report::Interrupted));
                self.cancel_all();
            } else {
                self.begin(new);
            }
            if self.leaving.load(Ordering::Relaxed) {
                return self.leave(queue);
            }
            self.look();
            if is_over && self.jobs.is_empty() {
                return;
            }
        }
    }

    /// Waits for assignments, but not longer than until the jobs are to be looked at. Returns whether there will be no more.
    fn receive(&self, queue: &Receiver<Vec<Assignment>>) -> (Vec<Assignment>, bool) {
        let patience = if self.jobs.is_empty() { IDLE } else { self.executor.interval() };
        let start = Instant::now();
        loop {
            let wait = IDLE.min(patience.saturating_sub(start.elapsed()));
            match queue.recv_timeout(wait) {
                Ok(new) => return (new.into_iter().chain(queue.try_iter().flatten()).collect(), false),
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(if self.jobs.is_empty() { Duration::ZERO } else { wait });
                    return (Vec::new(), true);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let is_asked = [self.cancel, &*self.leaving].iter().any(|flag| flag.load(Ordering::Relaxed));
            if start.elapsed() >= patience || is_asked {
                return (Vec::new(), false);
            }
        }
    }

    fn report(&self, id: NodeId, report: Report) {
        // The owner outlives the drivers, and a lost message does no harm.
        let _ = self.messages.send(Message::Worker(id, report));
    }

    fn notice(&self, message: String) {
        let _ = self.messages.send(Message::Notice(message));
    }

    /// Takes up the jobs of an earlier build, and submits the others.
    fn begin(&mut self, new: Vec<Assignment>) {
        let mut fresh = Vec::new();
        for mut assignment in new {
            let note = assignment.note.take().and_then(|note| Note::read(&note));
            match note.filter(|note| note.worker == self.name) {
                Some(Note { attempt, .. }) => self.take_up(assignment, attempt),
                None => fresh.push((assignment, 0)),
            }
        }
        self.submit(fresh);
    }

    /// Goes on with the job of an earlier build.
    fn take_up(&mut self, assignment: Assignment, attempt: Attempt) {
        // A connection ended with the build that had it; a job that it left behind is waited for on its host.
        if let Some(host) = attempt.host {
            self.submit_batch(vec![(assignment, 0)], Some(host));
            self.jobs.iter_mut().last().into_iter().for_each(|job| job.is_left = true);
            return;
        }
        self.jobs.push(Running::new(assignment, attempt, 0));
    }

    /// Submits jobs in batches that the executor takes. The number is how often each was lost.
    fn submit(&mut self, mut fresh: Vec<(Assignment, usize)>) {
        if fresh.is_empty() {
            return;
        }
        let longest = match self.executor.longest_batch() {
            Ok(longest) => longest.max(1),
            Err(error) => {
                let problem = in_one_line(&error);
                fresh.iter().for_each(|(assignment, _)| {
                    self.report(assignment.id, Report::Failed(Error::Worker(problem.clone())));
                });
                return;
            }
        };
        while !fresh.is_empty() {
            let rest = fresh.split_off(longest.min(fresh.len()));
            self.submit_batch(std::mem::replace(&mut fresh, rest), None);
        }
    }

    fn submit_batch(&mut self, batch: Vec<(Assignment, usize)>, host: Option<String>) {
        let name = batch_name(&batch);
        let attempt = |index| Attempt { batch: name.clone(), index, host: host.clone() };
        let job = |(index, (assignment, _)): (usize, &(Assignment, usize))| Job {
            key: assignment.request.key,
            node: assignment.request.node.clone(),
            attempt: attempt(index),
        };
        let jobs: Vec<_> = batch.iter().enumerate().map(job).collect();
        // The note comes first: whatever happens now, a later build knows by what name to look.
        jobs.iter().for_each(|job| self.note(&job.key, &job.node, &job.attempt, "submitted"));
        let submitted = self.executor.submit(&jobs).map_err(|error| in_one_line(&error));
        for ((assignment, lost), job) in batch.into_iter().zip(jobs) {
            if let Err(problem) = &submitted {
                self.store.remove_job_note(&job.key);
                self.report(assignment.id, Report::Failed(Error::Worker(problem.clone())));
                continue;
            }
            let attempt = job.attempt;
            self.jobs.push(Running::new(assignment, attempt, lost));
        }
    }

    /// Looks where all jobs are.
    fn look(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let attempts: Vec<_> = self.jobs.iter().map(|job| job.attempt.clone()).collect();
        let conditions = match self.executor.poll(&attempts) {
            Ok(conditions) => conditions,
            Err(error) => return self.unanswered(&error),
        };
        if self.silent.take().is_some() {
            self.notice(format!("the worker `{}` answers again", self.name));
        }
        let (mut left, mut again, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (mut job, condition) in std::mem::take(&mut self.jobs).into_iter().zip(conditions) {
            self.note_host(&mut job);
            let condition = match job.unknown.clone() {
                Some((_, how, is_lost)) => Condition::Gone { how, is_lost },
                None => condition,
            };
            match condition {
                Condition::Waits(_) if job.since.elapsed() < SHORT => left.push(job),
                Condition::Waits(reason) => {
                    self.tell(&mut job, &reason, || Report::Waits(reason.clone()));
                    left.push(job);
                }
                Condition::Runs { host, heard } => {
                    self.tell(&mut job, &format!("runs on {host}"), || Report::Runs(host.clone()));
                    let id = job.assignment.id;
                    heard.into_iter().for_each(|heard| self.report(id, Report::Heard(heard)));
                    left.push(job);
                }
                Condition::Gone { how, is_lost } => {
                    let attempt = job.attempt.clone();
                    match self.end(job, how, is_lost) {
                        Next::Over => over.push(attempt),
                        Next::Again(assignment, lost) => {
                            // What is left of it would only make the same once more.
                            self.executor.cancel(std::slice::from_ref(&attempt));
                            over.push(attempt);
                            again.push((*assignment, lost));
                        }
                        Next::Unknown(job) => left.push(*job),
                    }
                }
            }
        }
        self.jobs = left;
        if !over.is_empty() {
            self.executor.clean(&over);
        }
        self.submit(again);
    }

    /// Notes the host of a job, once the executor has chosen it.
    fn note_host(&self, job: &mut Running) {
        if job.attempt.host.is_none()
            && let Some(host) = self.executor.host(&job.attempt)
        {
            let request = &job.assignment.request;
            job.attempt.host = Some(host.clone());
            self.note(&request.key, &request.node, &job.attempt, &format!("on {host}"));
        }
    }

    /// Tells where a job is, if that is news.
    fn tell(&self, job: &mut Running, place: &str, report: impl FnOnce() -> Report) {
        if job.told != place {
            job.told = place.to_owned();
            let request = &job.assignment.request;
            self.note(&request.key, &request.node, &job.attempt, place);
            self.report(job.assignment.id, report());
        }
    }

    /// Notes that the executor does not answer, which says nothing of the jobs.
    fn unanswered(&mut self, error: &Error) {
        let (name, problem) = (self.name, in_one_line(error));
        let since = match self.silent {
            Some(since) => since,
            None => {
                self.notice(format!("the worker `{name}` does not answer, and is asked again: {problem}"));
                *self.silent.insert(Instant::now())
            }
        };
        if since.elapsed() > PATIENCE {
            for job in std::mem::take(&mut self.jobs) {
                let message =
                    format!("`{name}` does not answer: {problem}; `pipeline build` finds the job again");
                self.report(job.assignment.id, Report::Failed(Error::Worker(message)));
            }
        }
    }

    /// Cancels all jobs, and says which may go on.
    fn cancel_all(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        if jobs.is_empty() {
            return;
        }
        let attempts: Vec<_> = jobs.iter().map(|job| job.attempt.clone()).collect();
        let problems = self.executor.cancel(&attempts);
        for (job, problem) in jobs.iter().zip(problems) {
            let request = &job.assignment.request;
            // What an earlier build has left there does not end with this one's connection.
            let is_waiting = job.is_left && !job.told.starts_with("runs on");
            let problem =
                problem.or_else(|| is_waiting.then(|| "an earlier build has left it there".to_owned()));
            match problem {
                None => self.store.remove_job_note(&request.key),
                Some(problem) => {
                    let (node, name) = (&request.node, self.name);
                    self.notice(format!("`{node}` may still run on the worker `{name}`: {problem}"));
                }
            }
            self.report(job.assignment.id, Report::Interrupted);
        }
        self.executor.clean(&attempts);
    }

    /// Lets the jobs go on without this build, also those that were assigned last.
    fn leave(&mut self, queue: &Receiver<Vec<Assignment>>) {
        while let Ok(new) = queue.recv() {
            self.begin(new);
        }
        // Once more, so that each has its host on note.
        self.look();
        let attempts: Vec<_> = self.jobs.iter().map(|job| job.attempt.clone()).collect();
        let left = self.executor.detach(&attempts);
        for (job, is_left) in std::mem::take(&mut self.jobs).into_iter().zip(left) {
            if !is_left {
                let request = &job.assignment.request;
                self.store.remove_job_note(&request.key);
                let (node, name) = (&request.node, self.name);
                self.notice(format!("`{node}` cannot be left to the worker `{name}`, so it is cancelled"));
            }
            self.report(job.assignment.id, Report::Left(is_left));
        }
    }
}

/// Returns a name that no other batch has, of this or another build.
fn batch_name(batch: &[(Assignment, usize)]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let keys: Vec<_> = batch.iter().map(|(assignment, lost)| (assignment.request.key, lost)).collect();
    let digest = Digest::of_json(&(now.to_string(), process::id(), keys)).to_string();
    format!("{BATCH}{}", digest.get(..DIGITS).unwrap_or(&digest))
}
