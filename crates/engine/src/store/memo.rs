//! What this machine remembers between two runs, in one file that is read at the start: digests of files that
//! did not change since they were hashed, the outcome of known actions, the parsed manifest.
//! Knows nothing it could not find out again: delete the file, and the next run is slower, not different.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::hash::{hash, hash_all};
use artifact::{Artifact, Digest};

/// Bumped when the meaning of the file changes; an older one is then ignored.
const FORMAT: u32 = 3;

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

    /// Asks the system for the state of the file or folder at `path`.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file itself. Every hard link to it shares one entry, so linking an object into `artifacts/` does
    /// not make the other links unknown.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the file was changed so shortly before `now` that another change might not show.
    pub fn is_racy(&self, now: SystemTime) -> bool {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = since_epoch.saturating_sub(RACY).as_secs();
        i64::try_from(settled).map_or(true, |settled| self.modified.0 >= settled)
    }
}

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The key it was last built with here: what `why` compares with.
    pub key: Digest,
    /// What came out.
    pub artifact: Artifact,
    /// Why it fails although that came out.
    pub failure: Option<String>,
}

/// The memory. `dirty` tells whether it differs from the file.
#[derive(Default)]
pub struct Memo {
    stats: HashMap<(u64, u64), (Stat, Digest)>,
    contents: Contents,
    dirty: bool,
    /// What was looked at in this run.
    seen: Vec<(PathBuf, Stat)>,
    /// The files on the shelf among them.
    held: HashSet<(u64, u64)>,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// Of the pipeline file's text: what it parses to, encoded by the manifest room.
    manifest: Option<(Digest, Vec<u8>)>,
    stats: Vec<(Stat, Digest)>,
    /// By name.
    nodes: BTreeMap<String, Known>,
}

impl Memo {
    /// Reads the memory at `path`. A file that is missing, old or damaged is an empty memory.
    pub fn load(path: &Path) -> Self {
        let mut contents = fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let stats = std::mem::take(&mut contents.stats);
        let stats = stats.into_iter().map(|(stat, digest)| (stat.file(), (stat, digest))).collect();
        Self { stats, contents, dirty: false, ..Self::default() }
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
        Some(seal(&body))
    }

    /// Notes the state of the file or folder at `path`, and returns it. Comes before its content is read, so that
    /// a change meanwhile shows in the state.
    pub fn look(&mut self, path: &Path) -> io::Result<Stat> {
        let stat = Stat::at(path)?;
        self.saw(path, stat);
        Ok(stat)
    }

    /// Notes a state that was asked for before there was a memory to note it in.
    pub fn saw(&mut self, path: &Path, stat: Stat) {
        self.seen.push((path.to_owned(), stat));
    }

    /// Returns all that was looked at in this run.
    pub fn seen(&self) -> &[(PathBuf, Stat)] {
        &self.seen
    }

    /// Hashes those of these files that may have changed, several at once, so that asking for each is quick afterwards.
    /// What cannot be read is left for the asking.
    pub fn learn(&mut self, paths: &[&Path]) {
        let now = SystemTime::now();
        let stats = paths.iter().filter_map(|path| Some((*path, Stat::at(path).ok()?)));
        let (paths, before): (Vec<_>, Vec<_>) = stats.filter(|(_, stat)| self.known(stat).is_none()).unzip();
        for (hashed, before) in hash_all(&paths).into_iter().zip(before) {
            if let Ok((digest, after)) = hashed {
                self.keep(before, after, now, digest);
            }
        }
    }

    /// Returns the digest of the file at `path`, reading it only if it may have changed.
    pub fn digest_of(&mut self, path: &Path) -> io::Result<(Digest, Stat)> {
        let before = self.look(path)?;
        self.digest_at(path, before)
    }

    /// Whether the file at `path`, in a folder that is looked at too, has the content of `digest` and this `size`.
    /// Of hard links to one file the first is noted: no name changes its file but that its folder changes too.
    pub fn holds(&mut self, path: &Path, digest: &Digest, size: u64) -> bool {
        let Ok(stat) = Stat::at(path) else { return false };
        if self.held.insert(stat.file()) {
            self.saw(path, stat);
        }
        stat.size == size && self.digest_at(path, stat).is_ok_and(|(found, _)| found == *digest)
    }

    /// Returns the digest of the file at `path`, whose state was `before` just now.
    fn digest_at(&mut self, path: &Path, before: Stat) -> io::Result<(Digest, Stat)> {
        if let Some(digest) = self.known(&before) {
            return Ok((digest, before));
        }
        let now = SystemTime::now();
        let (digest, after) = hash(path)?;
        self.keep(before, after, now, digest);
        Ok((digest, after))
    }

    /// Remembers a digest if the file was not changed while it was read, nor just before, at `now`.
    fn keep(&mut self, before: Stat, after: Stat, now: SystemTime, digest: Digest) {
        if before == after && !after.is_racy(now) {
            self.remember(after, digest);
        }
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

    /// Returns what is known of `node`.
    pub fn node(&self, node: &str) -> Option<&Known> {
        self.contents.nodes.get(node)
    }

    /// Returns all nodes that are remembered, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.contents.nodes.iter().map(|(name, known)| (name.as_str(), known))
    }

    /// Remembers what `node` was built with and to.
    pub fn remember_node(&mut self, node: &str, key: Digest, artifact: &Artifact, failure: Option<&str>) {
        let same = |known: &Known| {
            known.key == key && known.artifact == *artifact && known.failure.as_deref() == failure
        };
        if !self.contents.nodes.get(node).is_some_and(same) {
            let known = Known { key, artifact: artifact.clone(), failure: failure.map(str::to_owned) };
            self.contents.nodes.insert(node.to_owned(), known);
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

fn decode(bytes: &[u8]) -> Option<Contents> {
    postcard::from_bytes::<Contents>(unseal(bytes)?).ok().filter(|contents| contents.format == FORMAT)
}

/// Returns the bytes of a file that shows damage: 32 bytes of digest, then `body`.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    [Digest::of(body).as_bytes(), body].concat()
}

/// Returns the body of a sealed file, unless it is damaged.
pub(super) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, body) = bytes.split_at_checked(32)?;
    (Digest::of(body).as_bytes() == digest).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_ignores_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memo");
        let mut memo = Memo::load(&path);
        memo.remember_node("8bit", Digest::of(b"key"), &Artifact::new(Vec::new()), None);
        let mut bytes = memo.changed().unwrap();
        assert_eq!(memo.changed(), None);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Memo::load(&path).node("8bit").unwrap().key, Digest::of(b"key"));

        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Memo::load(&path).node("8bit"), None);
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
