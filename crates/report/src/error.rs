//! Why a suite could not be read.
//! Knows nothing of results or reports, which cannot fail.

use artifact::IoError;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The suite is wrong: the message shows the line and says what was expected.
    #[error("{0}")]
    Suite(String),
}
