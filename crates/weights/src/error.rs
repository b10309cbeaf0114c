//! The error type of this crate: why weights could not be read, made or written.
//! Knows nothing of what a caller does about an error; it only says which kind it is.

use artifact::{ErrorKind, Interrupted, IoError};

/// The result type of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why weights could not be read, made or written. The message names the file or the tensor, and says what is
/// wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A file is not in its format, such as a truncated safetensors file or invalid JSON.
    #[error("{0}")]
    Format(String),
    /// The files of a model folder contradict each other, or one is missing.
    #[error("{0}")]
    Checkpoint(String),
    /// The files of an adapter folder contradict each other, or the adapter does not fit the model.
    #[error("{0}")]
    Adapter(String),
    /// The model or the adapter is valid, but this version does not support it.
    #[error("{0}")]
    Unsupported(String),
    /// The options do not fit the model, such as a group size that divides no row.
    #[error("{0}")]
    Options(String),
    /// A weight is infinite, NaN, or has a magnitude of 2^127 or more.
    #[error("`{tensor}` is {value:e} in row {row}, column {column}{hint}")]
    OutOfRange {
        /// The tensor's name.
        tensor: String,
        /// The row in the tensor, counted from 0 over all dimensions but the last.
        row: usize,
        /// The column, counted from 0.
        column: usize,
        /// The value there.
        value: f32,
        /// Extra information that is shown after the message.
        hint: &'static str,
    },
    /// The backend failed.
    #[error("{0}")]
    Backend(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted(#[from] Interrupted),
    /// An error, with the place where it occurred.
    #[error("{place}")]
    Within {
        /// The place, shown above the message of the source.
        place: String,
        /// The error that occurred there.
        source: Box<Self>,
    },
    /// A bug in this crate.
    #[error("BUG: {0}")]
    Bug(String),
}

impl Error {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) | Self::Backend(_) => ErrorKind::System,
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Within { source, .. } => source.kind(),
            Self::Bug(_) => ErrorKind::Bug,
            _ => ErrorKind::Input,
        }
    }

    /// Returns the operation on a file that the system refused, if that is the reason.
    pub fn io_error(&self) -> Option<&IoError> {
        match self {
            Self::Io(error) => Some(error),
            Self::Within { source, .. } => source.io_error(),
            _ => None,
        }
    }
}

/// A JSON error is a format error, whatever the JSON is for.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Format(error.to_string())
    }
}

/// Adds to an error the place where it occurred.
pub(crate) trait Context<T> {
    /// Wraps the error in [`Error::Within`], with `place` as its place.
    fn within(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn within(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Within { place: place(), source: Box::new(source.into()) })
    }
}

/// Unwraps a value that must be there.
pub(crate) trait OrBug<T> {
    /// Returns the value. If there is none, returns [`Error::Bug`] with the rule that should have been true.
    fn or_bug(self, rule: &str) -> Result<T>;
}

impl<T> OrBug<T> for Option<T> {
    fn or_bug(self, rule: &str) -> Result<T> {
        self.ok_or_else(|| Error::Bug(rule.to_owned()))
    }
}

/// Returns from the function with an error of this kind. The message is formatted as by `format!`.
macro_rules! fail {
    ($kind:ident, $($message:tt)*) => {
        return Err($crate::Error::$kind(format!($($message)*)))
    };
}

/// Returns from the function with an error of this kind unless the condition holds.
macro_rules! require {
    ($condition:expr, $kind:ident, $($message:tt)*) => {
        if !$condition {
            $crate::error::fail!($kind, $($message)*);
        }
    };
}

pub(crate) use {fail, require};
