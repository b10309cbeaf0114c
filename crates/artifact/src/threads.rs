//! Threads that help with a piece of work, as many as the system gives.
//! Knows nothing of the work.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts up to `count` threads that all run `work`, which shares the work out among those who call it. If the
/// system gives no more threads, there are fewer, and the caller's own thread does the rest.
pub fn start_helpers<'scope, 'env, F, T>(
    scope: &'scope Scope<'scope, 'env>,
    count: usize,
    work: F,
) -> Vec<ScopedJoinHandle<'scope, T>>
where
    F: Fn() -> T + Copy + Send + 'scope,
    T: Send + 'scope,
{
    (0..count).map_while(|_| start(scope, work).ok()).collect()
}

/// Starts one thread.
///
/// # Errors
/// Fails when the system gives no more threads, where `Scope::spawn` panics.
pub fn start<'scope, 'env, F, T>(
    scope: &'scope Scope<'scope, 'env>,
    work: F,
) -> io::Result<ScopedJoinHandle<'scope, T>>
where
    F: FnOnce() -> T + Send + 'scope,
    T: Send + 'scope,
{
    Builder::new().spawn_scoped(scope, work)
}
