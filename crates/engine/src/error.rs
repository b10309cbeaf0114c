//! The errors of the engine: what failed, the kind of the failure, and sometimes a hint.
//! Knows nothing of what a caller does about an error.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::store::RemoteError;
use artifact::{ErrorKind, Interrupted, IoError, find_cause};

/// The result type of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of the engine failed. The message says what failed, where and why; the cause is the
/// error's source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipeline file, a target or an option is wrong. For the pipeline file, the message shows the line.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A model or an adapter could not be read, made or written.
    #[error(transparent)]
    Weights(weights::Error),
    /// A source, a suite or a report is not valid.
    #[error("{0}")]
    Source(String),
    /// The cache or `artifacts/` contains something unexpected, or lacks something.
    #[error("{0}")]
    Store(String),
    /// The file system of `artifacts/` has no symbolic links.
    #[error("{} cannot hold symbolic links: {error}", path.display())]
    NoLinks {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The remote could not be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The Hugging Face hub could not be used.
    #[error("{0}")]
    Hub(String),
    /// A signing key could not be read or made.
    #[error("{0}")]
    Key(String),
    /// The worker process could not be started, or failed.
    #[error("{0}")]
    Worker(String),
    /// A command of a `run` node failed, or did what it must not.
    #[error("{0}")]
    Command(String),
    /// Something differs from `pipeline.lock`, or the lock has no entry for it.
    #[error("{0}")]
    Locked(String),
    /// A gate of a benchmark failed.
    #[error("{0}")]
    Gate(String),
    /// Something that is needed is not built, and this operation must not build it.
    #[error("{0}")]
    NotBuilt(String),
    /// A build would not fit on the disk or into memory.
    #[error("{0}")]
    Room(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted(#[from] Interrupted),
    /// An error, with the place where it occurred.
    #[error("{place}")]
    Within {
        /// The place. In a chain of messages it comes before the message of `source`.
        place: String,
        /// The error itself.
        source: Box<Self>,
    },
    /// This crate has a bug.
    #[error("BUG: {0}")]
    Bug(String),
}

impl Error {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) => ErrorKind::Usage,
            Self::Weights(error) => error.kind(),
            Self::Source(_) | Self::Command(_) | Self::Locked(_) | Self::Gate(_) | Self::NotBuilt(_) => {
                ErrorKind::Input
            }
            Self::Io(_)
            | Self::Store(_)
            | Self::NoLinks { .. }
            | Self::Remote(_)
            | Self::Hub(_)
            | Self::Room(_)
            | Self::Key(_)
            | Self::Worker(_) => ErrorKind::System,
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Within { source, .. } => source.kind(),
            Self::Bug(_) => ErrorKind::Bug,
        }
    }

    /// Returns the error for a thread that the system did not give.
    pub(crate) fn no_thread(error: &io::Error) -> Self {
        Self::Worker(format!(
            "cannot start a thread: {error}; the limit on processes is reached (`ulimit -u`)"
        ))
    }

    /// Whether somebody asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.kind() == ErrorKind::Interrupted
    }

    /// Returns a hint, if the message does not say what to do: for a full disk, or a cache that cannot be
    /// written. A file that cannot be read has no hint.
    pub fn hint(&self) -> Option<&'static str> {
        if self.is_without_links() {
            return Some(NO_LINKS);
        }
        if let Some(error) = find_cause::<io::Error>(self)
            && matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
        {
            return Some(
                "too many files are open at once; raise the limit with `ulimit -n 1024` or lower -j",
            );
        }
        let is_reading = |error: &IoError| READING.iter().any(|verb| error.attempt.starts_with(verb));
        if self.io_error().is_some_and(is_reading) {
            return None;
        }
        hint_for(find_cause::<io::Error>(self)?.kind())
    }

    fn is_without_links(&self) -> bool {
        match self {
            Self::NoLinks { .. } => true,
            Self::Within { source, .. } => source.is_without_links(),
            _ => false,
        }
    }

    /// Returns the operation on a file that the system refused, if that is the reason.
    fn io_error(&self) -> Option<&IoError> {
        match self {
            Self::Io(error) => Some(error),
            Self::Weights(error) => error.io_error(),
            Self::Within { source, .. } => source.io_error(),
            _ => None,
        }
    }
}

const NO_LINKS: &str = "keep the project, or a folder that `artifacts` links to, on a file system with symbolic links; \
     exFAT, FAT and many network disks have none";

/// The attempts of an [`IoError`] that change nothing.
const READING: [&str; 3] = ["read", "open", "list"];

/// Returns a hint for an I/O error of this kind in the cache or in `artifacts/`.
fn hint_for(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded => {
            Some("free some space and build again; nothing half-made was kept")
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => Some(
            "it must be a folder that may be written; `cache: {dir: …}` in pipeline.yaml chooses another",
        ),
        _ => None,
    }
}

impl From<weights::Error> for Error {
    fn from(error: weights::Error) -> Self {
        match error.kind() {
            ErrorKind::Interrupted => Self::Interrupted(Interrupted),
            _ => Self::Weights(error),
        }
    }
}

impl From<report::Error> for Error {
    fn from(error: report::Error) -> Self {
        match error {
            report::Error::Io(error) => Self::Io(error),
            other => Self::Source(other.to_string()),
        }
    }
}

/// Adds the place where an error occurred.
pub(crate) trait Context<T> {
    /// Wraps the error in [`Error::Within`].
    fn within(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn within(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Within { place: place(), source: Box::new(source.into()) })
    }
}

/// Unwraps a value that must be there.
pub(crate) trait OrBug<T> {
    /// Returns [`Error::Bug`] if there is no value. `rule` says what should be true.
    fn or_bug(self, rule: &str) -> Result<T>;
}

impl<T> OrBug<T> for Option<T> {
    fn or_bug(self, rule: &str) -> Result<T> {
        self.ok_or_else(|| Error::Bug(rule.to_owned()))
    }
}

/// Returns an error of this kind from the function. The message is formatted as by `format!`.
macro_rules! fail {
    ($kind:ident, $($message:tt)*) => {
        return Err($crate::Error::$kind(format!($($message)*)))
    };
}

/// Returns an error of this kind from the function unless the condition holds.
macro_rules! require {
    ($condition:expr, $kind:ident, $($message:tt)*) => {
        if !$condition {
            $crate::error::fail!($kind, $($message)*);
        }
    };
}

pub(crate) use {fail, require};

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(attempt: &'static str, kind: io::ErrorKind) -> Error {
        let error = IoError { attempt, path: "model/config.json".into(), source: kind.into() };
        Error::Weights(weights::Error::Io(error))
    }

    #[test]
    fn a_hint_is_about_what_cannot_be_written() {
        assert!(refused("write", io::ErrorKind::PermissionDenied).hint().unwrap().contains("cache"));
        assert!(refused("create", io::ErrorKind::StorageFull).hint().unwrap().contains("space"));
        assert_eq!(refused("read", io::ErrorKind::PermissionDenied).hint(), None);
    }
}
