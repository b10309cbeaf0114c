//! `run`: runs a command of the user in a scratch folder, and takes in the files that it leaves in `{out}`.
//! Knows nothing of what the command does, nor of the cache.

mod log;
mod output;
mod scratch;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Console, Inputs, Kind, base};
use crate::Error;
use crate::error::{Context, Result, fail, require};
use crate::process::{self, Ended, Program};
use artifact::{Output, Tick};
use log::Log;
use scratch::Scratch;
pub(crate) use template::is_name;
pub use template::{OUT, Template};
use weights::adapter::Adapter;

/// The environment variables that every command gets, besides those of the locale.
const ENVIRONMENT: [&str; 7] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TZ", "USER"];

/// What the names of the variables of the locale begin with.
const LOCALE: &str = "LC_";

/// What the role of a file of the project in a recipe begins with. Its path follows.
pub const FILE_ROLE: &str = "file:";

/// How long the command of `tool` may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);

/// How much is kept of what the command of `tool` writes, in bytes.
const TOOL_BYTES: usize = 1 << 16;

/// Parameters of `run`. What is skipped in a recipe changes how the command runs, and not what it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program and its arguments. Each is a [`Template`].
    pub command: Vec<String>,
    /// Whether the same inputs give the same bytes.
    #[serde(skip)]
    pub deterministic: bool,
    /// Files of the project that the command sees without naming them.
    #[serde(skip)]
    pub files: Vec<String>,
    /// The environment variables that are passed through and are not part of the key.
    #[serde(skip)]
    pub env: Vec<String>,
    /// The environment variables that are passed through, each with its value; `None` if it is not set.
    pub key_env: BTreeMap<String, Option<String>>,
    /// What the command makes.
    pub makes: Kind,
    /// Patterns of the files that are kept; all files if there is none.
    pub outputs: Vec<String>,
    /// How long the command may run, in seconds.
    #[serde(skip)]
    pub timeout: Option<u64>,
    /// A command whose output is kept in the record.
    #[serde(skip)]
    pub tool: Vec<String>,
    /// What the user says of the version of the program.
    pub version: Option<String>,
}

impl Run {
    /// Returns the templates of the command. What was read from a pipeline file can be parsed.
    pub fn templates(&self) -> Vec<Template> {
        self.command.iter().filter_map(|argument| Template::parse(argument).ok()).collect()
    }

    /// Returns the paths of the files of the project that the command sees: those that it names, and those in `files`.
    pub fn project_files(&self) -> BTreeSet<String> {
        let templates = self.templates();
        let named = templates.iter().flat_map(Template::files).map(str::to_owned);
        named.chain(self.files.iter().cloned()).collect()
    }

    /// Returns the path of the program, if it may be a file of the project: it has a `/`, and is relative.
    pub fn project_program(&self) -> Option<String> {
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        self.program().filter(|program| program.contains('/') && program.split('/').all(is_plain))
    }

    /// Returns the program, if its name does not depend on an input.
    pub fn program(&self) -> Option<String> {
        self.templates().first()?.constant()
    }

    /// Returns the environment of the command: `variable` returns the value of one of ours.
    fn environment(&self, scratch: &Scratch) -> Vec<(OsString, OsString)> {
        let ours = env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                ENVIRONMENT.contains(&name)
                    || name.starts_with(LOCALE)
                    || self.env.iter().any(|own| own == name)
            })
        });
        let in_key =
            self.key_env.iter().filter_map(|(name, value)| Some((name.into(), value.as_ref()?.into())));
        let own = [
            ("TMPDIR".into(), scratch.temporary().into()),
            // A program in Python writes its messages when they come up, so that the log shows how far it is.
            ("PYTHONUNBUFFERED".into(), "1".into()),
        ];
        own.into_iter().chain(ours).chain(in_key).collect()
    }
}

/// Runs the command on `inputs`, and adds the files that it made to `output`.
///
/// # Errors
/// Fails if the command cannot be started, fails, takes too long or changes an input, if it makes no files of the kind
/// that is asked for, or if `tick` asks to stop.
pub(super) fn run(
    parameters: &Run,
    inputs: &Inputs,
    output: &Output,
    console: Console<'_>,
    tick: Tick<'_>,
) -> Result<()> {
    let scratch = Scratch::make(output.folder(), parameters, inputs)?;
    if !parameters.tool.is_empty() {
        note_tool(parameters, &scratch, output, tick)?;
        scratch.empty()?;
    }
    let mut log = Log::open(console)?;
    let program = program(parameters, &scratch)?;
    let ended = process::run(&program, &mut |piece| log.add(piece), &|| tick(0, 0))?;
    log.finish();
    scratch.open_up();
    check_end(ended, parameters, inputs, &program, &log)?;
    scratch.check_inputs()?;
    output::take(&scratch, parameters, output)?;
    for file in &inputs.bypassing_files {
        output.warn(format!(
            "`{file}` is a file of the project that is not part of the key, so a change of it goes unnoticed; name it as \
             `{{file:…}}`"
        ));
    }
    check_kind(parameters.makes, output)
}

fn program(parameters: &Run, scratch: &Scratch) -> Result<Program> {
    let mut words =
        parameters.templates().into_iter().map(|template| template.fill(&|name| scratch.path_of(name)));
    let Some(program) = words.next() else { fail!(Bug, "a command has a program") };
    Ok(Program {
        program: scratch.program(&program, parameters.program().is_some()),
        arguments: words.collect(),
        folder: scratch.folder().to_owned(),
        environment: parameters.environment(scratch),
        timeout: parameters.timeout.map(Duration::from_secs),
    })
}

/// Runs the command of `tool`, and keeps what it writes. It tells which program made the files, and is no part of them:
/// if it fails, that is a warning.
fn note_tool(parameters: &Run, scratch: &Scratch, output: &Output, tick: Tick<'_>) -> Result<()> {
    let Some((program, arguments)) = parameters.tool.split_first() else { return Ok(()) };
    let program = Program {
        program: scratch.program(program, true),
        arguments: arguments.to_vec(),
        folder: scratch.folder().to_owned(),
        environment: parameters.environment(scratch),
        timeout: Some(TOOL_TIMEOUT),
    };
    let mut said = Vec::new();
    let mut keep = |piece: &[u8]| {
        let room = TOOL_BYTES.saturating_sub(said.len());
        said.extend(piece.iter().take(room));
    };
    let problem = match process::run(&program, &mut keep, &|| tick(0, 0)) {
        Ok(Ended::Code(0)) => None,
        Ok(ended) => Some(how(ended, Some(TOOL_TIMEOUT.as_secs()))),
        Err(error) if error.is_interrupted() => return Err(error),
        Err(error) => Some(artifact::in_one_line(&error)),
    };
    if let Some(problem) = problem {
        output.warn(format!("`tool` tells nothing: `{}` {problem}", program.program.display()));
        return Ok(());
    }
    output.note_tool(text::without_password(&String::from_utf8_lossy(&said)));
    Ok(())
}

/// Describes an end that is a failure. It follows the name of the program.
fn how(ended: Ended, timeout: Option<u64>) -> String {
    match ended {
        Ended::Code(code) => format!("failed with exit code {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}{}", signal_name(signal)),
        Ended::TimedOut => match timeout {
            Some(seconds) => {
                format!("was ended after {}, its `timeout`", text::units::age(Duration::from_secs(seconds)))
            }
            None => "was ended because it took too long".to_owned(),
        },
    }
}

fn signal_name(signal: i32) -> String {
    let names = [(2, "SIGINT"), (6, "SIGABRT"), (9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")];
    let name = names.iter().find(|(number, _)| *number == signal);
    name.map_or_else(String::new, |(_, name)| format!(" ({name})"))
}

fn check_end(
    ended: Ended,
    parameters: &Run,
    inputs: &Inputs,
    program: &Program,
    log: &Log<'_>,
) -> Result<()> {
    if ended == Ended::Code(0) {
        return Ok(());
    }
    let mut message = format!(
        "`{}` {}",
        parameters.program().unwrap_or_else(|| program.program.display().to_string()),
        how(ended, parameters.timeout)
    );
    for file in &inputs.unnamed_files {
        message += &format!(
            "; `{file}` is a file of the project, which the command sees only if it names it: `{{file:{file}}}`"
        );
    }
    Err(Error::Command(message + &log.last_words()))
}

/// Checks that the files are what they are said to be.
fn check_kind(makes: Kind, output: &Output) -> Result<()> {
    let folder: &Path = output.folder();
    match makes {
        Kind::Model => base::check(folder, output).within(|| format!("{} is not a model", made(folder))),
        Kind::Adapter => {
            let checked = Adapter::open(folder).and_then(|adapter| adapter.check());
            checked.within(|| format!("{} is not an adapter", made(folder)))
        }
        Kind::Files | Kind::Report | Kind::Probe => Ok(()),
    }
}

/// Names the files that the command made.
fn made(folder: &Path) -> String {
    let names = output::files_below(folder).unwrap_or_default();
    format!("what the command made, {},", output::listed(&names))
}

/// Checks what can be known before the command runs: that its program is there.
pub(super) fn preflight(parameters: &Run, root: &Path) -> Result<()> {
    let tool = parameters.tool.first().cloned();
    for program in parameters.program().into_iter().chain(tool) {
        let path = scratch::resolve(root, &program);
        let problem = match (program.contains('/'), path.is_file()) {
            (true, true) => "is not executable; `chmod +x` makes it so, or put its interpreter before it",
            (true, false) => "is not there; its path is relative to the folder of the pipeline file",
            (false, _) => "is not there; install it, or put its folder into PATH",
        };
        require!(process::is_there(&path), Command, "the program `{program}` {problem}");
    }
    Ok(())
}
