//! Runs many transfers at once, as many as memory allows.
//! Knows nothing of what is transferred.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use artifact::start_helpers;

/// How many transfers run at once: enough to hide the time until the remote answers.
const WORKERS: usize = 16;

/// The limit on the memory that running transfers may use, in bytes.
const MEMORY: u64 = 256 << 20;

/// Does `work` for each of `jobs`, several at once. `bytes` says how much memory a job needs; the sum over
/// the running jobs stays within [`MEMORY`]. Stops at the first error and returns it.
pub(super) fn each<J: Sync, E: Send>(
    jobs: &[J],
    bytes: impl Fn(&J) -> u64 + Sync,
    work: impl Fn(&J) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (budget, freed) = (Mutex::new(MEMORY), Condvar::new());
    let run = || {
        while !stop.load(Ordering::Relaxed)
            && let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            // A job that needs more than the whole budget takes the whole budget and runs alone.
            let needed = bytes(job).min(MEMORY);
            let free = budget.lock().unwrap_or_else(PoisonError::into_inner);
            let free = freed.wait_while(free, |free| *free < needed);
            *free.unwrap_or_else(PoisonError::into_inner) -= needed;
            let done = work(job);
            *budget.lock().unwrap_or_else(PoisonError::into_inner) += needed;
            freed.notify_all();
            if done.is_err() {
                stop.store(true, Ordering::Relaxed);
                return done;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others = start_helpers(scope, WORKERS.min(jobs.len()).saturating_sub(1), run);
        let own = run();
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        others.fold(own, Result::and)
    })
}
