//! What all commands do with the terminal: results to standard output, messages to standard error, and Ctrl-C.
//! Every text for a terminal passes through here, and no control character of others gets through.
//! Knows nothing of what is printed.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use text::{harmless, harmless_json};

/// Writes a result to standard output. A reader that has gone changes nothing: the command goes on and ends
/// with its own exit code.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(harmless(text).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes one JSON line to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", harmless_json(&serde_json::to_string(value)?)))
}

/// Writes a message to standard error. A log that cannot be written must not fail the command.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(harmless(&format!("{text}\n")).as_bytes());
}

/// Prints notices about the remote as warnings, for commands that show no build.
pub(crate) fn warn(notices: &[String]) {
    notices.iter().for_each(|notice| say(&format!("warning: {notice}")));
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
