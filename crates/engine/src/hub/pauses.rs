//! Retries: which failures are retried, how often, and after which pause.
//! Knows nothing of what is asked.

use std::thread::sleep;
use std::time::Duration;

use crate::Error;
use crate::error::{Context, Result};
use artifact::Interrupted;

/// How often a request is retried before it fails.
const ATTEMPTS: u32 = 4;

/// The first pause. Each further pause is twice as long.
const FIRST: Duration = Duration::from_millis(250);

/// How often a pause checks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A failure. After a passing one another attempt may succeed; after a lasting one none will.
pub(super) enum Fault {
    Passing(Error),
    Lasting(Error),
}

impl Fault {
    /// Makes it a passing failure. For requests that the server had already begun to answer.
    pub(super) fn passing(self) -> Self {
        match self {
            Self::Passing(error) | Self::Lasting(error) => Self::Passing(error),
        }
    }
}

/// Called during a pause. An error stops the retries.
pub(super) type GoOn<'a> = &'a dyn Fn() -> Result<(), Interrupted>;

/// The pauses between attempts. When they are used up, the last failure is returned.
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
    /// Waits before the next attempt, or returns the failure if there is no further attempt.
    pub(super) fn wait(&mut self, fault: Fault, go_on: GoOn<'_>) -> Result<()> {
        let error = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Passing(error) => error,
        };
        if self.left == 0 {
            return Err(error).within(|| format!("tried {} times", ATTEMPTS + 1));
        }
        let mut rest = self.next;
        while !rest.is_zero() {
            go_on()?;
            let slice = rest.min(POLL_INTERVAL);
            sleep(slice);
            rest -= slice;
        }
        self.left -= 1;
        self.next *= 2;
        Ok(())
    }
}

/// Calls `attempt` until it succeeds, fails lastingly, or the retries are used up.
pub(super) fn persist<T>(go_on: GoOn<'_>, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T> {
    let mut pauses = Pauses::default();
    loop {
        match attempt() {
            Ok(answer) => return Ok(answer),
            Err(fault) => pauses.wait(fault, go_on)?,
        }
    }
}
