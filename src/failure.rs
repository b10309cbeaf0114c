//! I/O errors that say what was tried and on which path.
//! Knows nothing of what the path is for.

use std::io;
use std::path::Path;

use anyhow::Context;

/// Adds the attempt and the path to an I/O error.
pub trait AtPath<T> {
    /// Turns `No such file or directory` into `cannot read DIR/FILE`, with the cause kept below it.
    fn at(self, attempt: &str, path: &Path) -> anyhow::Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, attempt: &str, path: &Path) -> anyhow::Result<T> {
        self.with_context(|| format!("cannot {attempt} {}", path.display()))
    }
}

/// Somebody asked to stop (Ctrl-C). Not a fault of the node that was running.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
