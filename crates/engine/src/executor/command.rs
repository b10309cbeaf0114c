//! Runs the short programs of an engine, and returns what they print.
//! Knows nothing of engines.

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::error::{Result, fail};

/// How long a program may take.
const LONGEST: Duration = Duration::from_secs(60);

/// How much of its output is read, in bytes.
const LONGEST_OUTPUT: u64 = 64 << 20;

/// How long the last output is waited for once a program has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How much of what a running program writes is kept, in bytes.
const LAST_WORDS: usize = 1 << 14;

/// How long the last words of a program may be on their way.
const WORDS_ON_THEIR_WAY: Duration = Duration::from_millis(200);

/// How often it is looked whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The options with which `ssh` never asks, and never talks to a host that it does not know.
pub(super) const STRICT: [&str; 6] = [
    "-oBatchMode=yes",
    "-oStrictHostKeyChecking=yes",
    "-oConnectTimeout=10",
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
    "-T",
];

/// The environment variables that the programs of an engine get. They pass their environment on to jobs, and no secret of
/// this machine is to travel.
const ENVIRONMENT: [&str; 11] = [
    "HOME",
    "KRB5CCNAME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "TERM",
    "TMPDIR",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// What the names of others begin with.
const ENVIRONMENT_PREFIXES: [&str; 2] = ["LC_", "SLURM_"];

/// Returns a command of an engine. A signal of the terminal does not reach it: this process says when it ends.
pub(super) fn program(name: &str) -> Command {
    let is_passed = |name: &str| {
        ENVIRONMENT.contains(&name) || ENVIRONMENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let passed = env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed));
    let mut command = Command::new(name);
    command.env_clear().envs(passed).process_group(0);
    command
}

/// Runs `arguments` behind `prefix`, with `input`; returns its standard output. A prefix that begins with `ssh` leads to
/// a shell on another host, so the words are quoted for that.
pub(super) fn run(prefix: &[String], arguments: &[String], input: &str) -> Result<String> {
    let is_ssh = |program: &String| Path::new(program).file_name().is_some_and(|name| name == "ssh");
    let words: Vec<String> = match prefix.split_first() {
        Some((ssh, rest)) if is_ssh(ssh) => {
            let line = arguments.iter().map(|word| super::quoted(word)).collect::<Vec<_>>().join(" ");
            let strict = STRICT.iter().map(|option| (*option).to_owned());
            [ssh.clone()].into_iter().chain(strict).chain(rest.iter().cloned()).chain([line]).collect()
        }
        _ => prefix.iter().chain(arguments).cloned().collect(),
    };
    let Some((program, rest)) = words.split_first() else { fail!(Bug, "a program has a name") };
    let name = arguments.first().map_or("", String::as_str);
    let output = finish(program, rest, input).map_err(|error| {
        let problem = if error.kind() == io::ErrorKind::TimedOut { "does not end" } else { "cannot be run" };
        Error::Worker(format!("`{name}` {problem}: {program}: {error}"))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { output.status.to_string() } else { last_lines(&said) };
    Err(Error::Worker(format!("`{name}` says: {said}")))
}

/// Runs a program to its end.
fn finish(program: &str, arguments: &[String], input: &str) -> io::Result<Output> {
    let mut command = self::program(program);
    let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let written = input.as_bytes().to_vec();
    thread::Builder::new().spawn(move || {
        // A program that does not read its input says so itself.
        let _ = stdin.map(|mut stdin| stdin.write_all(&written));
    })?;
    let (out, err) = (read(stdout)?, read(stderr)?);
    let status = wait(&mut child, LONGEST)?;
    // Another process may hold the pipes open, such as the shared connection of `ssh`.
    let all = |reader: &Receiver<Vec<u8>>| {
        let (mut bytes, start) = (Vec::new(), Instant::now());
        while let Ok(piece) = reader.recv_timeout(LAST_OUTPUT.saturating_sub(start.elapsed())) {
            bytes.extend(piece);
        }
        bytes
    };
    Ok(Output { status, stdout: all(&out), stderr: all(&err) })
}

/// Waits until a program has ended. If that takes too long, it is killed.
pub(super) fn wait(child: &mut Child, longest: Duration) -> io::Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > longest {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", longest.as_secs()),
            ));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Reads a pipe on a thread of its own.
fn read(output: Option<impl Read + Send + 'static>) -> io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        let Some(output) = output else { return };
        let (mut output, mut piece) = (output.take(LONGEST_OUTPUT), vec![0; 1 << 16]);
        while let Ok(count) = output.read(&mut piece) {
            let bytes: Vec<u8> = piece.iter().take(count).copied().collect();
            if count == 0 || sender.send(bytes).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// The last of what a running program writes.
#[derive(Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<Vec<u8>>>);

impl LastWords {
    /// Reads a pipe on a thread of its own.
    pub(super) fn keep(&self, output: impl Read + Send + 'static) -> Result<()> {
        let words = self.clone();
        let started = thread::Builder::new().spawn(move || words.read(output));
        started.map(drop).map_err(|error| Error::no_thread(&error))
    }

    fn read(&self, mut output: impl Read) {
        let mut piece = vec![0; 1 << 12];
        while let Ok(count) = output.read(&mut piece) {
            if count == 0 {
                return;
            }
            let mut words = self.bytes();
            words.extend(piece.iter().take(count));
            let spare = words.len().saturating_sub(LAST_WORDS);
            words.drain(..spare);
        }
    }

    /// Returns the last lines, once the program has ended. They may still be on their way, so this waits a little.
    pub(super) fn last_lines(&self) -> String {
        let start = Instant::now();
        loop {
            let last = last_lines(&self.text());
            if !last.is_empty() || start.elapsed() > WORDS_ON_THEIR_WAY {
                return last;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns all that is kept.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the last lines of what a program wrote, in one line.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.len().saturating_sub(3);
    text::harmless(&lines.get(last..).unwrap_or_default().join("; ")).into_owned()
}
