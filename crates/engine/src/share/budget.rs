//! Doing many transfers at once, as many as memory allows.
//! Knows nothing of what is transferred.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// How many transfers there are at once: enough to hide the time that an answer takes.
const WORKERS: usize = 16;

/// How many bytes of chunks are in memory at once.
const MEMORY: u64 = 256 << 20;

/// Does `work` for each of `jobs`, several at once, such that the sum of their `bytes` stays within bounds. Stops at the
/// first error, and returns it.
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
            // A job that is larger than all there is takes all there is.
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
        let others: Vec<_> = (1..WORKERS.min(jobs.len())).map(|_| scope.spawn(run)).collect();
        let own = run();
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        others.fold(own, Result::and)
    })
}
