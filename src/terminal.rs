//! What all commands do with the terminal: results to standard output, warnings to standard error, and Ctrl-C.
//! Knows nothing of what is printed.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Prints notices about the remote as warnings, for commands that show no build.
pub(crate) fn warn(notices: &[String]) {
    for notice in notices {
        let _ = writeln!(io::stderr(), "warning: {notice}");
    }
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
