//! The worker: a separate process for models, and for weights on MLX. Requests and replies are lines of JSON over a
//! pipe.
//! Knows nothing of what happens to a request; `models::worker` is the other end.
//!
//! It gets only the environment variables that it needs, because it reads models that others made: no keys and no
//! tokens.
//!
//! It is a separate process for three reasons: load time and peak memory are then those of one configuration,
//! MLX needs a single thread, and loading the MLX library takes longer than deciding that nothing is to be
//! done. The worker ends when its standard input ends, so it cannot outlive the build that started it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{env, thread};

use super::Device;
use crate::Error;
use crate::error::{OrBug, Result, fail};
use artifact::{Interrupted, Output, Tick};
use protocol::{
    Answered, Conversation, Loaded, ModelFolders, Probe, Question, Reading, Reply, Request, Run, Session,
    Step, Task, Text,
};
use weights::rewrite::Job;

/// Returns the name of the worker's program.
fn program(device: Device) -> &'static str {
    match device {
        Device::Cpu => "pipeline-cpu",
        Device::Mlx | Device::MlxElsewhere => "pipeline-mlx",
    }
}

/// The environment variable with the path of the worker.
const VARIABLE: &str = "PIPELINE_WORKER";

/// The environment variables that the worker gets.
const ENVIRONMENT: [&str; 7] = ["PATH", "HOME", "TMPDIR", "LANG", "CC", "CXX", "NO_COLOR"];

/// The beginnings of the names of others that it gets: of the dynamic linker, the locale, and the libraries.
const ENVIRONMENT_PREFIXES: [&str; 9] =
    ["LD_", "DYLD_", "LC_", "MLX_", "METAL_", "MTL_", "OMP_", "OPENBLAS_", "RUST_"];

/// How many bytes of the worker's last messages are kept.
const LAST_WORDS: usize = 4096;

/// How often a waiting build checks whether it was interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Where the programs of the workers are.
#[derive(Clone, Debug, Default)]
pub struct WorkerProgram {
    explicit: Option<PathBuf>,
}

impl WorkerProgram {
    /// Uses the program at `path`, whatever the environment says.
    pub fn at(path: PathBuf) -> Self {
        Self { explicit: Some(path) }
    }

    /// Returns the path of a worker: the explicit one, else that in `PIPELINE_WORKER`, else the one beside this
    /// program.
    fn path(&self, device: Device) -> Result<PathBuf> {
        if device == Device::MlxElsewhere {
            let id = device.id();
            fail!(
                Worker,
                "it is for `{id}`, which this machine does not have; a worker that has it makes it"
            );
        }
        if let Some(path) = &self.explicit {
            return Ok(path.clone());
        }
        if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let ours = env::current_exe();
        let ours =
            ours.map_err(|error| Error::Worker(format!("cannot find this program's own path: {error}")))?;
        Ok(ours.parent().unwrap_or(Path::new(".")).join(program(device)))
    }

    /// Starts a session: the worker loads the model of `request`. `tick` is asked whether to stop.
    pub(super) fn open(&self, device: Device, request: Session, tick: Poll<'_>) -> Result<OpenSession> {
        let mut worker = Worker::start(&self.path(device)?)?;
        worker.send(&Request::Session(request))?;
        match worker.next(device, tick)? {
            Reply::Loaded(loaded) => Ok(OpenSession { worker, device, loaded }),
            other => fail!(Bug, "the worker answered {other:?}"),
        }
    }

    /// Asks the worker for the prompts of conversations: for each its text, or why there is none.
    pub(super) fn render(
        &self,
        device: Device,
        model: ModelFolders,
        conversations: Vec<Conversation>,
    ) -> Result<Vec<std::result::Result<String, String>>> {
        match self.ask(device, &Request::Render { model, conversations }, &|_, _| Ok(()))? {
            Reply::Rendered(prompts) => Ok(prompts),
            other => fail!(Bug, "the worker answered {other:?}"),
        }
    }

    /// Asks the worker why one of these models does not run there, as far as its `config.json` tells. A worker that cannot
    /// be asked says nothing: the node that needs it says what ails it.
    pub(crate) fn refuses(&self, device: Device, models: Vec<PathBuf>) -> Option<String> {
        match self.ask(device, &Request::Check { models }, &|_, _| Ok(())) {
            Ok(Reply::Checked(problem)) => problem,
            _ => None,
        }
    }

    /// Asks the worker to make a model on MLX, and adds its files to `output`.
    pub(super) fn rewrite(&self, job: Job, output: &Output, tick: Tick<'_>) -> Result<()> {
        let request = Request::Rewrite { job, output: output.folder().to_owned() };
        self.make(Device::Mlx, &request, output, tick)
    }

    /// Asks the worker to observe the layers of a model, and adds its file to `output`.
    pub(super) fn probe(
        &self,
        device: Device,
        request: Probe,
        output: &Output,
        tick: Tick<'_>,
    ) -> Result<()> {
        let request = Request::Probe { request, output: output.folder().to_owned() };
        self.make(device, &request, output, tick)
    }

    fn make(&self, device: Device, request: &Request, output: &Output, tick: Tick<'_>) -> Result<()> {
        match self.ask(device, request, &|done, total| tick(done, total))? {
            Reply::Made { artifact, warnings } => {
                output.accept(&artifact);
                warnings.into_iter().for_each(|warning| output.warn(warning));
                Ok(())
            }
            other => fail!(Bug, "the worker answered {other:?}"),
        }
    }

    /// Starts a worker, sends one request and waits for its last reply.
    fn ask(
        &self,
        device: Device,
        request: &Request,
        tick: &dyn Fn(u64, u64) -> Result<(), Interrupted>,
    ) -> Result<Reply> {
        let mut worker = Worker::start(&self.path(device)?)?;
        worker.send(request)?;
        loop {
            match worker.next(device, &|| tick(0, 0))? {
                Reply::Progress(done, total) => tick(done, total)?,
                last => return Ok(last),
            }
        }
    }
}

/// Asks whether to stop.
pub(super) type Poll<'a> = &'a dyn Fn() -> Result<(), Interrupted>;

/// A worker that has loaded a model. It ends when this is dropped.
pub(super) struct OpenSession {
    worker: Worker,
    device: Device,
    /// What the worker said of loading.
    pub(super) loaded: Loaded,
}

impl OpenSession {
    /// Asks a question. `step` gets how far the answer is. There is no time if the question was not asked.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        step: &mut dyn FnMut(Step) -> Result<(), Interrupted>,
        tick: Poll<'_>,
    ) -> Result<(Answered, Option<Run>)> {
        match self.perform(&Task::Answer(question.clone()), step, tick)? {
            Reply::Answered(answered, run) => Ok((answered, run)),
            other => fail!(Bug, "the worker answered {other:?}"),
        }
    }

    /// Lets the model read a text. `step` gets how far it is.
    pub(super) fn read(
        &mut self,
        text: &Text,
        step: &mut dyn FnMut(Step) -> Result<(), Interrupted>,
        tick: Poll<'_>,
    ) -> Result<Reading> {
        match self.perform(&Task::Read(text.clone()), step, tick)? {
            Reply::Read(reading) => Ok(reading),
            other => fail!(Bug, "the worker answered {other:?}"),
        }
    }

    fn perform(
        &mut self,
        task: &Task,
        step: &mut dyn FnMut(Step) -> Result<(), Interrupted>,
        tick: Poll<'_>,
    ) -> Result<Reply> {
        self.worker.send(task)?;
        loop {
            match self.worker.next(self.device, tick)? {
                Reply::Step(done) => step(done)?,
                last => return Ok(last),
            }
        }
    }
}

/// Reads a line of the worker. If it cannot be read, the two programs are not of one version.
fn read_reply(line: &str, program: &str) -> Result<Reply> {
    serde_json::from_str(line).map_err(|error| {
        let line = text::shown(line);
        Error::Worker(format!(
            "the worker's answer cannot be read: {error}; is {program} of the same version? It said: {line}"
        ))
    })
}

/// A running worker.
struct Worker {
    child: Child,
    lines: Receiver<String>,
    /// The end of what it wrote to standard error.
    last_words: Option<JoinHandle<String>>,
}

impl Worker {
    fn start(program: &Path) -> Result<Self> {
        let command = Command::new(program)
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_needed)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = command.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::Worker(format!(
                "{} is missing; it is installed together with pipeline, and {VARIABLE} can name another",
                program.display()
            )),
            _ => Error::Worker(format!("cannot start {}: {error}", program.display())),
        })?;
        let output = child.stdout.take().or_bug("the worker's output is a pipe")?;
        let errors = child.stderr.take().or_bug("the worker's messages are a pipe")?;
        let (sender, lines) = channel();
        let listen = move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        };
        let started = thread::Builder::new().spawn(listen);
        let last_words = thread::Builder::new().spawn(move || read_last_words(errors));
        let problem = |error| Error::Worker(format!("cannot start a thread: {error}"));
        let mut worker = Self { child, lines, last_words: None };
        started.map_err(problem)?;
        worker.last_words = Some(last_words.map_err(problem)?);
        Ok(worker)
    }

    /// Waits for the next reply. A failure of the worker is an error.
    fn next(&mut self, device: Device, tick: Poll<'_>) -> Result<Reply> {
        loop {
            match self.lines.recv_timeout(POLL_INTERVAL) {
                Ok(line) => match read_reply(&line, program(device))? {
                    Reply::Failed(message) => return Err(Error::Worker(message)),
                    reply => return Ok(reply),
                },
                Err(RecvTimeoutError::Timeout) => tick()?,
                Err(RecvTimeoutError::Disconnected) => return Err(self.explain_end(tick)),
            }
        }
    }

    fn send(&mut self, request: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(request).expect("BUG: a request has a JSON form");
        line.push(b'\n');
        let input = self.child.stdin.as_mut().or_bug("the worker's input is a pipe")?;
        match input.write_all(&line) {
            // It ended before it read: its reply or its end says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::Worker(format!("cannot write to the worker: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Returns why a worker ended without a last reply: Ctrl-C, which reaches it too, or its exit status.
    fn explain_end(&mut self, tick: Poll<'_>) -> Error {
        thread::sleep(POLL_INTERVAL);
        if let Err(interrupted) = tick() {
            return interrupted.into();
        }
        let status = self.child.wait();
        let words = self.last_words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        match status {
            Ok(status) => Error::Worker(describe_end(status, words.trim())),
            Err(error) => Error::Worker(format!("the worker ended early: {error}")),
        }
    }
}

/// Says why the worker ended: its status, what that status usually means, and its last message.
fn describe_end(status: ExitStatus, words: &str) -> String {
    // A shell reports a signal as 128 and its number.
    let meaning = match (status.code(), status.signal()) {
        (Some(127), _) => "a library that it needs could not be loaded",
        (Some(126), _) => "it may not be run",
        (Some(137), _) | (_, Some(9)) => "it was killed, as the system does when the memory runs out",
        (Some(139), _) | (_, Some(11 | 7)) => "it crashed in native code",
        (Some(134), _) | (_, Some(6)) => "it was aborted",
        _ => "it gave no reason",
    };
    let line = words.lines().last().unwrap_or_default();
    let said = if line.is_empty() { String::new() } else { format!(": {}", text::shown(line)) };
    format!("the worker ended early ({status}): {meaning}{said}")
}

fn is_needed(name: &str) -> bool {
    ENVIRONMENT.contains(&name) || ENVIRONMENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads to the end, and returns the last bytes as text.
fn read_last_words(mut errors: impl Read) -> String {
    let (mut kept, mut block) = (Vec::new(), [0; LAST_WORDS]);
    while let Ok(count @ 1..) = errors.read(&mut block) {
        kept.extend_from_slice(block.get(..count).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing is lost: the worker writes only into this process's workspace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_for_what_it_was() {
        let end = |code: i32, words: &str| describe_end(ExitStatus::from_raw(code), words);
        assert_eq!(
            end(127 << 8, "libmlx.so: cannot open shared object file\n"),
            "the worker ended early (exit status: 127): a library that it needs could not be loaded: \
             libmlx.so: cannot open shared object file"
        );
        assert!(end(137 << 8, "").contains("memory") && end(9, "").contains("memory"));
        assert!(end(1 << 8, "one\n\u{1b}[2Jtwo").ends_with("it gave no reason: \\u{1b}[2Jtwo"));
    }

    #[test]
    fn no_secret_is_passed_on() {
        for name in ["PIPELINE_SIGNING_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN"] {
            assert!(!is_needed(name), "{name}");
        }
        assert!(is_needed("PATH") && is_needed("LD_LIBRARY_PATH") && is_needed("LC_ALL"));
    }

    #[test]
    fn an_explicit_path_counts_first_and_a_missing_worker_is_named() {
        let program = WorkerProgram::at(PathBuf::from("/nowhere/worker"));
        assert_eq!(program.path(Device::Mlx).unwrap(), Path::new("/nowhere/worker"));
        let error = Worker::start(&program.path(Device::Mlx).unwrap()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "/nowhere/worker is missing; it is installed together with pipeline, and PIPELINE_WORKER can name another"
        );
    }
}
