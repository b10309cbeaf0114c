//! Uploads what a build makes while the build goes on: each artifact as soon as its node has run.
//! Knows nothing of how files are transferred. A failed upload is reported, but never fails a build.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use super::records::records;
use super::{Message, Scheduler};
use crate::Error;
use crate::event::Event;
use crate::graph::NodeId;
use crate::measurements::{POLICY, Subject};
use crate::plan::{Planner, share_policy};
use crate::recipe::Recipe;
use crate::share::{self, Outgoing, Share, SharePolicy, Signing, Unsent};
use crate::stage::{Stage, Unit};
use crate::store::{Action, LocalStore};
use artifact::{Artifact, Digest, FileEntry, Interrupted, Tick, start};

/// A node that has run.
struct Upload {
    node: String,
    key: Digest,
    /// The artifact that this build made.
    artifact: Artifact,
    source: Option<PathBuf>,
}

/// A message from the upload thread to the owner.
pub(super) enum UploadEvent {
    Started(String),
    Progress(String, u64, u64),
    Sent {
        node: String,
        bytes: u64,
        already_there: u64,
    },
    Failed(Unsent),
    /// The thread has ended: all artifacts were uploaded, or an upload failed.
    Ended,
}

/// The owner's side of the upload thread.
#[derive(Default)]
pub(super) struct Uploads {
    queue: Option<Sender<Upload>>,
    /// Whether the thread still runs. It ends early if an upload fails.
    is_running: bool,
    /// Whether the build is over and only the uploads are waited for.
    is_last: bool,
    /// The nodes that are queued or on their way.
    nodes: HashSet<String>,
}

impl Uploads {
    /// Whether a node is queued or on its way.
    pub(super) fn has(&self, node: &str) -> bool {
        self.is_running && self.nodes.contains(node)
    }
}

/// Tells the owner that the thread has ended, even if it panics.
struct End(Sender<Message>);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.send(Message::Upload(UploadEvent::Ended));
    }
}

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Starts the upload thread, if there is a remote and the options allow uploads.
    pub(super) fn start_uploads<'s>(&mut self, scope: &'s Scope<'s, 'a>)
    where
        'p: 's,
    {
        let Some(share) = self.planner.share.filter(|_| self.options.upload) else { return };
        let (queue, receiver) = channel();
        let (store, cancel, messages) = (self.planner.store, self.options.cancel, self.sender.clone());
        let started = start(scope, move || {
            let end = End(messages);
            // The owner outlives this thread, and a lost message does no harm.
            let tell = |event| drop(end.0.send(Message::Upload(event)));
            send_all(share, store, cancel, &receiver, &tell);
        });
        match started {
            Ok(_) => self.uploads = Uploads { queue: Some(queue), is_running: true, ..Uploads::default() },
            Err(error) => {
                let message = format!("nothing is sent: cannot start a thread: {error}");
                self.observer.event(&Event::Notice { message });
            }
        }
    }

    /// Queues the artifact of a node for upload.
    pub(super) fn upload(&mut self, id: NodeId, key: Digest, artifact: Artifact) {
        let Planner { graph, sources, .. } = &self.planner;
        if let Some(queue) = &self.uploads.queue {
            let (node, source) = (graph.node(id).name.clone(), sources.path(graph, id));
            self.uploads.nodes.insert(node.clone());
            // If this fails, the thread has ended early: an upload failed, and the owner was told.
            let _ = queue.send(Upload { node, key, artifact, source });
        }
    }

    /// Waits for the remaining uploads, and shows their progress.
    pub(super) fn finish_uploads(&mut self, receiver: &Receiver<Message>) {
        if self.uploads.queue.take().is_none() {
            return;
        }
        self.uploads.is_last = true;
        while self.uploads.is_running {
            match receiver.recv() {
                Ok(Message::Upload(event)) => self.uploaded(event),
                // A message from a stage that was given up because the build failed.
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // Messages that came up while uploading, after the build had passed on the earlier ones.
        self.tell_notices();
    }

    /// Tells the observer about an upload. Starts and progress are told only when nothing else runs any more.
    pub(super) fn uploaded(&mut self, event: UploadEvent) {
        match event {
            UploadEvent::Started(node) if self.uploads.is_last => {
                self.observer.event(&Event::Sending { node: &node });
            }
            UploadEvent::Progress(node, done, total) if self.uploads.is_last => {
                self.observer.event(&Event::Progress { node: &node, unit: Unit::Bytes, done, total });
            }
            UploadEvent::Sent { node, bytes, already_there } => {
                self.uploads.nodes.remove(&node);
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

/// Uploads what is queued, until the build is over or an upload fails.
fn send_all(
    share: &Share,
    store: &LocalStore,
    cancel: &AtomicBool,
    queue: &Receiver<Upload>,
    tell: &(dyn Fn(UploadEvent) + Sync),
) {
    for Upload { node, key, artifact, source } in queue {
        // The user was told when the remote went down.
        if share.is_down() {
            continue;
        }
        tell(UploadEvent::Started(node.clone()));
        let tick = |done, total| {
            tell(UploadEvent::Progress(node.clone(), done, total));
            if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
        };
        let before = share.traffic();
        let signing = MaySign::This(&artifact);
        match send(share, store, &key, signing, source.as_deref(), &tick) {
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

/// What our own key may sign, besides what was made here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MaySign<'a> {
    /// Nothing.
    MadeHere,
    /// A record of this artifact, which the caller has just made.
    This(&'a Artifact),
    /// Whatever is recorded: the user vouches for it.
    Anything,
}

/// Uploads a recorded action under each of its keys. `may_sign` says what our own key may sign. `source` is the folder of the node's source, if it has one.
///
/// # Errors
/// Fails if the record is gone, or if [`Share::push`] fails.
pub(crate) fn send(
    share: &Share,
    store: &LocalStore,
    key: &Digest,
    may_sign: MaySign<'_>,
    source: Option<&Path>,
    tick: Tick<'_>,
) -> Result<(), Unsent> {
    let gone = || {
        let short = key.short();
        Error::Store(format!("the record of {short} is gone; `pipeline build` makes it again"))
    };
    let record = store.record(key).ok_or_else(gone)?;
    let recipe = Recipe::read(&record.action.recipe).ok_or_else(gone)?;
    let stage = recipe.stage();
    stage.check_volatile(&record.action.artifact).map_err(|problem| Error::Store(problem.to_string()))?;
    let policy = policy_of(store, key, stage);
    let is_allowed = match may_sign {
        MaySign::MadeHere => record.made_here,
        MaySign::This(artifact) => record.action.artifact == *artifact,
        MaySign::Anything => true,
    };
    let signing = if is_allowed { Signing::Allowed } else { Signing::Refused };
    let place = |file: &FileEntry| place_of(store, source.filter(|_| stage.is_reference()), file);
    let place = &place;
    let push = |(key, action): &(Digest, Action)| {
        share.push(store, &Outgoing { key, policy: &policy, action, signing, place }, tick)
    };
    let all = records(&recipe, record.action);
    let (own, others) = all.split_at(1);
    own.iter().try_for_each(push)?;
    for other in others {
        match push(other) {
            // Whoever measured it has sent that record too.
            Err(Unsent::NotOurs) => {}
            pushed => pushed?,
        }
    }
    send_measurements(share, store, &recipe, tick)
}

/// Returns what is shared of an action. A measurement of a worker is shared under the worker's class of machine.
fn policy_of(store: &LocalStore, key: &Digest, stage: &Stage) -> SharePolicy {
    let policy = share_policy(stage);
    let theirs = || share::stated_machine(&store.attestation(key)?);
    match policy {
        SharePolicy::Measured => theirs().map_or(policy, |machine| SharePolicy::MeasuredOn(machine.into())),
        _ => policy,
    }
}

/// Uploads what was measured here of the configurations of a benchmark.
fn send_measurements(
    share: &Share,
    store: &LocalStore,
    recipe: &Recipe,
    tick: Tick<'_>,
) -> Result<(), Unsent> {
    let place = |file: &FileEntry| store.object_path(&file.digest);
    let Some(own) = share.own_key() else { return Ok(()) };
    for subject in Subject::all(recipe).into_values() {
        let Some(record) = store.record(&subject.key()).filter(|record| record.made_here) else { continue };
        let (key, action) = (&subject.key_of(&own), &record.action);
        let signing = Signing::Allowed;
        share.push(store, &Outgoing { key, policy: &POLICY, action, signing, place: &place }, tick)?;
    }
    Ok(())
}

/// Returns where a file of an artifact lies: in the source that the artifact is, or in the store.
pub(crate) fn place_of(store: &LocalStore, source: Option<&Path>, file: &FileEntry) -> PathBuf {
    match source {
        Some(folder) if folder.is_dir() => folder.join(&file.path),
        Some(file) => file.to_owned(),
        None => store.object_path(&file.digest),
    }
}
