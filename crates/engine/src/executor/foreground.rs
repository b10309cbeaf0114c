//! Runs jobs by a command of the user that ends when its job does, such as `ray job submit` or `kubectl run --attach`.
//! Knows nothing of what the command starts.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::command::{self, LastWords};
use super::{Attempt, Condition, Executor, Invocation, Job};
use crate::Error;
use crate::error::{OrBug, Result, fail};

/// How often the commands are looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long a command may take to end when it is asked to.
const LONGEST_END: Duration = Duration::from_secs(20);

/// What stands for the name of the attempt.
const ATTEMPT: &str = "{attempt}";

/// A command for each job.
pub struct Foreground {
    run: Vec<String>,
    /// What ends a job, if the end of the command does not.
    cancel: Vec<String>,
    slots: usize,
    invocation: Invocation,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    child: Child,
    words: LastWords,
}

impl Foreground {
    /// Makes the executor that starts `run` for each job, at most `slots` at once.
    pub fn new(run: Vec<String>, cancel: Vec<String>, slots: usize, invocation: Invocation) -> Self {
        Self { run, cancel, slots, invocation, running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, job: &Job) -> Result<Running> {
        let name = job.attempt.name();
        let line = self.invocation.line(&job.key.to_string(), &name, "");
        let words: Vec<_> =
            self.run.iter().map(|word| word.replace(ATTEMPT, &name).replace("{line}", &line)).collect();
        let Some((program, rest)) = words.split_first() else { fail!(Bug, "a command has a program") };
        let mut command = Command::new(program);
        // A signal of the terminal does not reach it: `cancel` says when it ends.
        command.process_group(0);
        let piped = command.args(rest).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            piped.spawn().map_err(|error| Error::Worker(format!("`{program}` cannot be run: {error}")))?;
        let words = LastWords::default();
        words.keep(child.stdout.take().or_bug("the output of a command is a pipe")?)?;
        words.keep(child.stderr.take().or_bug("the messages of a command are a pipe")?)?;
        Ok(Running { child, words })
    }

    fn look(&self, attempt: &Attempt) -> Condition {
        let name = attempt.name();
        let mut running = self.running();
        let Some(one) = running.get_mut(&name) else {
            return Condition::Gone { how: None, is_lost: true };
        };
        match one.child.try_wait() {
            Ok(None) => Condition::Runs { host: format!("as {name}"), heard: Vec::new() },
            ended => {
                let status = ended.ok().flatten();
                let words = one.words.last_lines();
                let words = if words.is_empty() { words } else { format!(": {words}") };
                // A command that says that all is well, of a job that has sent nothing, has lost it.
                let is_lost = status.is_some_and(|status| status.success());
                let status = status.map_or_else(String::new, |status| format!(" with {status}"));
                running.remove(&name);
                Condition::Gone { how: Some(format!("its command ended{status}{words}")), is_lost }
            }
        }
    }
}

impl Executor for Foreground {
    fn slots(&self) -> usize {
        self.slots
    }

    fn longest_batch(&self) -> Result<usize> {
        Ok(1)
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn submit(&self, jobs: &[Job]) -> Result<()> {
        for job in jobs {
            let started = self.start(job)?;
            self.running().insert(job.attempt.name(), started);
        }
        Ok(())
    }

    fn poll(&self, attempts: &[Attempt]) -> Result<Vec<Condition>> {
        Ok(attempts.iter().map(|attempt| self.look(attempt)).collect())
    }

    fn cancel(&self, attempts: &[Attempt]) -> Vec<Option<String>> {
        let start = Instant::now();
        let end = |attempt: &Attempt| {
            let name = attempt.name();
            let one = self.running().remove(&name);
            let cancel: Vec<_> = self.cancel.iter().map(|word| word.replace(ATTEMPT, &name)).collect();
            // Also of an attempt whose command has ended: the job may go on.
            let cancelled =
                if cancel.is_empty() { Ok(String::new()) } else { command::run(&[], &cancel, "") };
            let ended = one.map(|mut one| {
                terminate(&one.child);
                command::wait(&mut one.child, LONGEST_END.saturating_sub(start.elapsed()))
            });
            match (cancelled, ended) {
                (Err(error), Some(_)) => Some(format!("`cancel`: {error}")),
                (_, Some(Err(error))) => Some(format!("its command does not end: {error}")),
                (_, Some(Ok(_))) if cancel.is_empty() => {
                    Some("its command was ended, and `cancel` is not written".to_owned())
                }
                _ => None,
            }
        };
        attempts.iter().map(end).collect()
    }

    fn detach(&self, attempts: &[Attempt]) -> Vec<bool> {
        // A later process could not follow the command.
        self.cancel(attempts);
        vec![false; attempts.len()]
    }

    fn log(&self, attempt: &Attempt) -> Option<String> {
        self.running().get(&attempt.name()).map(|one| one.words.last_lines())
    }

    fn clean(&self, _: &[Attempt]) {}

    fn host(&self, _: &Attempt) -> Option<String> {
        None
    }
}

/// Asks a process to end.
fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
}
