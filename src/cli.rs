//! The command line: its verbs and options, and the function that runs each verb.
//! Knows nothing of how a build works.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::outcome::Outcome;
use crate::terminal::{print, say};
use artifact::ErrorKind;
use engine::project::ProjectPath;

/// The environment variable with the file of trusted keys.
const TRUSTED_KEYS: &str = "PIPELINE_TRUSTED_KEYS";

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
    /// Trust the keys in this file, and not those in pipeline.yaml; else $PIPELINE_TRUSTED_KEYS
    #[arg(long, value_name = "FILE", global = true)]
    trusted_keys: Option<PathBuf>,
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
    Push(commands::transfer::PushArgs),
    /// Make nodes again in a scratch folder and compare, or hash everything that is stored again
    Verify(commands::verify::VerifyArgs),
    /// Make on this machine what another one asks for in a remote: the work of a worker
    Exec(commands::exec::ExecArgs),
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
    /// Run a command for the `pipeline` that started this process, and end it with that
    #[command(hide = true)]
    Supervise {
        /// The program and its arguments
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and runs the verb.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            say(explain_error(&error).trim_end());
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<Outcome> {
        let variable = || std::env::var_os(TRUSTED_KEYS).filter(|file| !file.is_empty()).map(PathBuf::from);
        let trusted_keys = self.trusted_keys.or_else(variable);
        let path = ProjectPath { folder: self.folder, file: self.file, trusted_keys };
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
            Verb::Exec(args) => commands::exec::run(&args, &path),
            Verb::Cache(args) => commands::cache::run(&args, &path),
            Verb::Gc(args) => commands::gc::run(&args, &path),
            Verb::Keys(args) => commands::keys::run(&args, &path),
            Verb::Init(args) => commands::init::run(&args, &path),
            Verb::Schema => commands::schema::run(),
            Verb::Supervise { command } => {
                engine::process::supervisor::serve(&command);
                Ok(Outcome::Success)
            }
            Verb::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "pipeline", &mut script);
                print(&String::from_utf8(script)?)?;
                Ok(Outcome::Success)
            }
        }
    }
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
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<engine::Error>());
    if let Some(hint) = cause.and_then(engine::Error::hint) {
        text += &format!("hint: {hint}\n");
    }
    text
}
