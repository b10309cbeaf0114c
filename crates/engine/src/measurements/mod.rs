//! What was measured of the configurations of a benchmark: kept on this machine as soon as it is known, recorded when the
//! benchmark is done, and shared with the team.
//! Knows nothing of suites or scores.
//!
//! ```text
//! measuring/SUBJECT.jsonl     the journal of a measurement that is not finished
//! actions/SUBJECT.json        the record of a finished one, whose one file has the same lines without marks
//! ```
//!
//! A subject is a configuration, what runs it, and the class of machine. What is known of it is the sum of what was
//! measured here and of what teammates sent. Only what was measured here is recorded and signed: a record in the cache
//! that this machine did not make is not read, and each member has a record of their own in the remote.

mod journal;
mod subject;

pub(crate) use subject::Subject;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::error::{OrBug, Result};
use crate::recipe::Recipe;
use crate::share::{Share, SharePolicy};
use crate::stage::{Entry, Host, Measured, Measuring};
use crate::store::{Action, KeyLock, LocalStore, RecordOrigin, hash_files, is_content};
use artifact::{Digest, Interrupted, Output, Tick};
use journal::Journal;

/// The one file of a record.
const FILE: &str = "measurements.jsonl";

/// The one file of a record of log probabilities.
const LOG_PROBABILITIES: &str = "log-probabilities";

/// How measurements of one configuration are shared. The class of machine is part of the subject.
pub(crate) const POLICY: SharePolicy = SharePolicy::Made;

/// Tells how far a benchmark is.
pub(crate) type Tell<'a> = &'a (dyn Fn(&Measuring) -> Result<(), Interrupted> + Sync);

/// The measurements of the configurations of one benchmark.
pub(crate) struct Measurements<'a> {
    store: &'a LocalStore,
    subjects: BTreeMap<String, Subject>,
    source: Source<'a>,
    tell: Tell<'a>,
    /// By the key of the subject: two configurations may be the same.
    state: Mutex<BTreeMap<Digest, State>>,
    /// The files with log probabilities that were checked or written by this build.
    log_probabilities: Mutex<BTreeMap<Digest, PathBuf>>,
}

/// Where earlier measurements come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// From the cache and from the remote, if there is one. What is new is kept.
    Known {
        share: Option<&'a Share>,
        tick: Tick<'a>,
        /// Whether all is measured again.
        forced: bool,
    },
    /// From nowhere: everything is measured, and nothing is kept.
    Nowhere,
}

/// What is known of one subject.
#[derive(Default)]
struct State {
    /// What was measured here.
    own: Measured,
    /// What teammates measured.
    theirs: Measured,
    /// Whether something is not in the record here.
    is_new: bool,
}

impl<'a> Measurements<'a> {
    pub(crate) fn new(store: &'a LocalStore, recipe: &Recipe, source: Source<'a>, tell: Tell<'a>) -> Self {
        let subjects = Subject::all(recipe);
        let (state, log_probabilities) = (Mutex::default(), Mutex::default());
        Self { store, subjects, source, tell, state, log_probabilities }
    }

    /// Waits until no other process measures one of the configurations, and keeps others waiting until the locks are
    /// dropped. They are taken in the order of their keys, so that no two processes wait for each other.
    ///
    /// # Errors
    /// Fails if the locks cannot be made, or if `tick` asks to stop.
    pub(crate) fn lock(&self, tick: Tick<'_>) -> Result<Vec<KeyLock>> {
        let keys: BTreeSet<_> = self.subjects.values().map(Subject::key).collect();
        keys.iter().map(|key| self.store.lock(key, &|| tick(0, 0))).collect()
    }

    /// Records what was measured, and removes the journals.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let subjects: BTreeMap<_, _> =
            self.subjects.values().map(|subject| (subject.key(), subject)).collect();
        for (key, state) in std::mem::take(&mut *self.state()) {
            let State { mut own, is_new, .. } = state;
            if !is_new || own.is_empty() {
                self.store.mark_used(&key);
                continue;
            }
            // What a forced build did not ask stays known.
            own.fill(self.recorded(&key).unwrap_or_default());
            let subject = subjects.get(&key).or_bug("a benchmark knows its subjects")?;
            let _gc_lock = self.store.gc_lock()?;
            let folder = self.store.output_folder(&key)?;
            let output = Output::new(folder.clone());
            output.write(FILE, &lines(&own))?;
            let artifact = output.finish().artifact;
            self.store.put_files(&folder, &artifact)?;
            let recipe = serde_json::to_value(subject).expect("BUG: a subject has a JSON form");
            let action = Action { artifact, failure: None, recipe, seconds: 0.0, tool: None };
            self.store.put_record(&key, &action, RecordOrigin::Here)?;
            Journal::of(self.store, key).remove()?;
        }
        Ok(())
    }

    fn subject(&self, config: &str) -> Result<&Subject> {
        self.subjects.get(config).or_bug("a benchmark knows its configs")
    }

    /// Returns what the record here has, if this machine made it.
    fn recorded(&self, key: &Digest) -> Option<Measured> {
        self.read(&self.store.record(key).filter(|record| record.made_here)?.action)
    }

    fn read(&self, action: &Action) -> Option<Measured> {
        let file = action.artifact.files().iter().find(|file| file.path == FILE)?;
        let bytes = self.store.read_content(&file.digest).ok()?;
        let mut read = Measured::default();
        measured(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()), &mut read);
        Some(read)
    }

    /// Returns what the records of the members in the remote have.
    fn shared(&self, share: &Share, subject: &Subject, tick: Tick<'_>) -> Measured {
        let mut measured = Measured::default();
        for member in share.members() {
            let action = share.record(&subject.key_of(&member), &POLICY);
            let pulled = action.filter(|action| share.pull(self.store, &action.artifact, tick).is_ok());
            measured.merge(pulled.and_then(|action| self.read(&action)).unwrap_or_default());
        }
        measured
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<Digest, State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<Digest, PathBuf>> {
        self.log_probabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_probabilities_key(&self, config: &str, text: &Digest) -> Option<Digest> {
        self.subjects.get(config).map(|subject| subject.log_probabilities_key(text))
    }
}

impl Host for Measurements<'_> {
    fn recall(&self, config: &str) -> Measured {
        let Source::Known { share, tick, forced } = self.source else { return Measured::default() };
        let Some(subject) = self.subjects.get(config) else { return Measured::default() };
        let key = subject.key();
        let known = |state: &State| {
            let mut known = state.own.clone();
            known.merge(state.theirs.clone());
            known
        };
        if let Some(state) = self.state().get(&key) {
            return known(state);
        }
        let journal = Journal::of(self.store, key);
        let state = if forced {
            // What an earlier build began is not to be continued.
            let _ = journal.remove();
            State::default()
        } else {
            let recorded = self.recorded(&key).unwrap_or_default();
            let mut own = recorded.clone();
            measured(journal.lines().iter().map(Vec::as_slice), &mut own);
            let theirs = share.map(|share| self.shared(share, subject, tick)).unwrap_or_default();
            State { is_new: own != recorded, own, theirs }
        };
        let measured = known(&state);
        self.state().insert(key, state);
        measured
    }

    fn remember(&self, config: &str, entry: &Entry) -> Result<()> {
        if let Source::Known { .. } = self.source {
            let key = self.subject(config)?.key();
            Journal::of(self.store, key).append(&line(entry))?;
            let mut states = self.state();
            let state = states.entry(key).or_default();
            state.own.add(entry.clone());
            state.is_new = true;
        }
        Ok(())
    }

    fn identity(&self, config: &str) -> Result<Digest> {
        Ok(self.subject(config)?.key())
    }

    fn log_probabilities(&self, config: &str, text: &Digest) -> Option<PathBuf> {
        let key = self.log_probabilities_key(config, text)?;
        if let Some(path) = self.files().get(&key).filter(|path| path.exists()) {
            return Some(path.clone());
        }
        let Source::Known { forced: false, .. } = self.source else { return None };
        let action = self.store.record(&key).filter(|record| record.made_here)?.action;
        let file = action.artifact.files().iter().find(|file| file.path == LOG_PROBABILITIES)?;
        let path = self.store.object_path(&file.digest);
        if !is_content(&path, &file.digest) {
            return None;
        }
        self.store.mark_used(&key);
        self.files().insert(key, path.clone());
        Some(path)
    }

    fn new_log_probabilities(&self, config: &str, text: &Digest) -> Result<PathBuf> {
        let key = self.log_probabilities_key(config, text).or_bug("a benchmark knows its configs")?;
        Ok(self.store.output_folder(&key)?.join(LOG_PROBABILITIES))
    }

    fn keep_log_probabilities(&self, config: &str, text: &Digest) -> Result<()> {
        let key = self.log_probabilities_key(config, text).or_bug("a benchmark knows its configs")?;
        let folder = self.store.workspace().join(key.to_string());
        let written = folder.join(LOG_PROBABILITIES);
        let Source::Known { .. } = self.source else {
            self.files().insert(key, written);
            return Ok(());
        };
        let (artifact, _) = hash_files(&folder, &[LOG_PROBABILITIES.to_owned()])?;
        let digest = artifact.file(LOG_PROBABILITIES).or_bug("the file was just hashed")?.digest;
        let _gc_lock = self.store.gc_lock()?;
        self.store.put_files(&folder, &artifact)?;
        let recipe = json!({ "log_probabilities": self.subject(config)?, "text": text });
        let action = Action { artifact, failure: None, recipe, seconds: 0.0, tool: None };
        self.store.put_record(&key, &action, RecordOrigin::Here)?;
        self.files().insert(key, self.store.object_path(&digest));
        Ok(())
    }

    fn measuring(&self, measuring: &Measuring) -> Result<(), Interrupted> {
        (self.tell)(measuring)
    }
}

/// Adds what these lines have. A line that cannot be read, or whose parts do not fit together, is passed over.
fn measured<'l>(lines: impl Iterator<Item = &'l [u8]>, measured: &mut Measured) {
    let is_whole = |entry: &Entry| match entry {
        Entry::Reading { reading, .. } => reading.check().is_ok(),
        _ => true,
    };
    let entries = lines.filter_map(|line| serde_json::from_slice(line).ok());
    entries.filter(is_whole).for_each(|entry| measured.add(entry));
}

fn line(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("BUG: a measurement has a JSON form")
}

fn lines(measured: &Measured) -> Vec<u8> {
    measured.entries().iter().flat_map(|entry| [line(entry), b"\n".to_vec()].concat()).collect()
}
