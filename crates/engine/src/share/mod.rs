//! The team's cache: records of actions that can be believed, and the files they name, brought here and sent there.
//! Knows nothing of nodes and recipes; a remote that is down, slow, damaged or hostile is a miss, never a failure.
//!
//! ```text
//! actions/KEY.json    the signed record of an action, written last, over whatever is there
//! files/ab/cdef…      of a file in several chunks: which, in order
//! chunks/ab/cdef…     the content whose blake3 begins with ab, as it is or as zstd
//! ```
//! Everything but the records is named after its content, and hashed again when it arrives. So nothing rests on what
//! the storage promises: two who write the same name write the same bytes, and of two records of one key either will do.

mod arrival;
mod budget;
mod collect;
mod compare;
mod machine;
mod packing;
mod pull;
mod push;
mod sources;

pub use collect::{Spare, Waste};
pub use pull::Miss;
pub use push::Unsent;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::attestation::{self, Claim};
use crate::sign::{Envelope, NotBelieved, PublicKey, SecretKey};
use crate::store::{Action, LONGEST_CHUNK, LocalStore, Remote, RemoteError};
use artifact::{Digest, Interrupted, IoError};

/// The longest record that is read, in bytes: a model in ten thousand files has less.
const LONGEST_RECORD: u64 = 16 << 20;

/// The longest list of chunks that is read, in bytes.
const LONGEST_LIST: u64 = 64 << 20;

/// Told how many bytes of how many have been moved; answers whether to go on.
pub type Tick<'a> = &'a (dyn Fn(u64, u64) -> Result<(), Interrupted> + Sync);

/// What of an action travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The record and the files.
    Made,
    /// The record alone: the files lie at their source.
    Source,
    /// The record and the files, between machines of one class only: times are in them.
    Measured,
}

/// What is needed to use a remote.
pub struct Settings {
    /// Who may be believed, beside ourselves.
    pub trusted: Vec<PublicKey>,
    /// Our own key, if we have one.
    pub own: Option<SecretKey>,
    /// What pipeline.lock says that the action of a key made.
    pub locked: HashMap<Digest, Digest>,
    /// Whether chunks are made smaller where that gains something.
    pub compress: bool,
}

/// The team's cache. The storage is opened when something is first asked of it: most builds ask nothing.
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
    /// Why records were not used, as far as it was said.
    passed_over: HashSet<String>,
    is_down: bool,
    /// Whether the user was told that the remote fails: once in a build is enough.
    is_told: bool,
    /// Whether something was found not to be what it should be; then nothing that is there counts as there.
    is_damaged: bool,
    traffic: Traffic,
}

/// A record that was asked for and can be believed.
#[derive(Clone, Debug)]
struct Known {
    action: Action,
    envelope: Vec<u8>,
}

/// What was moved, in bytes of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Sent, as it went over the wire.
    pub sent: u64,
    /// Not sent, because the remote had it.
    pub already_there: u64,
    /// Brought here, as it came over the wire.
    pub fetched: u64,
    /// Not brought here, because another file had it.
    pub already_here: u64,
}

impl Share {
    /// Names the storage; nothing is asked of it yet.
    pub fn new(url: &str, settings: Settings) -> Self {
        Self { url: url.to_owned(), remote: OnceLock::new(), settings, state: Mutex::default() }
    }

    /// Returns the storage itself.
    pub fn remote(&self) -> Result<&Remote, RemoteError> {
        self.remote.get_or_init(|| Remote::open(&self.url)).as_ref().map_err(Clone::clone)
    }

    /// Returns the record of the action of `key`, if the remote has one that can be believed. It is asked for once.
    pub fn record(&self, key: &Digest, kind: Kind) -> Option<Action> {
        let known = |state: &State| state.records.get(key).cloned();
        if let Some(known) = known(&self.state()) {
            return known.map(|known| known.action);
        }
        let found = if self.state().is_down { None } else { self.ask(key, kind) };
        self.state().records.insert(*key, found.clone());
        found.map(|known| known.action)
    }

    /// Asks for many records at once, so that a plan that wants them one after the other need not wait for each.
    pub fn prefetch(&self, wanted: &[(Digest, Kind)]) {
        let asked = budget::each(
            wanted,
            |_| 0,
            |(key, kind)| {
                self.record(key, *kind);
                if self.is_down() { Err(()) } else { Ok(()) }
            },
        );
        // That it is down was noted; there is nothing else that could go wrong.
        asked.unwrap_or(());
    }

    /// Keeps the record of `key` in our own cache. Called last: the files it names are in place, or not wanted.
    pub fn keep(&self, key: &Digest, store: &LocalStore) -> Result<(), IoError> {
        let known = self.state().records.get(key).cloned().flatten();
        let Some(Known { action, envelope }) = known else { return Ok(()) };
        store.attest(key, &envelope)?;
        store.record(key, &action)
    }

    /// Forgets the record of `key`: what it names cannot be had.
    pub fn forget(&self, key: &Digest) {
        self.state().records.insert(*key, None);
    }

    fn ask(&self, key: &Digest, kind: Kind) -> Option<Known> {
        let asked = self.remote().and_then(|remote| remote.ask(&record_name(key, kind), LONGEST_RECORD));
        let json = match asked {
            Ok(found) => found?,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        match self.believe(key, &json) {
            Ok(action) => Some(Known { action, envelope: json }),
            Err(problem) => {
                self.pass_over(key, &problem);
                None
            }
        }
    }

    /// Checks who says what a record says, and that it answers our question.
    fn believe(&self, key: &Digest, json: &[u8]) -> Result<Action, NotUsed> {
        let (claim, _) = open(json, &self.believed())?;
        if claim.key != *key {
            return Err(NotUsed::Other(claim.key));
        }
        let made = claim.action.artifact.reproducible_digest();
        match self.settings.locked.get(key) {
            Some(locked) if *locked != made => Err(NotUsed::Unlocked { made, locked: *locked }),
            _ => Ok(claim.action),
        }
    }

    /// Returns who may be believed.
    fn believed(&self) -> Vec<PublicKey> {
        let own = self.settings.own.iter().map(SecretKey::public);
        self.settings.trusted.iter().copied().chain(own).collect()
    }

    /// Returns what was moved.
    pub fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Takes what the user should be told, in order.
    pub fn notices(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notices)
    }

    /// Whether the remote was found not to answer. It is not asked again.
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// Says why a record is not used; of many that are not used for one reason, the first.
    fn pass_over(&self, key: &Digest, problem: &NotUsed) {
        let problem = problem.to_string();
        if self.state().passed_over.insert(problem.clone()) {
            self.notice(format!("the record of {} in the remote is not used: {problem}", key.short()));
        }
    }

    fn notice(&self, text: String) {
        self.state().notices.push(text);
    }

    /// A remote that fails once is left alone: a build must not wait for it at every node.
    fn failed(&self, error: &RemoteError) {
        self.state().is_down = true;
        if !std::mem::replace(&mut self.state().is_told, true) {
            self.notice(format!("{error}; going on without it"));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one statement: a thread that panicked has left none half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a record is passed over.
#[derive(Debug, thiserror::Error)]
pub enum NotUsed {
    /// Nobody we trust says so.
    #[error(transparent)]
    NotBelieved(#[from] NotBelieved),
    /// What is signed is not the statement of an action.
    #[error("{0}")]
    NotAClaim(String),
    /// It is the record of another action.
    #[error("it is the record of {}", .0.short())]
    Other(Digest),
    /// It is not what pipeline.lock says.
    #[error("it says {}, but pipeline.lock has {}", made.short(), locked.short())]
    Unlocked {
        /// What the record says.
        made: Digest,
        /// What the lock says.
        locked: Digest,
    },
}

/// Opens the signed statement of an action; returns it and who signed it.
pub fn open(json: &[u8], believed: &[PublicKey]) -> Result<(Claim, PublicKey), NotUsed> {
    let (payload, signer) = Envelope::parse(json)?.open(attestation::PAYLOAD_TYPE, believed)?;
    let claim = Claim::parse(&payload).map_err(|error| {
        // What is wrong with its files is a level below.
        NotUsed::NotAClaim(format!("{:#}", anyhow::Error::new(error)))
    })?;
    Ok((claim, signer))
}

/// Returns the signed statement that the action of `key` made what it made.
pub fn seal(key: &Digest, kind: Kind, action: &Action, own: &SecretKey) -> Vec<u8> {
    let machine = (kind == Kind::Measured).then(|| machine::class().to_owned());
    let claim = Claim { key: *key, action: action.clone(), machine };
    Envelope::seal(attestation::PAYLOAD_TYPE, claim.to_json(), own).to_json()
}

/// The name of a record. That of a measurement depends on the class of machine too: a slower one has other times.
fn record_name(key: &Digest, kind: Kind) -> String {
    match kind {
        Kind::Measured => format!("actions/{}.json", Digest::of_json(&(key, machine::class()))),
        Kind::Made | Kind::Source => format!("actions/{key}.json"),
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

/// Whether a file of this name and size can have several chunks. One that has not is named after its own content.
fn may_be_cut(path: &str, size: u64) -> bool {
    size > LONGEST_CHUNK || path.ends_with(".safetensors")
}
