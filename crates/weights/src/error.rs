//! Why weights could not be read, made or written.
//! Knows nothing of what a caller does about it, beyond a kind.

use artifact::{ErrorKind, Interrupted, IoError};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why weights could not be read, made or written. The message says which file or tensor, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A file is not in its format, such as a safetensors file that is cut short or JSON that is none.
    #[error("{0}")]
    Format(String),
    /// A model folder whose files contradict each other, or that lacks one.
    #[error("{0}")]
    Checkpoint(String),
    /// An adapter folder whose files contradict each other, or that does not fit the model.
    #[error("{0}")]
    Adapter(String),
    /// A model or an adapter that is in order, but that this version cannot use.
    #[error("{0}")]
    Unsupported(String),
    /// Options that do not fit the model, such as a group size that divides no row.
    #[error("{0}")]
    Options(String),
    /// A weight that cannot be computed with: infinite, not a number, or 2^127 and more.
    #[error("`{tensor}` is {value:e} in row {row}, column {column}{hint}")]
    OutOfRange {
        /// The tensor's name.
        tensor: String,
        /// The row in the tensor, all dimensions but the last counted together.
        row: usize,
        /// The column.
        column: usize,
        /// The value there.
        value: f32,
        /// What to know about it, to be shown behind the message.
        hint: &'static str,
    },
    /// The backend that computes failed.
    #[error("{0}")]
    Backend(String),
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
            Self::Io(_) | Self::Backend(_) => ErrorKind::System,
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Within { source, .. } => source.kind(),
            Self::Bug(_) => ErrorKind::Bug,
            _ => ErrorKind::Input,
        }
    }
}

/// JSON that cannot be read is no longer JSON, whatever it was meant to be.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Format(error.to_string())
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
