//! The local state: what this machine remembers between two runs. One file, read at the start, has the known
//! digests, the built nodes and the parsed pipeline file.
//! Knows nothing that cannot be found out again: without the file, the next run is slower, not different.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::built_nodes::{BuiltNode, BuiltNodes};
use super::machine_secret::MachineSecret;
use super::owned_file;
use super::stat_cache::{Stat, StatCache};
use artifact::Digest;

/// Increased when the meaning of the file changes; an older file is then ignored.
const FORMAT: u32 = 5;

/// The role of the file among those that are marked with the machine's secret.
const ROLE: &str = "local state";

/// The longest file that is read, in bytes. Ten thousand nodes take about five million.
const LONGEST: u64 = 1 << 30;

/// What this machine remembers between two runs.
#[derive(Default)]
pub struct LocalState {
    /// The digests of files that did not change since they were hashed.
    pub stats: StatCache,
    /// The result of the last build of each node.
    pub nodes: BuiltNodes,
    /// The stored contents that were found damaged, and are not put right yet.
    damaged: BTreeSet<Digest>,
    /// The digest of a pipeline file's text, and the encoded manifest of that text.
    manifest: Option<(Digest, Vec<u8>)>,
    is_changed: bool,
}

/// The file. The order of the fields is its format.
#[derive(Default, Serialize, Deserialize)]
struct Contents {
    format: u32,
    manifest: Option<(Digest, Vec<u8>)>,
    stats: Vec<(Stat, Digest)>,
    nodes: BTreeMap<String, BuiltNode>,
    damaged: BTreeSet<Digest>,
}

/// The same as [`Contents`], without copies.
#[derive(Serialize)]
struct Borrowed<'a> {
    format: u32,
    manifest: &'a Option<(Digest, Vec<u8>)>,
    stats: Vec<(Stat, Digest)>,
    nodes: &'a BTreeMap<String, BuiltNode>,
    damaged: &'a BTreeSet<Digest>,
}

impl LocalState {
    /// Reads the file at `path`. A file that is missing, old or damaged counts as empty, and so does one that
    /// was not written with this `secret`: it may have come with a checkout.
    pub fn load(path: &Path, secret: &MachineSecret) -> Self {
        let bytes = owned_file::read(path, LONGEST).ok();
        let contents = bytes.and_then(|bytes| decode(secret.unseal(ROLE, &bytes)?)).unwrap_or_default();
        let Contents { manifest, stats, nodes, damaged, .. } = contents;
        let (stats, nodes) = (StatCache::new(stats), BuiltNodes::new(nodes));
        Self { stats, nodes, damaged, manifest, is_changed: false }
    }

    /// Returns the bytes to write back, or `None` if nothing changed since the last call, or if there is no
    /// secret to mark them with.
    pub fn changed(&mut self, secret: &MachineSecret) -> Option<Vec<u8>> {
        let changed =
            [std::mem::take(&mut self.is_changed), self.stats.take_changed(), self.nodes.take_changed()];
        if changed == [false; 3] {
            return None;
        }
        let contents = Borrowed {
            format: FORMAT,
            manifest: &self.manifest,
            stats: self.stats.digests(),
            nodes: self.nodes.nodes(),
            damaged: &self.damaged,
        };
        let body = postcard::to_stdvec(&contents).expect("BUG: the state must have a postcard form");
        secret.seal(ROLE, &body)
    }

    /// Returns the stored contents that were found damaged, and are not put right yet.
    pub fn damaged(&self) -> &BTreeSet<Digest> {
        &self.damaged
    }

    /// Sets which stored contents are damaged.
    pub fn set_damaged(&mut self, damaged: BTreeSet<Digest>) {
        self.is_changed |= self.damaged != damaged;
        self.damaged = damaged;
    }

    /// Returns the encoded manifest of the pipeline file whose text has this digest, if it is known.
    pub fn manifest(&self, text: &Digest) -> Option<&[u8]> {
        self.manifest.as_ref().filter(|(known, _)| known == text).map(|(_, bytes)| bytes.as_slice())
    }

    /// Remembers the encoded manifest of the pipeline file whose text has this digest.
    pub fn set_manifest(&mut self, text: Digest, bytes: Vec<u8>) {
        self.manifest = Some((text, bytes));
        self.is_changed = true;
    }
}

fn decode(body: &[u8]) -> Option<Contents> {
    let contents = postcard::from_bytes::<Contents>(body).ok()?;
    (contents.format == FORMAT).then_some(contents)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use artifact::Artifact;

    use super::*;

    #[test]
    fn survives_a_round_trip_and_ignores_damage_and_forgery() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memo");
        let secret = MachineSecret::at(folder.path().join("secret"));
        let mut state = LocalState::load(&path, &secret);
        state.nodes.set("8bit", Digest::of(b"key"), &Artifact::new(Vec::new()), None);
        state.set_manifest(Digest::of(b"text"), vec![1, 2]);
        let mut bytes = state.changed(&secret).unwrap();
        assert_eq!(state.changed(&secret), None);
        fs::write(&path, &bytes).unwrap();
        let read = LocalState::load(&path, &secret);
        assert_eq!(read.nodes.get("8bit").unwrap().key, Digest::of(b"key"));
        assert_eq!(read.manifest(&Digest::of(b"text")), Some(&[1, 2][..]));
        assert_eq!(read.manifest(&Digest::of(b"other")), None);

        let stranger = MachineSecret::at(folder.path().join("other"));
        assert_eq!(LocalState::load(&path, &stranger).nodes.get("8bit"), None);
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(LocalState::load(&path, &secret).nodes.get("8bit"), None);
    }
}
