//! Runs a program of somebody else, so that nothing of it is left behind: it ends with the build, with all that it has
//! started.
//! Knows nothing of why it runs, nor of what it makes.
//!
//! Between this process and the program stands the [`supervisor`]: the program `pipeline` with other arguments. Its
//! standard input is a pipe from here. When the pipe closes, even because this process was killed, the supervisor ends
//! the program. What the program writes to its standard output and to its standard error comes through one pipe, in the
//! order in which it is written.

pub mod supervisor;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;
use crate::error::{OrBug, Result};
use crate::own_program;
use artifact::Interrupted;
use supervisor::Report;

/// How often it is checked whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How much of the output is read at once, in bytes.
const PIECE: usize = 1 << 16;

/// How many pieces of output wait to be looked at. The program waits when there are more.
const PIECES: usize = 16;

/// How long the last output is waited for once the program has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A program, and what it runs with.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The folder that it runs in.
    pub folder: PathBuf,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may run.
    pub timeout: Option<Duration>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its time was up.
    TimedOut,
}

/// Runs `program` until it ends. `said` gets what it writes, piece by piece. `tick` is asked whether to stop.
///
/// # Errors
/// Fails if the program or its supervisor cannot be started, or if `tick` asks to stop.
pub fn run(
    program: &Program,
    said: &mut dyn FnMut(&[u8]),
    tick: &dyn Fn() -> Result<(), Interrupted>,
) -> Result<Ended> {
    let start = Instant::now();
    let mut running = Running::start(program)?;
    let is_late = || program.timeout.is_some_and(|timeout| start.elapsed() >= timeout);
    loop {
        match running.output.recv_timeout(POLL_INTERVAL) {
            Ok(piece) => said(&piece),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let stop = tick();
        if stop.is_err() || is_late() {
            running.stop(said);
            stop?;
            return Ok(Ended::TimedOut);
        }
        if let Ok(report) = running.report.try_recv() {
            running.drain(said);
            return ended(report?, program);
        }
    }
    let report = running.report.recv();
    ended(report.unwrap_or_else(|_| Err(lost("it said nothing")))?, program)
}

fn ended(report: Report, program: &Program) -> Result<Ended> {
    match report {
        Report::Code(code) => Ok(Ended::Code(code)),
        Report::Signal(signal) => Ok(Ended::Signal(signal)),
        Report::Started(_) => Err(lost("it says that it has started")),
        Report::NotStarted(problem) => {
            Err(Error::Command(format!("cannot start `{}`: {problem}", program.program.display())))
        }
    }
}

fn lost(problem: &str) -> Error {
    Error::Worker(format!("the supervisor of the command did not say how it ended: {problem}"))
}

/// A program that runs under its supervisor. All of it ends when this is dropped.
struct Running {
    supervisor: Child,
    output: Receiver<Vec<u8>>,
    report: Receiver<Result<Report>>,
}

impl Running {
    fn start(program: &Program) -> Result<Self> {
        let path = own_program::path();
        let mut supervisor = supervisor::command(&path, program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Worker(format!("cannot start {}: {error}", path.display())))?;
        let errors = supervisor.stderr.take().or_bug("the output of a command is a pipe")?;
        let replies = supervisor.stdout.take().or_bug("the report of a supervisor is a pipe")?;
        let (sender, output) = sync_channel(PIECES);
        let (reporter, report) = sync_channel(1);
        let started = thread::Builder::new()
            .spawn(move || pass_on(errors, &sender))
            .and_then(|_| thread::Builder::new().spawn(move || drop(reporter.send(read_report(replies)))));
        let running = Self { supervisor, output, report };
        started.map(|_| running).map_err(|error| Error::no_thread(&error))
    }

    /// Ends the program, and waits for that.
    fn stop(&mut self, said: &mut dyn FnMut(&[u8])) {
        drop(self.supervisor.stdin.take());
        let start = Instant::now();
        while start.elapsed() < supervisor::LONGEST_END {
            match self.output.recv_timeout(POLL_INTERVAL) {
                Ok(piece) => said(&piece),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.report.try_recv().is_ok() {
                return self.drain(said);
            }
        }
    }

    /// Passes on what was written before the end. A process that got away may hold the pipe open, so this does not wait
    /// for its end.
    fn drain(&mut self, said: &mut dyn FnMut(&[u8])) {
        let start = Instant::now();
        while start.elapsed() < LAST_OUTPUT {
            match self.output.recv_timeout(POLL_INTERVAL) {
                Ok(piece) => said(&piece),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // It ends by itself once its input is closed and the program is gone.
        let _ = self.supervisor.wait();
    }
}

/// Sends what comes through the pipe on, until it ends or nobody wants it.
fn pass_on(mut output: impl Read, sender: &SyncSender<Vec<u8>>) {
    let mut piece = vec![0; PIECE];
    loop {
        match output.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                if sender.send(piece.iter().take(count).copied().collect()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Reads how the program ended. If the supervisor does not say it, the program is ended here, as far as it can be reached.
fn read_report(replies: ChildStdout) -> Result<Report> {
    let mut started = None;
    for line in BufReader::new(replies).lines().map_while(io::Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Report::Started(group)) => started = Pid::from_raw(group),
            Ok(report) => return Ok(report),
            Err(_) => return Err(lost(&format!("it said {}", text::shown(&line)))),
        }
    }
    if let Some(group) = started {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Err(lost("it was killed, perhaps for lack of memory"))
}

/// Whether `program` can be started: it is a path to a program, or a name that is found in `PATH`.
pub fn is_there(program: &Path) -> bool {
    let runs = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    if program.components().count() > 1 || program.is_absolute() {
        return runs(program);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| runs(&folder.join(program)))
}
