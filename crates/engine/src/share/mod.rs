//! The team's cache: signed records of actions, and the files they name, shared through a remote.
//! Knows nothing of nodes and recipes. A remote that is down, slow, damaged or hostile is a miss, never a
//! failure.
//!
//! ```text
//! requests/KEY.json   what a worker is asked to make, signed; outcomes/KEY.json what it answers
//! actions/KEY.json    the signed record of an action; written last, replaces an older one
//! files/ab/cdef…      the chunk list of the file whose blake3 begins with ab, if it has several chunks
//! chunks/ab/cdef…     the chunk whose blake3 begins with ab, plain or as a zstd frame
//! ```
//!
//! Everything except the records is named after content, and the content is hashed again when it arrives. So
//! the storage need not promise anything: two writers of one name write the same content, and of two records
//! of one key either is good.

mod budget;
mod collect;
mod compare;
mod local_records;
mod packing;
mod partial_file;
mod pull;
mod push;
mod signed_text;
mod sources;
mod statement;

pub use collect::{RemoteGcPlan, Retention};
pub use local_records::{Believed, LocalRecords};
pub use pull::Miss;
pub use push::{Outgoing, Signing, Unsent};
pub use signed_text::Unread;
pub use statement::{Age, NotUsed, open, seal, stated_machine, vouched};

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use crate::machine;
use crate::sign::{PublicKey, Signer};
use crate::store::{Action, LONGEST_CHUNK, LocalStore, RecordOrigin, Remote, RemoteError};
use artifact::{Digest, IoError};

/// The longest record that is read, in bytes. The record of a model in ten thousand files is shorter.
const LONGEST_RECORD: u64 = 16 << 20;

/// The longest chunk list that is read, in bytes.
const LONGEST_LIST: u64 = 64 << 20;

/// Which parts of an action are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharePolicy {
    /// The record and the files.
    Made,
    /// The record alone. The files stay at their source.
    Source,
    /// The record and the files, but only between machines of one class, because they contain times.
    Measured,
    /// The same, measured by a worker on a machine of this class.
    MeasuredOn(Arc<str>),
}

/// What is needed to use a remote.
pub struct Settings {
    /// The keys whose signatures are trusted, besides our own.
    pub trusted: Vec<PublicKey>,
    /// The signer with our own key, if we have one.
    pub own: Option<&'static Signer>,
    /// For the key of an action, the reproducible digest of its artifact in `pipeline.lock`.
    pub locked: HashMap<Digest, Digest>,
    /// When `pipeline.lock` was written.
    pub lock_written: Option<SystemTime>,
    /// Whether chunks are compressed if that makes them shorter by at least a twentieth.
    pub compress: bool,
}

/// The team's cache. The storage is opened on first use, because most builds do not need it.
pub struct Share {
    url: String,
    remote: OnceLock<Result<Remote, RemoteError>>,
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Digest, Option<Known>>,
    notices: Vec<String>,
    /// The reasons already reported for records that were not used. Each reason is reported once.
    passed_over: HashSet<String>,
    is_down: bool,
    /// Whether the user was told that the remote fails. Once per build is enough.
    is_told: bool,
    /// Whether damage was found in the remote. Then existence checks are skipped and everything is uploaded
    /// again.
    is_damaged: bool,
    traffic: Traffic,
}

/// A record from the remote that was checked and is trusted.
#[derive(Clone, Debug)]
struct Known {
    action: Action,
    envelope: Vec<u8>,
}

/// How much was transferred, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Uploaded, as sent over the network, which may be compressed.
    pub sent: u64,
    /// Not uploaded, because the remote had it already.
    pub already_there: u64,
    /// Downloaded, as received over the network, which may be compressed.
    pub fetched: u64,
    /// Not downloaded, because another local file had it already.
    pub already_here: u64,
}

impl Share {
    /// Sets the address of the storage. Nothing is opened or requested yet.
    pub fn new(url: &str, settings: Settings) -> Self {
        Self { url: url.to_owned(), remote: OnceLock::new(), settings, state: Mutex::default() }
    }

    /// Returns the address of the storage.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the storage, and opens it on the first call.
    ///
    /// # Errors
    ///
    /// Fails if the storage cannot be opened; later calls return the same error.
    pub fn remote(&self) -> Result<&Remote, RemoteError> {
        self.remote.get_or_init(|| Remote::open(&self.url)).as_ref().map_err(Clone::clone)
    }

    /// Returns the record of the action of `key`, if the remote has one that is trusted. Each key is
    /// requested once; the answer is remembered.
    pub fn record(&self, key: &Digest, kind: &SharePolicy) -> Option<Action> {
        let known = |state: &State| state.records.get(key).cloned();
        if let Some(known) = known(&self.state()) {
            return known.map(|known| known.action);
        }
        let found = if self.state().is_down { None } else { self.ask(key, kind) };
        self.state().records.insert(*key, found.clone());
        found.map(|known| known.action)
    }

    /// Requests many records at once, so that a plan that needs one after the other does not wait for each.
    pub fn prefetch(&self, wanted: &[(Digest, SharePolicy)]) {
        let asked = budget::each(
            wanted,
            |_| 0,
            |(key, kind)| {
                self.record(key, kind);
                if self.is_down() { Err(()) } else { Ok(()) }
            },
        );
        // The only error is that the remote is down, and that is already noted.
        asked.unwrap_or(());
    }

    /// Writes the record of `key` and its signed statement to the local cache, if a record is known. Call
    /// this last, when the files it names are in place or not wanted.
    ///
    /// # Errors
    ///
    /// Fails if the local cache cannot be written.
    pub fn keep(&self, key: &Digest, store: &LocalStore) -> Result<(), IoError> {
        let known = self.state().records.get(key).cloned().flatten();
        let Some(Known { action, envelope }) = known else { return Ok(()) };
        store.put_attestation(key, &envelope)?;
        store.put_record(key, &action, RecordOrigin::Elsewhere)
    }

    /// Forgets the record of `key`, because the files it names cannot be fetched.
    pub fn forget(&self, key: &Digest) {
        self.state().records.insert(*key, None);
    }

    fn ask(&self, key: &Digest, kind: &SharePolicy) -> Option<Known> {
        let asked = self.remote().and_then(|remote| remote.ask(&record_name(key, kind), LONGEST_RECORD));
        let json = match asked {
            Ok(found) => found?,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        match self.believe(key, kind, &json) {
            Ok(action) => Some(Known { action, envelope: json }),
            Err(problem) => {
                self.pass_over(key, &problem);
                None
            }
        }
    }

    /// Checks that a trusted key signed a record, that it is the record of `key`, and that it agrees with
    /// `pipeline.lock`.
    fn believe(&self, key: &Digest, kind: &SharePolicy, json: &[u8]) -> Result<Action, NotUsed> {
        let (claim, _) = vouched(json, &self.believed(), key, kind)?;
        let made = claim.action.artifact.reproducible_digest();
        match self.settings.locked.get(key) {
            Some(locked) if *locked != made => {
                let age = Age::new(claim.signed, self.settings.lock_written);
                Err(NotUsed::Unlocked { made, locked: *locked, age })
            }
            _ => Ok(claim.action),
        }
    }

    /// Does not use the record of `key`, and tells the user why.
    pub fn refuse(&self, key: &Digest, problem: String) {
        self.forget(key);
        self.pass_over(key, &NotUsed::Refused(problem));
    }

    /// Returns the keys that are trusted, our own included, each once.
    pub fn members(&self) -> Vec<PublicKey> {
        let mut members = self.believed();
        members.sort_by_key(|key| *key.as_bytes());
        members.dedup();
        members
    }

    /// Returns our own key.
    pub fn own_key(&self) -> Option<PublicKey> {
        self.settings.own.map(|own| own.public())
    }

    /// Returns the keys that are trusted, our own included.
    fn believed(&self) -> Vec<PublicKey> {
        let own = self.settings.own.iter().map(|own| own.public());
        self.settings.trusted.iter().copied().chain(own).collect()
    }

    /// Returns how much was transferred so far.
    pub fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Removes and returns the messages for the user, oldest first.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notices)
    }

    /// Whether the remote counts as down: a read failed, or an upload got no answer in time. Then it is not
    /// asked for records again.
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// Tells the user why a record is not used. If several records have the same reason, only the first is
    /// reported.
    fn pass_over(&self, key: &Digest, problem: &NotUsed) {
        let problem = problem.to_string();
        if self.state().passed_over.insert(problem.clone()) {
            self.notice(format!("the record of {} in the remote is not used: {problem}", key.short()));
        }
    }

    fn notice(&self, text: String) {
        self.state().notices.push(text);
    }

    /// Notes that the remote is down, and tells the user once. It is not asked again, because a build must
    /// not wait for it at every node.
    fn failed(&self, error: &RemoteError) {
        self.state().is_down = true;
        if !std::mem::replace(&mut self.state().is_told, true) {
            self.notice(format!("{error}; going on without it"));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one statement, so a thread that panicked left no half-made change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a record. For a measurement the name depends on the machine's class too, because a
/// slower machine measures other times.
fn record_name(key: &Digest, kind: &SharePolicy) -> String {
    match kind {
        SharePolicy::Measured => format!("actions/{}.json", Digest::of_json(&(key, machine::class()))),
        SharePolicy::MeasuredOn(class) => format!("actions/{}.json", Digest::of_json(&(key, class.as_ref()))),
        SharePolicy::Made | SharePolicy::Source => format!("actions/{key}.json"),
    }
}

fn content_name(folder: &str, digest: &Digest) -> String {
    let text = digest.to_string();
    let (first, rest) = text.split_at(2);
    format!("{folder}/{first}/{rest}")
}

fn chunk_name(digest: &Digest) -> String {
    content_name("chunks", digest)
}

fn file_name(digest: &Digest) -> String {
    content_name("files", digest)
}

/// Whether a file of this name and size (in bytes) can have several chunks. If not, it is one chunk with the
/// file's own digest.
fn may_be_cut(path: &str, size: u64) -> bool {
    size > LONGEST_CHUNK || path.ends_with(".safetensors")
}
