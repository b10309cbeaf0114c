//! How long work reports how far it is, and learns that it is to stop.
//! Knows nothing of what is counted.

/// Reports how much of the work is done, of how much; answers whether to go on.
pub type Tick<'a> = &'a (dyn Fn(u64, u64) -> Result<(), Interrupted> + Sync);

/// Somebody asked to stop (Ctrl-C). Not a fault of what was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
