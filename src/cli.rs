//! The command line: its verbs and options, and the function that runs each verb.
//! Knows nothing of how a build works.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::commands;
use artifact::ErrorKind;
use engine::project::ProjectPath;
use engine::schedule::Summary;
use engine::stage::BackendKind;

/// make for model weights
///
/// Describe in pipeline.yaml how a base model and a LoRA adapter become the models you ship; `pipeline build`
/// makes what is missing or stale, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Work in this folder
    #[arg(short = 'C', value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
    /// Read this file
    #[arg(short = 'f', value_name = "FILE", global = true, default_value = "pipeline.yaml")]
    file: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make what is missing or stale
    Build(commands::build::BuildArgs),
    /// Show what a build would do
    Status(commands::status::StatusArgs),
    /// Say why a node is stale: what changed, old and new
    Why(commands::why::WhyArgs),
    /// Print the graph
    Graph(commands::graph::GraphArgs),
    /// Show what a model is, and what quantizing left of its fine-tuning
    Inspect(commands::inspect::InspectArgs),
    /// Print the benchmark's report again, without building
    Report(commands::report::ReportArgs),
    /// Compare two configs of a benchmark, or what is there now with pipeline.lock
    Diff(commands::diff::DiffArgs),
    /// Bring artifacts here from the remote, and run nothing
    Pull(commands::transfer::TransferArgs),
    /// Send artifacts to the remote, signed, with all they are made from
    Push(commands::transfer::TransferArgs),
    /// Make nodes again in a scratch folder and compare, or hash everything that is stored again
    Verify(commands::verify::VerifyArgs),
    /// Say what is in the cache and what it was good for
    Cache(commands::cache::CacheArgs),
    /// Remove from the cache what is not current
    Gc(commands::gc::GcArgs),
    /// Make, show and trust the keys that sign results
    Keys(commands::keys::KeysArgs),
    /// Write a pipeline.yaml to begin with
    Init(commands::init::InitArgs),
    /// Print the JSON Schema of pipeline.yaml
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Returns the flag that Ctrl-C sets from now on, so that running work can stop in order. A second Ctrl-C
/// ends the program at once.
pub(crate) fn watch_for_interrupt() -> &'static AtomicBool {
    static CANCEL: AtomicBool = AtomicBool::new(false);
    // This fails only if a handler is set already, and a process runs only one command.
    let _ = ctrlc::set_handler(|| {
        if CANCEL.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    &CANCEL
}

/// The backend that computes weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// Plain Rust: the same bytes on every machine
    #[default]
    Cpu,
    /// MLX on its device
    Mlx,
}

impl From<BackendArg> for BackendKind {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Cpu => Self::Cpu,
            BackendArg::Mlx => Self::Mlx,
        }
    }
}

/// How a command ended, if it returned no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Success,
    /// A node or a check failed, and the command said which.
    Failure,
    /// Something is stale, and the user asked for an exit code that says so.
    Stale,
    /// Ctrl-C interrupted it.
    Interrupted,
}

impl Outcome {
    /// Returns the outcome of a command that ran nodes.
    pub(crate) fn of(summary: &Summary) -> Self {
        match summary {
            Summary { interrupted: true, .. } => Self::Interrupted,
            Summary { failed, .. } if !failed.is_empty() => Self::Failure,
            _ => Self::Success,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Failure => Self::from(1),
            Outcome::Stale => Self::from(3),
            // The exit code with which a shell reports a program that SIGINT ended.
            Outcome::Interrupted => Self::from(130),
        }
    }
}

/// Parses the command line and runs the verb.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(outcome) => outcome.into(),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = io::stderr().write_all(explain_error(&error).as_bytes());
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<Outcome> {
        let path = ProjectPath { folder: self.folder, file: self.file };
        match self.verb {
            Verb::Build(args) => commands::build::run(&args, &path),
            Verb::Status(args) => commands::status::run(&args, &path),
            Verb::Why(args) => commands::why::run(&args, &path),
            Verb::Graph(args) => commands::graph::run(&args, &path),
            Verb::Inspect(args) => commands::inspect::run(&args, &path),
            Verb::Report(args) => commands::report::run(&args, &path),
            Verb::Diff(args) => commands::diff::run(&args, &path),
            Verb::Pull(args) => commands::transfer::pull(&args, &path),
            Verb::Push(args) => commands::transfer::push(&args, &path),
            Verb::Verify(args) => commands::verify::run(&args, &path),
            Verb::Cache(args) => commands::cache::run(&args, &path),
            Verb::Gc(args) => commands::gc::run(&args, &path),
            Verb::Keys(args) => commands::keys::run(&args, &path),
            Verb::Init(args) => commands::init::run(&args, &path),
            Verb::Schema => commands::schema::run(),
            Verb::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "pipeline", &mut io::stdout());
                Ok(Outcome::Success)
            }
        }
    }
}

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes one JSON line to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    kinds.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether the error is a mistake in what the user wrote: these exit with code 2, all others with code 1.
fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<engine::Error>().is_some_and(|error| error.kind() == ErrorKind::Usage)
}

/// Describes an error: what went wrong, its causes, and what to do about it if that is known.
fn explain_error(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        text += &format!("caused by: {cause}\n");
    }
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    if let Some(hint) = cause.and_then(|cause| engine::hint_for(cause.kind())) {
        text += &format!("hint: {hint}\n");
    }
    text
}
