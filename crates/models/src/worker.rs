//! The worker: answers one request on standard input with JSON lines on standard output.
//! Knows nothing of graphs, keys or the store; `pipeline` starts it for work that needs a process of its own.

use std::io::{self, BufRead, Write};
use std::process::{ExitCode, exit};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context, Result, bail};

use super::probe::probe;
use super::runtime::Runtime;
use super::session;
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
    let lines = lines_of_input();
    let line = lines.recv().context("cannot read the request")?;
    let request =
        serde_json::from_str(&line).context("this program is started by `pipeline`, not by hand")?;
    if let Request::Render { model, conversations } = &request {
        return Ok(Reply::Rendered(session::render(model, conversations)?));
    }
    if let Request::Check { models } = &request {
        let problem = models.iter().find_map(|model| crate::check(model).err());
        return Ok(Reply::Checked(problem.map(|problem| format!("{problem:#}"))));
    }
    let runtime = runtime()?;
    match request {
        Request::Render { .. } | Request::Check { .. } => bail!("BUG: this needs no runtime"),
        Request::Session(opened) => {
            let task = |line: String| serde_json::from_str(&line).context("cannot read a task");
            let mut send = |reply: &Reply| drop(send(reply));
            session::serve(&runtime, &opened, &mut lines.iter().map(task), &mut send)?;
            bail!("the session has ended")
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

/// Returns the lines of standard input, read on a thread. The program exits as soon as the input is closed. That
/// happens when the build ends, even if it is killed.
fn lines_of_input() -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(io::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        exit(130);
    });
    lines
}

fn send(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
