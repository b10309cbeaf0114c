//! What this machine remembers between two runs, in one file that is read at the start: digests of files that
//! did not change since they were hashed, the outcome of known actions, the parsed manifest.
//! Knows nothing it could not find out again: delete the file, and the next run is slower, not different.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::digest::Digest;

/// Bumped when the meaning of the file changes; an older one is then ignored.
const FORMAT: u32 = 1;

/// A file that changed this shortly before it was hashed may change again within the same tick of the file
/// system's clock, so its digest is not remembered. Git's index has the same rule.
const RACY: Duration = Duration::from_secs(2);

/// What the system says of a file: if nothing of this changed, the content did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stat {
    /// Reads the parts that matter from `metadata`.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file itself. Every hard link to it shares one entry, so linking an object into `artifacts/` does
    /// not make the other links unknown.
    fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    fn is_racy(&self, now: SystemTime) -> bool {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = since_epoch.saturating_sub(RACY).as_secs();
        i64::try_from(settled).map_or(true, |settled| self.modified.0 >= settled)
    }
}

/// The memory. `dirty` tells whether it differs from the file.
#[derive(Default)]
pub struct Memo {
    stats: HashMap<(u64, u64), (Stat, Digest)>,
    contents: Contents,
    dirty: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// Of the pipeline file's text: what it parses to, encoded by the manifest room.
    manifest: Option<(Digest, Vec<u8>)>,
    stats: Vec<(Stat, Digest)>,
    /// Recipe key → what the action made.
    actions: BTreeMap<Digest, Artifact>,
    /// Node → the key it was last built with here: what `why` compares with.
    last: BTreeMap<String, Digest>,
}

impl Memo {
    /// Reads the memory at `path`. A file that is missing, old or damaged is an empty memory.
    pub fn load(path: &Path) -> Self {
        let mut contents = fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let stats = std::mem::take(&mut contents.stats);
        let stats = stats.into_iter().map(|(stat, digest)| (stat.file(), (stat, digest))).collect();
        Self { stats, contents, dirty: false }
    }

    /// Returns the bytes to write back, or nothing if the memory is as it was read.
    pub fn changed(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let mut stats: Vec<_> = self.stats.values().copied().collect();
        stats.sort_by_key(|(stat, _)| stat.file());
        self.contents.stats = stats;
        self.contents.format = FORMAT;
        let body = postcard::to_stdvec(&self.contents).expect("BUG: the memory must have a postcard form");
        self.contents.stats.clear();
        Some([Digest::of(&body).as_bytes(), body.as_slice()].concat())
    }

    /// Returns the digest of the file at `path`, reading it only if it may have changed.
    pub fn digest_of(&mut self, path: &Path) -> io::Result<(Digest, Stat)> {
        let before = Stat::of(&fs::metadata(path)?);
        if let Some(digest) = self.known(&before) {
            return Ok((digest, before));
        }
        let now = SystemTime::now();
        let (digest, _) = Digest::of_file(path)?;
        let after = Stat::of(&fs::metadata(path)?);
        if before == after && !after.is_racy(now) {
            self.remember(after, digest);
        }
        Ok((digest, after))
    }

    /// Returns the digest of the file that `stat` describes, if it was hashed in this very state.
    pub fn known(&self, stat: &Stat) -> Option<Digest> {
        self.stats.get(&stat.file()).filter(|(known, _)| known == stat).map(|(_, digest)| *digest)
    }

    /// Remembers that the file which `stat` describes has the content of `digest`.
    pub fn remember(&mut self, stat: Stat, digest: Digest) {
        self.dirty |= self.stats.insert(stat.file(), (stat, digest)) != Some((stat, digest));
    }

    /// Takes over a change of state that leaves the content as it was: a new hard link moves the ctime.
    pub fn relinked(&mut self, before: &Stat, after: Stat) {
        if let Some(digest) = self.known(before)
            && (before.size, before.modified) == (after.size, after.modified)
        {
            self.remember(after, digest);
        }
    }

    /// Returns what the action under `key` made.
    pub fn action(&self, key: &Digest) -> Option<&Artifact> {
        self.contents.actions.get(key)
    }

    /// Remembers what the action under `key` made.
    pub fn remember_action(&mut self, key: Digest, artifact: Artifact) {
        self.dirty = true;
        self.contents.actions.insert(key, artifact);
    }

    /// Forgets the action under `key`: its objects are gone or damaged.
    pub fn forget_action(&mut self, key: &Digest) {
        self.dirty |= self.contents.actions.remove(key).is_some();
    }

    /// Returns the key that `node` was last built with on this machine.
    pub fn last_key(&self, node: &str) -> Option<Digest> {
        self.contents.last.get(node).copied()
    }

    /// Remembers the key that `node` was built with.
    pub fn remember_last(&mut self, node: &str, key: Digest) {
        if self.contents.last.get(node) != Some(&key) {
            self.contents.last.insert(node.to_owned(), key);
            self.dirty = true;
        }
    }

    /// Returns what was remembered for a pipeline file whose text has this digest.
    pub fn manifest(&self, text: &Digest) -> Option<&[u8]> {
        self.contents.manifest.as_ref().filter(|(known, _)| known == text).map(|(_, bytes)| bytes.as_slice())
    }

    /// Remembers what the pipeline file parses to.
    pub fn remember_manifest(&mut self, text: Digest, bytes: Vec<u8>) {
        self.contents.manifest = Some((text, bytes));
        self.dirty = true;
    }
}

/// Reads the file's bytes: 32 bytes of digest, then the contents it must match.
fn decode(bytes: &[u8]) -> Option<Contents> {
    let (digest, body) = bytes.split_at_checked(32)?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    postcard::from_bytes::<Contents>(body).ok().filter(|contents| contents.format == FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_ignores_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memo");
        let mut memo = Memo::load(&path);
        memo.remember_last("8bit", Digest::of(b"key"));
        let mut bytes = memo.changed().unwrap();
        assert_eq!(memo.changed(), None);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Memo::load(&path).last_key("8bit"), Some(Digest::of(b"key")));

        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Memo::load(&path).last_key("8bit"), None);
    }

    #[test]
    fn does_not_trust_a_file_changed_just_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, b"one").unwrap();
        let mut memo = Memo::default();
        let (_, stat) = memo.digest_of(&path).unwrap();
        assert_eq!(memo.known(&stat), None);

        let old = SystemTime::now() - Duration::from_secs(10);
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
        let (digest, stat) = memo.digest_of(&path).unwrap();
        assert_eq!(memo.known(&stat), Some(digest));
    }
}
