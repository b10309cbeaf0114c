//! Asking again: which failures pass, how often and after how long.
//! Knows nothing of what is asked.

use std::thread::sleep;
use std::time::Duration;

use artifact::Interrupted;

/// How often something is asked again before it counts as failed.
const ATTEMPTS: u32 = 4;

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(250);

/// How often a pause looks whether it was asked to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// A failure, by whether another attempt may succeed.
pub(super) enum Fault {
    Passing(anyhow::Error),
    Lasting(anyhow::Error),
}

impl Fault {
    /// Counts it as one that passes, because the same was answered before.
    pub(super) fn passing(self) -> Self {
        match self {
            Self::Passing(error) | Self::Lasting(error) => Self::Passing(error),
        }
    }
}

/// Whether to go on.
pub(super) type GoOn<'a> = &'a dyn Fn() -> Result<(), Interrupted>;

/// The pauses between attempts; when they are used up, the last failure stands.
pub(super) struct Pauses {
    left: u32,
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { left: ATTEMPTS, next: FIRST }
    }
}

impl Pauses {
    /// Waits before the next attempt, or returns the fault if there is to be none.
    pub(super) fn wait(&mut self, fault: Fault, go_on: GoOn<'_>) -> anyhow::Result<()> {
        let error = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Passing(error) => error,
        };
        if self.left == 0 {
            return Err(error.context(format!("tried {} times", ATTEMPTS + 1)));
        }
        let mut rest = self.next;
        while !rest.is_zero() {
            go_on()?;
            let slice = rest.min(PATIENCE);
            sleep(slice);
            rest -= slice;
        }
        self.left -= 1;
        self.next *= 2;
        Ok(())
    }
}

/// Asks until there is an answer, or a failure that does not pass.
pub(super) fn persist<T>(
    go_on: GoOn<'_>,
    mut attempt: impl FnMut() -> Result<T, Fault>,
) -> anyhow::Result<T> {
    let mut pauses = Pauses::default();
    loop {
        match attempt() {
            Ok(answer) => return Ok(answer),
            Err(fault) => pauses.wait(fault, go_on)?,
        }
    }
}
