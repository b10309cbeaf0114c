//! The records of actions in the cache. A record says whether this program wrote it on this machine: only then
//! it has a mark that nobody else can make.
//! Knows nothing of whether a record is believed.

use std::fs;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Action, LocalStore, owned_file};
use crate::error::Result;
use artifact::{Artifact, Digest, IoError};

/// The role of a record among the things that are marked with the machine's secret.
const ROLE: &str = "record";

/// The longest record that is read, in bytes. The record of a model in ten thousand files is shorter.
const LONGEST: u64 = 16 << 20;

/// A record, and where it came from.
#[derive(Clone, Debug)]
pub struct Record {
    /// The action.
    pub action: Action,
    /// Whether this program ran the action on this machine, for this user, and wrote the record then.
    pub made_here: bool,
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOrigin {
    /// The action ran on this machine.
    Here,
    /// Somebody else signed it.
    Elsewhere,
}

/// The file. It has the fields of [`Action`], and the mark.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    artifact: Artifact,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Digest>,
    recipe: serde_json::Value,
    seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
}

impl LocalStore {
    /// Reads the record under `key`. A record that cannot be read is a miss: the stage runs again.
    pub fn record(&self, key: &Digest) -> Option<Record> {
        let bytes = owned_file::read(&self.action_path(key), LONGEST).ok()?;
        let Stored { artifact, failure, mark, recipe, seconds, tool } =
            serde_json::from_slice(&bytes).ok()?;
        artifact.check().ok()?;
        let action = Action { artifact, failure, recipe, seconds, tool };
        let made_here = mark.is_some_and(|mark| self.secret().made(ROLE, &marked(key, &action), &mark));
        Some(Record { action, made_here })
    }

    /// Reads the action under `key`, whoever recorded it.
    pub fn action(&self, key: &Digest) -> Option<Action> {
        self.record(key).map(|record| record.action)
    }

    /// Returns the keys and the actions of all records that were made here.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed.
    pub fn records_made_here(&self) -> Result<Vec<(Digest, Action)>> {
        let records = self.actions()?.into_iter().filter_map(|(key, _)| Some((key, self.record(&key)?)));
        let ours = records.filter(|(_, record)| record.made_here);
        Ok(ours.map(|(key, record)| (key, record.action)).collect())
    }

    /// Writes the record under `key`. Must be called last: every object that it names is in place and synced.
    ///
    /// # Errors
    /// Fails if the cache cannot be written.
    pub fn put_record(&self, key: &Digest, action: &Action, origin: RecordOrigin) -> Result<(), IoError> {
        let _gc_lock = self.gc_lock()?;
        let is_here = origin == RecordOrigin::Here;
        let mark = is_here.then(|| self.secret().mark(ROLE, &marked(key, action))).flatten();
        let Action { artifact, failure, recipe, seconds, tool } = action.clone();
        let stored = Stored { artifact, failure, mark, recipe, seconds, tool };
        self.write(
            &self.action_path(key),
            &serde_json::to_vec(&stored).expect("BUG: a record has a JSON form"),
        )
    }

    /// Sets the mtime of the record under `key` to now, which the collector takes as its last use. Errors are
    /// ignored: the record may only be collected earlier.
    pub fn mark_used(&self, key: &Digest) {
        let record = owned_file::open(&self.action_path(key));
        let _ = record.and_then(|file: fs::File| file.set_modified(SystemTime::now()));
    }
}

/// Returns the bytes that the mark of a record is about: the key and all of the action.
fn marked(key: &Digest, action: &Action) -> Vec<u8> {
    serde_json::to_vec(&(key, action)).expect("BUG: a record has a JSON form")
}

#[cfg(test)]
mod tests {
    use artifact::FileEntry;

    use super::*;

    #[test]
    fn only_what_was_recorded_here_counts_as_made_here() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = LocalStore::with_secret(folder.path().join("cache"), folder.path().join("secret"));
        store.prepare().unwrap();
        let file = FileEntry { digest: Digest::of(b""), path: "a".into(), size: 0, volatile: false };
        let artifact = Artifact::new(vec![file]);
        let action =
            Action { artifact, failure: None, recipe: serde_json::json!({}), seconds: 0.1, tool: None };
        let (ours, theirs) = (Digest::of(b"ours"), Digest::of(b"theirs"));
        store.put_record(&ours, &action, RecordOrigin::Here).unwrap();
        store.put_record(&theirs, &action, RecordOrigin::Elsewhere).unwrap();
        assert!(store.record(&ours).unwrap().made_here);
        assert!(!store.record(&theirs).unwrap().made_here);
        // A record under another key, or with a file that is marked otherwise, was not recorded here.
        let text = fs::read_to_string(store.action_path(&ours)).unwrap();
        fs::write(store.action_path(&theirs), &text).unwrap();
        assert!(!store.record(&theirs).unwrap().made_here);
        fs::write(store.action_path(&ours), text.replace("\"volatile\":false", "\"volatile\":true")).unwrap();
        assert!(!store.record(&ours).unwrap().made_here);
        store.finish().unwrap();
    }
}
