//! The program `pipeline`: parses the command line, calls the engine, prints, and returns an exit code.

mod cli;
mod commands;
mod progress;
mod remote;
mod results;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
