//! The worker: answers one request on standard input with JSON lines on standard output.
//! Knows nothing of graphs, keys or the store; `pipeline` starts it for work that needs a process of its own.

use std::io::{self, BufRead, Read, Write};
use std::process::{ExitCode, exit};
use std::thread;

use anyhow::{Context, Result, bail};

use super::measure::measure;
use super::probe::probe;
use super::runtime::Runtime;
use super::text_eval::evaluate;
use artifact::{Interrupted, Made, Output};
use protocol::{Reply, Request};
use weights::kernels::Backend;
use weights::probe::write_probe;

/// Answers the request, on the runtime and the backend that the closures make. A program that computes no weights
/// has no backend.
pub fn serve<R: Runtime>(
    runtime: impl FnOnce() -> Result<R>,
    backend: impl FnOnce() -> Option<Box<dyn Backend>>,
) -> ExitCode {
    let reply = answer(runtime, backend).unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
    let failed = matches!(reply, Reply::Failed(_));
    if send(&reply).is_err() || failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn answer<R: Runtime>(
    runtime: impl FnOnce() -> Result<R>,
    backend: impl FnOnce() -> Option<Box<dyn Backend>>,
) -> Result<Reply> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read the request")?;
    let request =
        serde_json::from_str(&line).context("this program is started by `pipeline`, not by hand")?;
    end_with_the_build();
    let runtime = runtime()?;
    match request {
        Request::Measure(request) => {
            let total = (request.conversations.len() * request.repeats) as u64;
            let mut tick = |done: usize| drop(send(&Reply::Progress(done as u64, total)));
            Ok(Reply::Measured(Box::new(measure(&runtime, &request, &mut tick)?)))
        }
        Request::Evaluate(request) => {
            let total = request.texts.len() as u64;
            let mut tick = |done: usize| drop(send(&Reply::Progress(done as u64, total)));
            let eval = evaluate(&runtime, &request, &mut tick)?;
            eval.check()?;
            Ok(Reply::Evaluated(eval))
        }
        Request::Rewrite { job, output } => {
            let Some(backend) = backend() else { bail!("this worker computes no weights") };
            let output = Output::new(output);
            let tick = |done, total| send(&Reply::Progress(done, total)).map_err(|_| Interrupted);
            job.run(&output, backend.as_ref(), &tick)?;
            let Made { artifact, warnings, .. } = output.finish();
            Ok(Reply::Made { artifact, warnings })
        }
        Request::Probe { request, output } => {
            let output = Output::new(output);
            write_probe(&output, &probe(&runtime, &request)?)?;
            let Made { artifact, warnings, .. } = output.finish();
            Ok(Reply::Made { artifact, warnings })
        }
    }
}

/// Exits as soon as standard input is closed. That happens when the build ends, even if it is killed.
fn end_with_the_build() {
    thread::spawn(|| {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        exit(130);
    });
}

fn send(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
