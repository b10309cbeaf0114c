//! The program `pipeline`: parses the command line, calls the engine, prints, and returns an exit code.

mod cli;
mod commands;
mod outcome;
mod progress;
mod results;
mod shared_args;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
