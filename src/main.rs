//! The program `pipeline`: parses the command line, calls the engine, prints, and returns an exit code.

mod cli;
mod commands;
mod environment;
mod outcome;
mod progress;
mod results;
mod shared_args;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    environment::hand_over_the_key();
    environment::raise_the_limit_of_files();
    cli::main()
}
