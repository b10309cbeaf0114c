//! Threads that share the tasks of one operation.
//! Knows nothing of the tasks, and nothing that a task computes depends on which thread runs it.
//!
//! Models run thousands of operations a second, each some ten microseconds long. So a thread that has nothing to do
//! looks for work for a while before it sleeps, and the caller takes part.
#![expect(
    unsafe_code,
    reason = "the closure of a job is borrowed, and `run` returns only when no thread uses it"
)]

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Builder, JoinHandle};

/// How often a thread looks for work before it lets others run, and then before it sleeps.
const SPINS: usize = 4000;
const YIELDS: usize = 200;

/// The number of a job stands above these bits of [`Shared::state`].
const GENERATION: usize = 1 << 17;
/// Whether threads may still join the job.
const OPEN: usize = 1 << 16;
/// The number of threads that have joined the job and not left it.
const ACTIVE: usize = OPEN - 1;

/// The threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    generation: Cell<usize>,
}

struct Shared {
    state: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// The next task that nobody has taken.
    next: AtomicUsize,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    has_ended: AtomicBool,
    has_panicked: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: `job` is written only while no thread is active and the state is closed, and read only by threads that
// are active.
unsafe impl Sync for Shared {}
// SAFETY: the closure that a job points to is `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts the threads, one fewer than `threads`: the caller is one itself. If the system gives no more, there are
    /// fewer.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            has_ended: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            Builder::new().spawn(move || shared.work()).ok()
        };
        let workers = (1..threads.min(ACTIVE)).map_while(start).collect();
        Self { shared, workers, generation: Cell::new(0) }
    }

    /// Returns the number of threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work` with every number below `count`, each once, and returns when all are done.
    pub(crate) fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if count <= 1 || self.workers.is_empty() {
            return (0..count).for_each(work);
        }
        let shared = &*self.shared;
        // SAFETY: the lifetime is cut off; this function does not return while a thread may use the closure.
        let work = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(work)
        };
        let job = Job { work, count };
        // SAFETY: the last job is closed and nobody is active, since the last call waited for that.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        self.generation.set(self.generation.get().wrapping_add(GENERATION));
        shared.state.store(self.generation.get() | OPEN, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _lock = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(job)));
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut waited = 0;
        while shared.state.load(Ordering::Acquire) & ACTIVE != 0 {
            pause(&mut waited);
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.has_panicked.load(Ordering::Relaxed), "BUG: a task panicked");
    }
}

impl Shared {
    /// The loop of a thread: waits for a job, joins it, takes tasks.
    fn work(&self) {
        let mut done = 0;
        let mut waited = 0;
        while !self.has_ended.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            let generation = state & !(OPEN | ACTIVE);
            if state & OPEN == 0 || generation == done {
                if waited < SPINS + YIELDS {
                    pause(&mut waited);
                } else {
                    self.sleep(done);
                    waited = 0;
                }
                continue;
            }
            if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                (done, waited) = (generation, 0);
                // SAFETY: this thread is active, so the job stays.
                if let Some(job) = unsafe { *self.job.get() }
                    && catch_unwind(AssertUnwindSafe(|| self.take_tasks(job))).is_err()
                {
                    self.has_panicked.store(true, Ordering::Relaxed);
                }
                self.state.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    fn take_tasks(&self, job: Job) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= job.count {
                return;
            }
            // SAFETY: `run` waits for the threads that have joined before it gives the closure back.
            unsafe { (*job.work)(task) };
        }
    }

    /// Sleeps until there is a job other than `done`.
    fn sleep(&self, done: usize) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            let is_new = state & OPEN != 0 && state & !(OPEN | ACTIVE) != done;
            if is_new || self.has_ended.load(Ordering::SeqCst) {
                break;
            }
            lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits a moment: first without, then with letting other threads run.
fn pause(waited: &mut usize) {
    *waited += 1;
    if *waited < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        {
            let _lock = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// A slice that several tasks write to, each at places of its own.
pub(crate) struct Shares<'a> {
    start: *mut f32,
    length: usize,
    slice: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever writes promises that no other task uses the same place.
unsafe impl Sync for Shares<'_> {}

impl<'a> Shares<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: std::marker::PhantomData }
    }

    /// Returns the part from `start` on.
    ///
    /// # Safety
    /// No other task may use this part at the same time.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that the parts do not overlap")]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [f32] {
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length), "BUG: a part is inside");
        // SAFETY: the part is inside, and the caller promises that it is used once.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

impl Pool {
    /// Cuts `values` into parts of `length` numbers and runs `work` with each part and its number.
    pub(crate) fn for_parts(
        &self,
        values: &mut [f32],
        length: usize,
        work: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        let count = values.len().div_ceil(length.max(1));
        let total = values.len();
        let shares = Shares::new(values);
        self.run(count, &|part| {
            let start = part * length;
            // SAFETY: parts do not overlap, and each is run once.
            work(part, unsafe { shares.part(start, length.min(total - start)) });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once() {
        for threads in [1, 2, 8] {
            let pool = Pool::new(threads);
            for round in 0..2000_usize {
                let mut values = vec![0.0; round % 97];
                pool.for_parts(&mut values, 3, &|part, values| {
                    values.iter_mut().for_each(|value| *value += part as f32 + 1.0);
                });
                let expected = (0..values.len()).map(|index| (index / 3) as f32 + 1.0);
                assert!(values.iter().copied().eq(expected));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let pool = Pool::new(4);
        let run = || pool.run(100, &|task| assert!(task != 50));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
