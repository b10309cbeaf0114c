//! The worker: a process of its own for what runs on MLX, asked over a pipe in JSON lines.
//! Knows nothing of what MLX does with the request; `src/bin/pipeline-mlx.rs` is the other end.
//!
//! A process of its own, because load time and peak memory are then the configuration's own, because MLX wants one
//! thread, and because loading the MLX library takes longer than deciding that nothing is to be done.
//! The worker ends when its standard input does: it cannot outlive the build that asked.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use artifact::{Interrupted, Output, Tick};
use protocol::{Evaluate, Measure, Measured, Reply, Request, TextEval};
use weights::rewrite::Job;

/// The name of the worker's program, which lies beside ours.
const PROGRAM: &str = "pipeline-mlx";

/// How often a waiting build looks whether it was interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Has texts evaluated; `tick` gets the number of texts done.
pub(super) fn evaluate(
    request: Evaluate,
    tick: &dyn Fn(u64) -> Result<(), Interrupted>,
) -> anyhow::Result<TextEval> {
    match ask(&Request::Evaluate(request), &|done, _| tick(done))? {
        Reply::Evaluated(eval) => Ok(eval),
        other => bail!("BUG: the worker answered {other:?}"),
    }
}

/// Has a configuration measured; `tick` gets the number of answers given.
pub(super) fn measure(
    request: Measure,
    tick: &dyn Fn(u64) -> Result<(), Interrupted>,
) -> anyhow::Result<Measured> {
    match ask(&Request::Measure(request), &|done, _| tick(done))? {
        Reply::Measured(measured) => Ok(*measured),
        other => bail!("BUG: the worker answered {other:?}"),
    }
}

/// Has a model made on MLX.
pub(super) fn rewrite(job: Job, output: &Output, tick: Tick<'_>) -> anyhow::Result<()> {
    let request = Request::Rewrite { job, output: output.folder().to_owned() };
    match ask(&request, &|done, total| tick(done, total))? {
        Reply::Rewritten { artifact, warnings } => {
            output.accept(&artifact);
            warnings.into_iter().for_each(|warning| output.warn(warning));
            Ok(())
        }
        other => bail!("BUG: the worker answered {other:?}"),
    }
}

/// Sends one request and waits for its last reply.
fn ask(request: &Request, tick: &dyn Fn(u64, u64) -> Result<(), Interrupted>) -> anyhow::Result<Reply> {
    let mut worker = Worker::start()?;
    worker.send(request)?;
    loop {
        match worker.lines.recv_timeout(POLL_INTERVAL) {
            Ok(line) => match serde_json::from_str(&line).context("BUG: the worker answered no JSON")? {
                Reply::Progress(done, total) => tick(done, total)?,
                Reply::Failed(message) => return Err(anyhow!(message)),
                last => return Ok(last),
            },
            Err(RecvTimeoutError::Timeout) => tick(0, 0)?,
            Err(RecvTimeoutError::Disconnected) => return Err(worker.explain_end(tick)),
        }
    }
}

struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start() -> anyhow::Result<Self> {
        let program = program()?;
        let command = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = command.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                anyhow!("{} is missing; it is installed together with pipeline", program.display())
            }
            _ => anyhow!("cannot start {}: {error}", program.display()),
        })?;
        let output = child.stdout.take().context("BUG: the worker's output is a pipe")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let input = self.child.stdin.as_mut().context("BUG: the worker's input is a pipe")?;
        input.write_all(&line).context("cannot write to the worker")
    }

    /// The worker ended without a last word: by Ctrl-C, which reaches it too, or by a signal of the system.
    fn explain_end(&mut self, tick: &dyn Fn(u64, u64) -> Result<(), Interrupted>) -> anyhow::Error {
        thread::sleep(POLL_INTERVAL);
        if let Err(interrupted) = tick(0, 0) {
            return interrupted.into();
        }
        match self.child.wait() {
            Ok(status) => anyhow!("the worker ended early ({status}); was there enough memory?"),
            Err(error) => anyhow!("the worker ended early: {error}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has nothing to lose: what it wrote lies in our own unfinished folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe().context("cannot find our own program")?;
    Ok(ours.parent().unwrap_or(Path::new(".")).join(PROGRAM))
}
