//! How long-running work reports its progress and learns that it must stop.
//! Knows nothing of what is counted.

/// A callback that reports progress as `(done, total)`. If it returns an error, the work must stop.
pub type Tick<'a> = &'a (dyn Fn(u64, u64) -> Result<(), Interrupted> + Sync);

/// Somebody asked to stop, for example with Ctrl-C. The work itself did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
