//! The program `pipeline`: parses the command line and answers with an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipeline::cli::main()
}
