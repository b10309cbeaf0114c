//! The stat cache: digests of files that did not change since they were hashed, and a log of every file state
//! that a decision used.
//! Knows nothing of nodes, nor of where this is kept between two runs.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::hash::{hash, hash_all};
use artifact::Digest;

/// A file that changed this shortly before it was hashed may change again within the same tick of the file
/// system's clock, so its digest is not remembered. Git's index has the same rule.
const RACY: Duration = Duration::from_secs(2);

/// The state of a file as the system reports it. If the state did not change, the content did not.
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

    /// Reads the state of the file or folder at `path`, following links.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the device and the inode, which identify the file. All hard links to it share one entry, so
    /// linking an object into `artifacts/` does not make the other links unknown.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the file changed so shortly before `now` that another change might not show in its state.
    pub fn is_racy(&self, now: SystemTime) -> bool {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = since_epoch.saturating_sub(RACY).as_secs();
        i64::try_from(settled).map_or(true, |settled| self.modified.0 >= settled)
    }
}

/// The digests of files by their states, and the states that were read in this run.
#[derive(Default)]
pub struct StatCache {
    digests: HashMap<(u64, u64), (Stat, Digest)>,
    /// The digests of files that changed too recently, or in the future, to be remembered. They count for this
    /// run, so that no file is read twice.
    recent: HashMap<(u64, u64), (Stat, Digest)>,
    /// Whether `digests` differs from what was loaded.
    is_changed: bool,
    /// Every file and folder whose state was read in this run.
    observed: Vec<(PathBuf, Stat)>,
    /// The files that [`Self::has_content`] has logged. It logs only one hard link of each.
    observed_links: HashSet<(u64, u64)>,
}

impl StatCache {
    /// Takes over the digests of an earlier run.
    pub(super) fn new(digests: Vec<(Stat, Digest)>) -> Self {
        let digests = digests.into_iter().map(|(stat, digest)| (stat.file(), (stat, digest))).collect();
        Self { digests, ..Self::default() }
    }

    /// Returns the digests to keep for the next run, sorted by file.
    pub(super) fn digests(&self) -> Vec<(Stat, Digest)> {
        let mut digests: Vec<_> = self.digests.values().copied().collect();
        digests.sort_by_key(|(stat, _)| stat.file());
        digests
    }

    /// Returns whether a digest was added since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Reads the state of the file or folder at `path` and logs it. Call this before reading the content, so
    /// that a change in between shows in the state.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub fn observe(&mut self, path: &Path) -> io::Result<Stat> {
        let stat = Stat::at(path)?;
        self.log(path, stat);
        Ok(stat)
    }

    /// Logs a state that was read before there was a cache to log it in.
    pub fn log(&mut self, path: &Path, stat: Stat) {
        self.observed.push((path.to_owned(), stat));
    }

    /// Returns every state that was read in this run.
    pub fn observed(&self) -> &[(PathBuf, Stat)] {
        &self.observed
    }

    /// Hashes the files whose digests are not known, several at once. A file that cannot be read is skipped:
    /// [`Self::digest_of`] reports it.
    pub fn hash_changed(&mut self, paths: &[&Path]) {
        let now = SystemTime::now();
        let stats = paths.iter().filter_map(|path| Some((*path, Stat::at(path).ok()?)));
        let (unknown, before): (Vec<_>, Vec<_>) =
            stats.filter(|(_, stat)| self.known_now(stat).is_none()).unzip();
        for (hashed, before) in hash_all(&unknown).into_iter().zip(before) {
            if let Ok((digest, after)) = hashed {
                self.keep(before, after, now, digest);
            }
        }
    }

    /// Returns the digest of the file at `path`, reading it only if it may have changed.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub fn digest_of(&mut self, path: &Path) -> io::Result<(Digest, Stat)> {
        let before = self.observe(path)?;
        self.digest_at(path, before)
    }

    /// Whether the file at `path` has this digest and this size in bytes. Only the first hard link to each
    /// file is logged, so the caller must observe the folder too: renaming always changes the folder's mtime.
    pub fn has_content(&mut self, path: &Path, digest: &Digest, size: u64) -> bool {
        Stat::at(path).is_ok_and(|stat| self.has_content_at(path, stat, digest, size))
    }

    /// Like [`Self::has_content`], for a file that must be a regular one and no link.
    pub fn has_own_content(&mut self, path: &Path, digest: &Digest, size: u64) -> bool {
        let metadata = path.symlink_metadata().ok().filter(Metadata::is_file);
        metadata.is_some_and(|metadata| self.has_content_at(path, Stat::of(&metadata), digest, size))
    }

    fn has_content_at(&mut self, path: &Path, stat: Stat, digest: &Digest, size: u64) -> bool {
        if self.observed_links.insert(stat.file()) {
            self.log(path, stat);
        }
        stat.size == size && self.digest_at(path, stat).is_ok_and(|(found, _)| found == *digest)
    }

    /// Returns the digest of the file at `path`, whose state was `before` just now.
    fn digest_at(&mut self, path: &Path, before: Stat) -> io::Result<(Digest, Stat)> {
        if let Some(digest) = self.known_now(&before) {
            return Ok((digest, before));
        }
        let now = SystemTime::now();
        let (digest, after) = hash(path)?;
        self.keep(before, after, now, digest);
        Ok((digest, after))
    }

    /// Remembers a digest if the file did not change while it was read, nor just before `now`.
    fn keep(&mut self, before: Stat, after: Stat, now: SystemTime, digest: Digest) {
        if before != after {
            return;
        }
        if after.is_racy(now) {
            self.recent.insert(after.file(), (after, digest));
        } else {
            self.remember(after, digest);
        }
    }

    /// Like [`Self::known`], and also for files that were hashed in this run.
    fn known_now(&self, stat: &Stat) -> Option<Digest> {
        let recent =
            || self.recent.get(&stat.file()).filter(|(known, _)| known == stat).map(|(_, digest)| *digest);
        self.known(stat).or_else(recent)
    }

    /// Returns the digest of the file that `stat` describes, if it was hashed in exactly this state.
    pub fn known(&self, stat: &Stat) -> Option<Digest> {
        self.digests.get(&stat.file()).filter(|(known, _)| known == stat).map(|(_, digest)| *digest)
    }

    /// Remembers that the file which `stat` describes has the content of `digest`.
    pub fn remember(&mut self, stat: Stat, digest: Digest) {
        self.is_changed |= self.digests.insert(stat.file(), (stat, digest)) != Some((stat, digest));
    }

    /// Keeps a known digest across a change of state that does not change the content, such as a new hard
    /// link, which changes the ctime.
    pub fn relinked(&mut self, before: &Stat, after: Stat) {
        if let Some(digest) = self.known(before)
            && (before.size, before.modified) == (after.size, after.modified)
        {
            self.remember(after, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_trust_a_file_changed_just_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, b"one").unwrap();
        let mut stats = StatCache::default();
        let (_, stat) = stats.digest_of(&path).unwrap();
        assert_eq!(stats.known(&stat), None);
        assert_eq!(stats.known_now(&stat), Some(Digest::of(b"one")), "it is not read twice in one run");

        let old = SystemTime::now() - Duration::from_secs(10);
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
        let (digest, stat) = stats.digest_of(&path).unwrap();
        assert_eq!(stats.known(&stat), Some(digest));
    }
}
