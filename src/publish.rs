//! Sending what a build makes, beside the build: each artifact as soon as its node has run.
//! Knows nothing of how it is sent; what cannot be sent is a warning, and never fails a build.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};

use artifact::{Digest, Interrupted};
use engine::plan::travels;
use engine::recipe::Recipe;
use engine::schedule::{Event, Progress};
use engine::share::{Share, Unsent};
use engine::stage::Unit;
use engine::store::{Action, LocalStore};

/// A node that has run.
pub(crate) struct Built {
    pub(crate) node: String,
    pub(crate) key: Digest,
}

/// What the sending thread says.
enum Message {
    Began(String),
    Moved(String, u64, u64),
    Sent(String, u64, u64),
    Unsent(Unsent),
}

/// Shows a build, and has what it makes sent.
pub(crate) struct Publisher<'p> {
    progress: &'p mut dyn Progress,
    share: &'p Share,
    built: Option<Sender<Built>>,
    messages: Receiver<Message>,
}

impl<'p> Publisher<'p> {
    /// Starts the thread that sends.
    pub(crate) fn start<'s, 'e: 'p>(
        scope: &'s Scope<'s, 'e>,
        share: &'e Share,
        store: &'e LocalStore,
        cancel: &'e AtomicBool,
        progress: &'p mut dyn Progress,
    ) -> Self {
        let ((built, queue), (sender, messages)) = (channel(), channel());
        scope.spawn(move || send_all(share, store, cancel, &queue, &sender));
        Self { progress, share, built: Some(built), messages }
    }

    /// Waits until all is sent, and shows it.
    pub(crate) fn finish(mut self) {
        drop(self.built.take());
        while let Ok(message) = self.messages.recv() {
            show(self.progress, message);
        }
        // What was found out while sending, after the build had passed on what it knew.
        for message in self.share.notices() {
            self.progress.event(&Event::Notice { message });
        }
    }
}

impl Progress for Publisher<'_> {
    fn event(&mut self, event: &Event<'_>) {
        self.progress.event(event);
        if let (Event::Recorded { node, key }, Some(built)) = (event, &self.built) {
            // The thread ends early only if it panicked, which its scope passes on.
            let _ = built.send(Built { node: (*node).to_owned(), key: *key });
        }
        // What was sent meanwhile is said between two events; how far the rest has come is shown at the end.
        while let Ok(message) = self.messages.try_recv() {
            if matches!(message, Message::Sent(..) | Message::Unsent(_)) {
                show(self.progress, message);
            }
        }
    }
}

fn show(progress: &mut dyn Progress, message: Message) {
    match message {
        Message::Began(node) => progress.event(&Event::Sending { node: &node }),
        Message::Moved(node, done, total) => {
            progress.event(&Event::Progress { node: &node, unit: Unit::Bytes, done, total });
        }
        Message::Sent(node, bytes, already_there) => {
            progress.event(&Event::Sent { node: &node, bytes, already_there });
        }
        Message::Unsent(Unsent::Interrupted(_) | Unsent::Told) => {}
        Message::Unsent(problem) => {
            let message = format!("{problem}; what was built stays here, `pipeline push` sends it later");
            progress.event(&Event::Notice { message });
        }
    }
}

/// Sends what comes, until the build is over or the remote has failed once.
fn send_all(
    share: &Share,
    store: &LocalStore,
    cancel: &AtomicBool,
    queue: &Receiver<Built>,
    messages: &Sender<Message>,
) {
    for Built { node, key } in queue {
        // That it does not answer was said when it was found out.
        if share.is_down() {
            continue;
        }
        // The listener outlives this thread, and a lost message would harm nobody.
        let say = |message| drop(messages.send(message));
        say(Message::Began(node.clone()));
        let tick = |done, total| {
            say(Message::Moved(node.clone(), done, total));
            if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
        };
        let before = share.traffic();
        match send(share, store, &key, &tick) {
            Ok(()) => {
                let now = share.traffic();
                say(Message::Sent(node, now.sent - before.sent, now.already_there - before.already_there));
            }
            Err(problem) => return say(Message::Unsent(problem)),
        }
    }
}

/// Sends one recorded action; a measurement also as the answer to any question that may be asked of it.
pub(crate) fn send(
    share: &Share,
    store: &LocalStore,
    key: &Digest,
    tick: engine::share::Tick<'_>,
) -> Result<(), Unsent> {
    let missing =
        || anyhow::anyhow!("the record of {} is gone; `pipeline build` makes it again", key.short());
    let action = store.action(key).ok_or_else(missing)?;
    let recipe: Recipe = serde_json::from_value(action.recipe.clone()).map_err(anyhow::Error::from)?;
    let kind = travels(recipe.stage());
    share.push(store, key, kind, &action, tick)?;
    match recipe.measurement().map(|measurement| measurement.key()).filter(|own| own != key) {
        Some(measurement) => {
            let action = Action { failure: None, ..action };
            share.push(store, &measurement, kind, &action, tick)
        }
        None => Ok(()),
    }
}

/// Runs `work` with a progress that has what is built sent to `share`, if there is one that we may write to.
pub(crate) fn publishing<T>(
    share: Option<&Share>,
    store: &LocalStore,
    cancel: &AtomicBool,
    progress: &mut dyn Progress,
    work: impl FnOnce(&mut dyn Progress) -> T,
) -> T {
    let Some(share) = share else { return work(progress) };
    thread::scope(|scope| {
        let mut publisher = Publisher::start(scope, share, store, cancel, progress);
        let done = work(&mut publisher);
        publisher.finish();
        done
    })
}
