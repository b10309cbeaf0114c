//! I/O errors that say what was tried and on which path.
//! Knows nothing of what the path is for.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a path that the system refused, such as `cannot read DIR/FILE`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", .path.display())]
pub struct IoError {
    /// What was tried, as a verb: `read`, `create`.
    pub attempt: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Adds the attempt and the path to an I/O error.
pub trait AtPath<T> {
    /// Turns `No such file or directory` into `cannot read DIR/FILE`; the original error becomes its cause.
    ///
    /// # Errors
    /// Fails when `self` is an error.
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, IoError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T, IoError> {
        self.map_err(|source| IoError { attempt, path: path.to_owned(), source })
    }
}
