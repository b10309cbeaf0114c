//! The worker that runs models on the CPU runtime.
//! Knows nothing of requests; `models::worker` answers them.

use std::process::ExitCode;

use cpu::Cpu;

fn main() -> ExitCode {
    models::worker::serve(|| Ok(Cpu::default()), || None)
}
