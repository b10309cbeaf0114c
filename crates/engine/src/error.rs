//! Why the engine could not do what it was asked.
//! Knows nothing of what a caller does about it, beyond a kind and a hint.

use std::io;

use crate::store::RemoteError;
use artifact::{ErrorKind, Interrupted, IoError, find_cause};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine could not do what it was asked. The message says what, where and why; what caused it is its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipeline file, a target or an option is wrong. The message shows the line of the pipeline file.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A model or an adapter could not be read, made or written.
    #[error(transparent)]
    Weights(weights::Error),
    /// A source, a suite or a report is not what it should be.
    #[error("{0}")]
    Source(String),
    /// The cache or `artifacts/` holds something that the engine did not put there.
    #[error("{0}")]
    Store(String),
    /// The shared cache could not be used.
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
    /// Something is not what `pipeline.lock` says, or the lock lacks it.
    #[error("{0}")]
    Locked(String),
    /// A gate of a benchmark did not hold.
    #[error("{0}")]
    Gate(String),
    /// Something that is needed is not built, and must not be built now.
    #[error("{0}")]
    NotBuilt(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted(#[from] Interrupted),
    /// An error, and where it came up.
    #[error("{place}")]
    Within {
        /// Where, as a message above that of the source.
        place: String,
        /// What went wrong there.
        source: Box<Self>,
    },
    /// This crate is wrong.
    #[error("BUG: {0}")]
    Bug(String),
}

impl Error {
    /// Returns what kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) => ErrorKind::Usage,
            Self::Weights(error) => error.kind(),
            Self::Source(_) | Self::Locked(_) | Self::Gate(_) | Self::NotBuilt(_) => ErrorKind::Input,
            Self::Io(_)
            | Self::Store(_)
            | Self::Remote(_)
            | Self::Hub(_)
            | Self::Key(_)
            | Self::Worker(_) => ErrorKind::System,
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Within { source, .. } => source.kind(),
            Self::Bug(_) => ErrorKind::Bug,
        }
    }

    /// Whether somebody asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.kind() == ErrorKind::Interrupted
    }

    /// Returns what to do about the error, where the message does not say it: about a disk that is full, or a cache that
    /// cannot be written.
    pub fn hint(&self) -> Option<&'static str> {
        hint_for(find_cause::<io::Error>(self)?.kind())
    }
}

/// Returns what to do about a failure of the disk that the cache or the artifacts lie on.
pub fn hint_for(kind: io::ErrorKind) -> Option<&'static str> {
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

/// Adds to an error where it came up.
pub(crate) trait Context<T> {
    /// Puts `place` above the error.
    fn within(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn within(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Within { place: place(), source: Box::new(source.into()) })
    }
}

/// Takes what must be there.
pub(crate) trait OrBug<T> {
    /// Fails as a bug that says what should have been true.
    fn or_bug(self, rule: &str) -> Result<T>;
}

impl<T> OrBug<T> for Option<T> {
    fn or_bug(self, rule: &str) -> Result<T> {
        self.ok_or_else(|| Error::Bug(rule.to_owned()))
    }
}

/// Returns an error of this kind, with a message as `format!` makes it.
macro_rules! fail {
    ($kind:ident, $($message:tt)*) => {
        return Err($crate::Error::$kind(format!($($message)*)))
    };
}

/// Returns an error of this kind unless the condition holds.
macro_rules! require {
    ($condition:expr, $kind:ident, $($message:tt)*) => {
        if !$condition {
            $crate::error::fail!($kind, $($message)*);
        }
    };
}

pub(crate) use {fail, require};
