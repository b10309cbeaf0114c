//! What was measured of the configurations of a benchmark: kept on this machine as soon as it is known, recorded when the
//! benchmark is done, and shared with the team.
//! Knows nothing of suites or scores.
//!
//! ```text
//! measuring/SUBJECT.jsonl     the journal of a measurement that is not finished
//! actions/SUBJECT.json        the record of a finished one, whose one file has the same lines without marks
//! ```
//!
//! A subject is a configuration, what runs it, and the class of machine. What is known of it is the sum of the remote's
//! record, the record here and the journal here.

mod journal;
mod subject;

pub(crate) use subject::Subject;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::error::{OrBug, Result};
use crate::recipe::Recipe;
use crate::share::{LocalRecords, Share, SharePolicy};
use crate::stage::{Entry, Host, Measured, Measuring};
use crate::store::{Action, LocalStore, RecordOrigin, hash_files, is_content};
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
    state: Mutex<BTreeMap<String, State>>,
    /// The files with log probabilities that were checked or written by this build.
    log_probabilities: Mutex<BTreeMap<Digest, PathBuf>>,
}

/// Where earlier measurements come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// From the cache and from the remote, if there is one. What is new is kept.
    Known {
        believed: LocalRecords<'a>,
        share: Option<&'a Share>,
        tick: Tick<'a>,
        /// Whether all is measured again.
        forced: bool,
    },
    /// From nowhere: everything is measured, and nothing is kept.
    Nowhere,
}

/// What is known of one configuration.
#[derive(Default)]
struct State {
    measured: Measured,
    /// Whether something is not in the record here.
    is_new: bool,
}

impl<'a> Measurements<'a> {
    pub(crate) fn new(store: &'a LocalStore, recipe: &Recipe, source: Source<'a>, tell: Tell<'a>) -> Self {
        let subjects = Subject::all(recipe);
        let (state, log_probabilities) = (Mutex::default(), Mutex::default());
        Self { store, subjects, source, tell, state, log_probabilities }
    }

    /// Records what was measured, and removes the journals.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let Source::Known { believed, .. } = self.source else { return Ok(()) };
        for (config, state) in std::mem::take(&mut *self.state()) {
            let subject = self.subject(&config)?;
            let key = subject.key();
            let mut measured = state.measured;
            if !state.is_new || measured.is_empty() {
                self.store.mark_used(&key);
                continue;
            }
            // What a forced build did not ask stays known.
            if let Some(recorded) = self.recorded(believed, &key) {
                measured.merge(recorded);
            }
            let _gc_lock = self.store.gc_lock()?;
            let folder = self.store.output_folder(&key)?;
            let output = Output::new(folder.clone());
            output.write(FILE, &lines(&measured))?;
            let artifact = output.finish().artifact;
            self.store.put_files(&folder, &artifact)?;
            let recipe = serde_json::to_value(subject).expect("BUG: a subject has a JSON form");
            let action = Action { artifact, failure: None, recipe, seconds: 0.0 };
            self.store.put_record(&key, &action, RecordOrigin::Here)?;
            Journal::of(self.store, key).remove()?;
        }
        Ok(())
    }

    fn subject(&self, config: &str) -> Result<&Subject> {
        self.subjects.get(config).or_bug("a benchmark knows its configs")
    }

    /// Returns what the record here has.
    fn recorded(&self, believed: LocalRecords<'_>, key: &Digest) -> Option<Measured> {
        self.read(&believed.get(key, POLICY)?)
    }

    fn read(&self, action: &Action) -> Option<Measured> {
        let file = action.artifact.files().iter().find(|file| file.path == FILE)?;
        let bytes = self.store.read_content(&file.digest).ok()?;
        Some(measured(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())))
    }

    /// Returns what the remote's record has.
    fn shared(&self, share: Option<&Share>, key: &Digest, tick: Tick<'_>) -> Option<Measured> {
        let (share, action) = (share?, share?.record(key, POLICY)?);
        share.pull(self.store, &action.artifact, tick).ok()?;
        self.read(&action)
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
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
        let Source::Known { believed, share, tick, forced } = self.source else { return Measured::default() };
        let Some(key) = self.subjects.get(config).map(Subject::key) else { return Measured::default() };
        let journal = Journal::of(self.store, key);
        if forced {
            // What an earlier build began is not to be continued.
            let _ = journal.remove();
            return Measured::default();
        }
        let recorded = self.recorded(believed, &key).unwrap_or_default();
        let mut known = recorded.clone();
        known.merge(self.shared(share, &key, tick).unwrap_or_default());
        let lines = journal.lines();
        for entry in lines.iter().filter_map(|line| serde_json::from_slice(line).ok()) {
            known.add(entry);
        }
        let is_new = known != recorded;
        self.state().insert(config.to_owned(), State { measured: known.clone(), is_new });
        known
    }

    fn remember(&self, config: &str, entry: &Entry) -> Result<()> {
        if let Source::Known { .. } = self.source {
            let key = self.subject(config)?.key();
            Journal::of(self.store, key).append(&line(entry))?;
            let mut states = self.state();
            let state = states.entry(config.to_owned()).or_default();
            state.measured.add(entry.clone());
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
        let Source::Known { believed, forced: false, .. } = self.source else { return None };
        let action = believed.get(&key, POLICY)?;
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
        let action = Action { artifact, failure: None, recipe, seconds: 0.0 };
        self.store.put_record(&key, &action, RecordOrigin::Here)?;
        self.files().insert(key, self.store.object_path(&digest));
        Ok(())
    }

    fn measuring(&self, measuring: &Measuring) -> Result<(), Interrupted> {
        (self.tell)(measuring)
    }
}

fn measured<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Measured {
    let mut measured = Measured::default();
    lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|entry| measured.add(entry));
    measured
}

fn line(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("BUG: a measurement has a JSON form")
}

fn lines(measured: &Measured) -> Vec<u8> {
    measured.entries().iter().flat_map(|entry| [line(entry), b"\n".to_vec()].concat()).collect()
}
