//! The path of the program `pipeline`, which starts itself again as a signer or as a supervisor.
//! Knows nothing of what it is started for.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the path of `pipeline`: this program itself, or the one beside it.
pub(crate) fn path() -> PathBuf {
    let ours = env::current_exe().unwrap_or_default();
    let is_it = ours.file_name().is_some_and(|name| name == "pipeline");
    if is_it { ours } else { ours.parent().unwrap_or(Path::new(".")).join("pipeline") }
}
