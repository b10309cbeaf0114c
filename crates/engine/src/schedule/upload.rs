//! Sending what a build makes, beside the build: each artifact as soon as its node has run.
//! Knows nothing of how it is sent. What cannot be sent is a warning, and never fails a build.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use super::records::records;
use super::{Message, Scheduler};
use crate::Error;
use crate::event::Event;
use crate::plan::share_policy;
use crate::recipe::Recipe;
use crate::share::{Share, Unsent};
use crate::stage::Unit;
use crate::store::LocalStore;
use artifact::{Digest, Interrupted, Tick};

/// A node that has run.
struct Upload {
    node: String,
    key: Digest,
}

/// What the sending thread tells the owner.
pub(super) enum UploadEvent {
    Started(String),
    Progress(String, u64, u64),
    Sent {
        node: String,
        bytes: u64,
        already_there: u64,
    },
    Failed(Unsent),
    /// All that was handed over was sent, or nothing more can be.
    Ended,
}

/// The owner's end of the sending thread.
#[derive(Default)]
pub(super) struct Uploads {
    queue: Option<Sender<Upload>>,
    /// Whether the thread has not ended: it ends early if the remote fails.
    is_running: bool,
    /// Whether the build is over, and only this thread is waited for.
    is_last: bool,
}

/// Tells the owner that the thread has ended, however that came about.
struct End(Sender<Message>);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.send(Message::Upload(UploadEvent::Ended));
    }
}

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Starts the thread that sends, if there is a remote and it may be written.
    pub(super) fn start_uploads<'s>(&mut self, scope: &'s Scope<'s, 'a>)
    where
        'p: 's,
    {
        let Some(share) = self.planner.share.filter(|_| self.options.upload) else { return };
        let (queue, receiver) = channel();
        let (store, cancel, messages) = (self.planner.store, self.options.cancel, self.sender.clone());
        scope.spawn(move || {
            let end = End(messages);
            // The owner outlives this thread, and a lost message would harm nobody.
            let tell = |event| drop(end.0.send(Message::Upload(event)));
            send_all(share, store, cancel, &receiver, &tell);
        });
        self.uploads = Uploads { queue: Some(queue), is_running: true, is_last: false };
    }

    /// Has the artifact of a node sent.
    pub(super) fn upload(&self, node: &str, key: Digest) {
        if let Some(queue) = &self.uploads.queue {
            // The thread ends early only if the remote fails; what is not sent then was said.
            let _ = queue.send(Upload { node: node.to_owned(), key });
        }
    }

    /// Waits until all is sent, and shows it.
    pub(super) fn finish_uploads(&mut self, receiver: &Receiver<Message>) {
        if self.uploads.queue.take().is_none() {
            return;
        }
        self.uploads.is_last = true;
        while self.uploads.is_running {
            match receiver.recv() {
                Ok(Message::Upload(event)) => self.uploaded(event),
                // A stage that an error of the build has given up.
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // What was found out while sending, after the build had passed on what it knew.
        self.tell_notices();
    }

    /// Tells the observer what was sent. How far a transfer has come is told only when nothing else runs any more.
    pub(super) fn uploaded(&mut self, event: UploadEvent) {
        match event {
            UploadEvent::Started(node) if self.uploads.is_last => {
                self.observer.event(&Event::Sending { node: &node });
            }
            UploadEvent::Progress(node, done, total) if self.uploads.is_last => {
                self.observer.event(&Event::Progress { node: &node, unit: Unit::Bytes, done, total });
            }
            UploadEvent::Sent { node, bytes, already_there } => {
                self.observer.event(&Event::Sent { node: &node, bytes, already_there });
            }
            UploadEvent::Failed(Unsent::Interrupted(_) | Unsent::AlreadyReported) => {}
            UploadEvent::Failed(problem) => {
                let message = format!("{problem}; what was built stays here, `pipeline push` sends it later");
                self.observer.event(&Event::Notice { message });
            }
            UploadEvent::Ended => self.uploads.is_running = false,
            UploadEvent::Started(_) | UploadEvent::Progress(..) => {}
        }
    }
}

/// Sends what comes, until the build is over or the remote has failed once.
fn send_all(
    share: &Share,
    store: &LocalStore,
    cancel: &AtomicBool,
    queue: &Receiver<Upload>,
    tell: &(dyn Fn(UploadEvent) + Sync),
) {
    for Upload { node, key } in queue {
        // That it does not answer was said when it was found out.
        if share.is_down() {
            continue;
        }
        tell(UploadEvent::Started(node.clone()));
        let tick = |done, total| {
            tell(UploadEvent::Progress(node.clone(), done, total));
            if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
        };
        let before = share.traffic();
        match send(share, store, &key, &tick) {
            Ok(()) => {
                let now = share.traffic();
                let (bytes, already_there) =
                    (now.sent - before.sent, now.already_there - before.already_there);
                tell(UploadEvent::Sent { node, bytes, already_there });
            }
            Err(problem) => return tell(UploadEvent::Failed(problem)),
        }
    }
}

/// Sends a recorded action under each of its keys.
pub(crate) fn send(share: &Share, store: &LocalStore, key: &Digest, tick: Tick<'_>) -> Result<(), Unsent> {
    let gone = || {
        let short = key.short();
        Error::Store(format!("the record of {short} is gone; `pipeline build` makes it again"))
    };
    let action = store.action(key).ok_or_else(gone)?;
    let recipe = Recipe::read(&action.recipe).ok_or_else(gone)?;
    let policy = share_policy(recipe.stage());
    records(&recipe, action).iter().try_for_each(|(key, action)| share.push(store, key, policy, action, tick))
}
