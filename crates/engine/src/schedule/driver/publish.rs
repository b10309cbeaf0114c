//! Sends what jobs need, before they are submitted, on a thread of its own: an upload may take hours, and the jobs that run
//! must be looked at meanwhile.
//! Knows nothing of executors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use super::{Assignment, IDLE, Report};
use crate::Error;
use crate::request::{REQUEST_TYPE, REQUESTS};
use crate::schedule::Message;
use crate::share::{Share, Unsent};
use crate::store::LocalStore;
use artifact::Interrupted;

/// Sends what jobs of one worker need.
pub(in crate::schedule) struct Publisher<'a> {
    pub(in crate::schedule) share: &'a Share,
    pub(in crate::schedule) store: &'a LocalStore,
    pub(in crate::schedule) cancel: &'a AtomicBool,
    pub(in crate::schedule) leaving: &'a AtomicBool,
    pub(in crate::schedule) messages: Sender<Message>,
}

impl Publisher<'_> {
    /// Takes assignments until there are no more, or until the build leaves its workers. Those that are ready at once stay
    /// together.
    pub(in crate::schedule) fn run(&self, queue: &Receiver<Assignment>, ready: &Sender<Vec<Assignment>>) {
        loop {
            match queue.recv_timeout(IDLE) {
                Ok(first) => {
                    let all = [first].into_iter().chain(queue.try_iter());
                    let published: Vec<_> =
                        all.filter_map(|assignment| self.try_publish(assignment)).collect();
                    // The driver ends after this.
                    let _ = ready.send(published);
                }
                Err(RecvTimeoutError::Timeout) if self.leaving.load(Ordering::Relaxed) => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn try_publish(&self, assignment: Assignment) -> Option<Assignment> {
        let Err(problem) = self.publish(&assignment) else { return Some(assignment) };
        let error = Error::from(problem);
        let report = if error.is_interrupted() { Report::Interrupted } else { Report::Failed(error) };
        // The owner outlives this thread.
        let _ = self.messages.send(Message::Worker(assignment.id, report));
        None
    }

    /// Sends what a worker needs, and last the request.
    fn publish(&self, assignment: &Assignment) -> Result<(), Unsent> {
        let stop = || if self.cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) };
        stop()?;
        let tick = |done, total| {
            let _ = self.messages.send(Message::Worker(assignment.id, Report::Sends(done, total)));
            stop()
        };
        self.share.send_contents(self.store, &assignment.contents, &tick)?;
        let request = &assignment.request;
        self.share.put_text(REQUESTS, &request.key, REQUEST_TYPE, request.to_json())
    }
}
