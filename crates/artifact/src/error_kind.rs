//! The kinds of errors, for a caller that acts on them: it sets an exit code, tries again or reports a bug.
//! Knows nothing of the errors themselves.

/// Who can fix an error.
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
    /// This program has a bug.
    Bug,
}
