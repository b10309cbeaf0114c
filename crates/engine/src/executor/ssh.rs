//! Runs jobs on hosts over `ssh`: one connection a job, which ends with the job, and the job with it.
//! Knows nothing of what a job makes.
//!
//! The worker says that it is alive every few seconds, and so does this side. A host that is silent for too long, or whose
//! connection breaks, is left alone for a while, and its job goes to another one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::command::{self, LastWords, STRICT, wait};
use super::{Attempt, Condition, Executor, Heard, Invocation, Job};
use crate::Error;
use crate::error::{OrBug, Result, fail};

/// How often the worker is told that this side is alive.
pub const PULSE: Duration = Duration::from_secs(5);

/// What is written to a worker that is to go on without its connection.
pub const DETACH: &str = "detach";

/// How often connections are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long a host is left alone that was lost once. Each time more, it is three times as long.
const REST: Duration = Duration::from_secs(2);

/// How long a host is left alone at most.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What `ssh` says where trying again is of no use.
const HOPELESS: [&str; 3] =
    ["Host key verification failed", "Permission denied", "Could not resolve hostname"];

/// How long a worker may take to end when it is asked to.
const LONGEST_END: Duration = Duration::from_secs(20);

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// The exit code of a shell that does not find a program.
const NOT_FOUND: i32 = 127;

/// The exit code of `ssh` when the connection fails.
const NO_CONNECTION: i32 = 255;

/// Hosts that run jobs.
pub struct Ssh {
    hosts: Vec<String>,
    slots: usize,
    options: Vec<String>,
    patience: Duration,
    invocation: Invocation,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: HashMap<String, Connection>,
    /// The jobs that no host has room for yet, by the names of their attempts.
    pending: HashMap<String, Job>,
    /// The hosts that were lost.
    lost: HashMap<String, Loss>,
}

/// Why a host is left alone.
struct Loss {
    problem: String,
    times: u32,
    /// When it is tried again; `None` if never.
    until: Option<Instant>,
}

impl State {
    fn lose(&mut self, host: String, problem: &str) {
        let times = self.lost.get(&host).map_or(0, |loss| loss.times) + 1;
        let rest = LONGEST_REST.min(REST.saturating_mul(3_u32.saturating_pow(times - 1)));
        let is_hopeless = HOPELESS.iter().any(|words| problem.contains(words));
        let until = (!is_hopeless).then(|| Instant::now() + rest);
        self.lost.insert(host, Loss { problem: problem.to_owned(), times, until });
    }

    /// Whether a host may be tried now.
    fn is_well(&self, host: &str) -> bool {
        self.lost.get(host).is_none_or(|loss| loss.until.is_some_and(|until| until <= Instant::now()))
    }
}

/// The connection of one job.
struct Connection {
    host: String,
    child: Child,
    input: Input,
    said: Arc<Mutex<Spoken>>,
    words: LastWords,
}

/// The way to a worker; `None` once it is closed.
type Input = Arc<Mutex<Option<ChildStdin>>>;

/// Writes a word to a worker. A connection that is broken shows it in another way.
fn tell(input: &Input, word: &str) {
    let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = input.as_mut().map(|input| input.write_all(format!("{word}\n").as_bytes()));
}

/// Closes the way to a worker, which ends it.
fn close(input: &Input) {
    drop(input.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// What came over a connection.
struct Spoken {
    heard: Vec<Heard>,
    /// Why the job waits on its host; `None` once it works.
    waits: Option<String>,
    last: Instant,
    is_detached: bool,
}

impl Ssh {
    /// Makes the executor of these hosts, each of which takes `slots` jobs at once.
    pub fn new(
        hosts: Vec<String>,
        slots: usize,
        options: Vec<String>,
        patience: Duration,
        invocation: Invocation,
    ) -> Self {
        Self { hosts, slots, options, patience, invocation, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the host for a job: the one that it was on, else the one with most room that may be tried now; or what the
    /// job waits for.
    fn choose(&self, state: &State, job: &Job) -> Result<Result<String, String>> {
        if let Some(host) = job.attempt.host.as_ref().filter(|host| self.hosts.contains(host)) {
            return Ok(Ok(host.clone()));
        }
        let problems: Vec<_> = self.hosts.iter().filter_map(|host| state.lost.get(host)).collect();
        let said = || problems.iter().map(|loss| loss.problem.as_str()).collect::<Vec<_>>().join("; ");
        if problems.len() == self.hosts.len() && problems.iter().all(|loss| loss.until.is_none()) {
            fail!(Worker, "no host is left: {}", said());
        }
        let jobs = |host: &String| state.connections.values().filter(|one| one.host == *host).count();
        let well: Vec<_> = self.hosts.iter().filter(|host| state.is_well(host)).collect();
        if well.is_empty() {
            return Ok(Err(format!("for a host to come back: {}", said())));
        }
        let free = well.into_iter().min_by_key(|host| jobs(host)).filter(|host| jobs(host) < self.slots);
        Ok(free.cloned().ok_or_else(|| "for a host".to_owned()))
    }

    /// Starts a job that waits for a host, if one has room now.
    fn start_pending(&self, state: &mut State, name: &str) -> Condition {
        let Some(job) = state.pending.get(name).cloned() else {
            // It is one of an earlier process. If it still runs, another one on its host waits for it.
            return Condition::Gone { how: None, is_lost: true };
        };
        let started = match self.choose(state, &job) {
            Ok(Err(reason)) => return Condition::Waits(reason),
            Ok(Ok(host)) => self.start(&host, &job),
            Err(error) => Err(error),
        };
        state.pending.remove(name);
        match started {
            Ok(connection) => {
                let condition = connection.runs();
                state.connections.insert(name.to_owned(), connection);
                condition
            }
            Err(error) => Condition::Gone { how: Some(error.to_string()), is_lost: false },
        }
    }

    fn start(&self, host: &str, job: &Job) -> Result<Connection> {
        let more = format!(" --attached --slots {}", self.slots);
        let line = self.invocation.line(&job.key.to_string(), &job.attempt.name(), &more);
        let mut command = command::program("ssh");
        command.args(STRICT).args(&self.options).arg("--").arg(host).arg(line);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            piped.spawn().map_err(|error| Error::Worker(format!("`ssh` cannot be run: {error}")))?;
        let output = child.stdout.take().or_bug("the output of ssh is a pipe")?;
        let errors = child.stderr.take().or_bug("the messages of ssh are a pipe")?;
        let said = Arc::new(Mutex::new(Spoken {
            heard: Vec::new(),
            waits: Some("connecting".to_owned()),
            last: Instant::now(),
            is_detached: false,
        }));
        let words = LastWords::default();
        words.keep(errors)?;
        let input: Input = Arc::new(Mutex::new(child.stdin.take()));
        let (listener, answer) = (Arc::clone(&said), Arc::clone(&input));
        let started = thread::Builder::new().spawn(move || listen(output, &listener, &answer));
        started.map_err(|error| Error::no_thread(&error))?;
        Ok(Connection { host: host.to_owned(), child, input, said, words })
    }

    /// Returns where one attempt is, and forgets it if it is over.
    fn look(&self, state: &mut State, attempt: &Attempt) -> Condition {
        let name = attempt.name();
        let Some(connection) = state.connections.get_mut(&name) else {
            return self.start_pending(state, &name);
        };
        let silence = connection.spoken().last.elapsed();
        let host = connection.host.clone();
        let status = match connection.child.try_wait() {
            Ok(None) if silence <= self.patience => return connection.runs(),
            Ok(None) => {
                let _ = connection.child.kill().and_then(|()| connection.child.wait());
                let problem = format!("{host} was silent for {} s", self.patience.as_secs());
                state.connections.remove(&name);
                state.lose(host, &problem);
                return Condition::Gone { how: Some(problem), is_lost: true };
            }
            Ok(Some(status)) => status.code(),
            Err(_) => None,
        };
        let words = connection.words.last_lines();
        state.connections.remove(&name);
        match status {
            Some(code @ (0 | 1)) => {
                let how = match words.is_empty() {
                    true => format!(
                        "on {host}, `{}` ended with exit code {code} and sent nothing; run `pipeline exec` there by hand to see why",
                        self.invocation.program
                    ),
                    false => format!("on {host}: {words}"),
                };
                Condition::Gone { how: Some(how), is_lost: false }
            }
            Some(NOT_FOUND) => Condition::Gone { how: Some(self.absent(&host, &words)), is_lost: false },
            Some(NO_CONNECTION) | None => {
                let problem = match words.is_empty() {
                    true => format!("the connection to {host} was lost"),
                    false => format!("{host}: {words}"),
                };
                state.lose(host, &problem);
                Condition::Gone { how: Some(problem), is_lost: true }
            }
            Some(code) => {
                let how = format!("on {host}, the worker ended with exit code {code}: {words}");
                Condition::Gone { how: Some(how), is_lost: code > 128 }
            }
        }
    }

    fn absent(&self, host: &str, words: &str) -> String {
        let program = &self.invocation.program;
        format!(
            "`{program}` is not found on {host} ({words}); install it there with `cargo install --locked --path .` in a clone \
             of pipeline, or say where it is: `program: PATH`"
        )
    }
}

impl Connection {
    fn spoken(&self) -> MutexGuard<'_, Spoken> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> Condition {
        let mut spoken = self.spoken();
        let heard = std::mem::take(&mut spoken.heard);
        match &spoken.waits {
            Some(reason) => Condition::Waits(format!("{}: {reason}", self.host)),
            None => Condition::Runs { host: self.host.clone(), heard },
        }
    }
}

impl Executor for Ssh {
    fn slots(&self) -> usize {
        self.hosts.len() * self.slots
    }

    fn longest_batch(&self) -> Result<usize> {
        Ok(1)
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn submit(&self, jobs: &[Job]) -> Result<()> {
        let mut state = self.state();
        let named = jobs.iter().map(|job| (job.attempt.name(), job.clone()));
        state.pending.extend(named);
        Ok(())
    }

    fn poll(&self, attempts: &[Attempt]) -> Result<Vec<Condition>> {
        let mut state = self.state();
        Ok(attempts.iter().map(|attempt| self.look(&mut state, attempt)).collect())
    }

    fn cancel(&self, attempts: &[Attempt]) -> Vec<Option<String>> {
        let mut state = self.state();
        attempts.iter().for_each(|attempt| drop(state.pending.remove(&attempt.name())));
        let ending: Vec<_> =
            attempts.iter().map(|attempt| state.connections.remove(&attempt.name())).collect();
        drop(state);
        // A worker ends when its input does.
        ending.iter().flatten().for_each(|connection| close(&connection.input));
        let start = Instant::now();
        let end = |connection: Connection| {
            let Connection { host, mut child, .. } = connection;
            let ended = wait(&mut child, LONGEST_END.saturating_sub(start.elapsed()));
            let is_lost = ended.as_ref().is_ok_and(|status| status.code() == Some(NO_CONNECTION));
            (ended.is_err() || is_lost).then(|| format!("{host} does not answer"))
        };
        ending.into_iter().map(|connection| connection.and_then(end)).collect()
    }

    fn detach(&self, attempts: &[Attempt]) -> Vec<bool> {
        let mut state = self.state();
        let mut leave = |attempt: &Attempt| {
            let name = attempt.name();
            // A job may have no host yet. If none has room, it cannot go on.
            self.look(&mut state, attempt);
            state.pending.remove(&name);
            let Some(mut connection) = state.connections.remove(&name) else { return false };
            tell(&connection.input, DETACH);
            let start = Instant::now();
            let is_left = loop {
                let is_over =
                    start.elapsed() > LONGEST_END || !matches!(connection.child.try_wait(), Ok(None));
                if connection.spoken().is_detached || is_over {
                    break connection.spoken().is_detached;
                }
                thread::sleep(INTERVAL);
            };
            let _ = connection.child.kill().and_then(|()| connection.child.wait());
            is_left
        };
        attempts.iter().map(&mut leave).collect()
    }

    fn log(&self, attempt: &Attempt) -> Option<String> {
        let state = self.state();
        Some(state.connections.get(&attempt.name())?.words.text())
    }

    fn clean(&self, _: &[Attempt]) {}

    fn host(&self, attempt: &Attempt) -> Option<String> {
        Some(self.state().connections.get(&attempt.name())?.host.clone())
    }
}

impl Drop for Ssh {
    /// Ends the connections, and with them the jobs.
    fn drop(&mut self) {
        for (_, mut connection) in std::mem::take(&mut self.state().connections) {
            close(&connection.input);
            let _ = connection.child.kill();
            let _ = connection.child.wait();
        }
    }
}

/// Reads the lines of a worker.
fn listen(output: impl Read, said: &Mutex<Spoken>, input: &Input) {
    let mut output = BufReader::new(output);
    let (mut line, mut pulse) = (Vec::new(), Instant::now());
    loop {
        line.clear();
        // The worker says every few seconds that it is alive, and so does this side.
        if pulse.elapsed() >= PULSE {
            pulse = Instant::now();
            tell(input, "alive");
        }
        match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut spoken = said.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.last = Instant::now();
        match serde_json::from_slice(&line) {
            Ok(Heard::Alive) => {}
            Ok(Heard::Detached) => spoken.is_detached = true,
            Ok(Heard::Waits(reason)) => spoken.waits = Some(text::harmless(&reason).into_owned()),
            Ok(Heard::Begins) => spoken.waits = None,
            // Of progress, only the last counts.
            Ok(heard @ (Heard::Progress { .. } | Heard::Measuring(_))) => {
                spoken.heard.retain(|old| matches!(old, Heard::Said(_)));
                spoken.heard.push(heard);
            }
            Ok(heard) => spoken.heard.push(heard),
            // What a login shell prints is not ours.
            Err(_) => {}
        }
    }
}
