//! What kind of thing went wrong, for a caller that acts on it: an exit code, another try, a bug report.
//! Knows nothing of the errors themselves.

/// Whose turn it is to mend an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What the user wrote is wrong: the pipeline file, a name, an option.
    Usage,
    /// A model, an adapter or another input is damaged, contradicts itself, or is not supported.
    Input,
    /// The system, the disk, the network or another program refused.
    System,
    /// Somebody asked to stop.
    Interrupted,
    /// This program is wrong.
    Bug,
}
