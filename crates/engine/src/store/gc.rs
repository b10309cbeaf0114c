//! The garbage collector of a cache: decides which records, folders and contents are removed, and removes
//! them.
//! Knows nothing of nodes or of `pipeline.lock`: it is told which keys are current.
//!
//! Current records are kept, whatever the limits say. These are the records of the given keys, those whose
//! artifact a name in `artifacts/` points at, and others with the same artifact, which take no extra space.
//! Records that were used since the oldest running process began are kept too. Of all others, the least
//! recently used are removed first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::artifacts_dir::hash_in;
use super::files::{list, remove};
use super::unfinished::is_partial;
use super::{Action, ArtifactsDir, GcLock, LocalStore, StatCache};
use crate::error::Result;
use artifact::{Artifact, AtPath, Digest};

/// A content that no record names is kept until it is older than this, because a record that names it may
/// follow.
const SETTLED: Duration = Duration::from_secs(3600);

/// A partial file is removed if no download continued it for longer than this.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A journal of a measurement, and the output of a command that failed, is removed if nothing was added to it for longer than this. It is work that somebody may
/// still continue.
const GIVEN_UP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which records are removed. Without a limit, only what no record names is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Records are removed until the contents take no more than this, in bytes.
    pub max_size: Option<u64>,
    /// Records that were not used for longer than this are removed.
    pub older_than: Option<Duration>,
}

/// The collector of one cache and its `artifacts/`. It holds the GC lock exclusively.
pub struct Collector<'a> {
    store: &'a LocalStore,
    artifacts_dir: &'a ArtifactsDir,
    now: SystemTime,
    _alone: GcLock,
}

/// What is to be removed; decided before anything is removed.
#[derive(Debug, Default)]
pub struct GcPlan {
    /// The records, the least recently used first.
    pub records: Vec<Unused>,
    /// The folders in `artifacts/`.
    pub folders: Vec<PathBuf>,
    /// The contents.
    pub objects: Vec<Digest>,
    /// The abandoned partial files, the journals of measurements that were given up, and the output of commands that
    /// failed long ago.
    pub partials: Vec<PathBuf>,
    /// The size of the contents and the partial files, in bytes.
    pub bytes: u64,
    /// What is kept.
    pub left: Left,
}

/// A record to remove.
#[derive(Debug)]
pub struct Unused {
    /// Its key.
    pub key: Digest,
    /// The record.
    pub action: Action,
    /// The time since its last use.
    pub age: Duration,
}

/// What is kept in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How many records.
    pub records: usize,
    /// How many contents.
    pub objects: usize,
    /// The size of these contents, in bytes.
    pub bytes: u64,
    /// How many of these records are not current and could be removed.
    pub spare_records: usize,
    /// How many bytes would be removed with them.
    pub spare_bytes: u64,
}

struct Record {
    key: Digest,
    action: Action,
    used: SystemTime,
    stays: bool,
}

impl LocalStore {
    /// Takes the GC lock exclusively: waits until no process puts anything in place, and makes others wait
    /// until the collector is dropped.
    ///
    /// # Errors
    /// Fails if the cache cannot be created, or if the lock cannot be taken.
    pub fn collector<'a>(&'a self, artifacts_dir: &'a ArtifactsDir) -> Result<Collector<'a>> {
        let alone = self.gc_lock_exclusive()?;
        Ok(Collector { store: self, artifacts_dir, now: SystemTime::now(), _alone: alone })
    }
}

impl Collector<'_> {
    /// Decides what to remove. `current` are the keys that are in use.
    ///
    /// # Errors
    /// Fails if the cache or `artifacts/` cannot be read.
    pub fn plan(&self, current: &HashSet<Digest>, limits: Limits) -> Result<GcPlan> {
        let objects = self.store.stored()?;
        let busy = self.store.oldest_running()?;
        let records = self.records(current, busy)?;
        let mut ledger = Ledger::new(&objects, &records);
        let mut plan = GcPlan::default();
        // A content that a running process has just stored is younger than the process.
        let settled =
            |written: &SystemTime| self.age(*written) > SETTLED && busy.is_none_or(|busy| *written < busy);
        for (digest, (_, written)) in &objects {
            if !ledger.is_named(digest) && settled(written) {
                plan.objects.push(*digest);
                ledger.drop_object(digest);
            }
        }
        let (mut left, mut spare) = (Vec::new(), Vec::new());
        for record in records {
            let age = self.age(record.used);
            let old = limits.older_than.is_some_and(|limit| age > limit);
            let full = limits.max_size.is_some_and(|limit| ledger.bytes > limit);
            if !record.stays && (old || (full && ledger.stores(&record.action.artifact))) {
                plan.objects.extend(ledger.drop_record(&record.action.artifact));
                plan.records.push(Unused { key: record.key, action: record.action, age });
            } else if record.stays {
                left.push(record);
            } else {
                spare.push(record);
            }
        }
        plan.left = Left {
            records: left.len() + spare.len(),
            objects: ledger.sizes.len(),
            bytes: ledger.bytes,
            spare_records: spare.len(),
            spare_bytes: 0,
        };
        left.extend(&mut spare.drain(..).inspect(|record| {
            ledger.drop_record(&record.action.artifact);
        }));
        plan.left.spare_bytes = plan.left.bytes - ledger.bytes;
        plan.folders = self.folders(&left)?;
        plan.partials = self.partials()?;
        let object_bytes = plan.objects.iter().filter_map(|digest| objects.get(digest)).map(|(size, _)| size);
        plan.bytes = object_bytes.sum::<u64>() + plan.partials.iter().map(|path| size_of(path)).sum::<u64>();
        Ok(plan)
    }

    /// Removes what is in `plan`. The records are removed first, so that after an interruption no record
    /// names a missing content. The stat cache is updated for the files that are kept.
    ///
    /// # Errors
    /// Fails if something cannot be removed, or if the cache cannot be listed.
    pub fn sweep(&self, plan: &GcPlan, stats: &mut StatCache) -> Result<()> {
        for record in &plan.records {
            remove(&self.store.action_path(&record.key))?;
            remove(&self.store.logs().join(record.key.to_string()))?;
        }
        for folder in &plan.folders {
            self.artifacts_dir.discard(folder, self.store, stats)?;
        }
        for digest in &plan.objects {
            let object = self.store.object_path(digest);
            remove(&object)?;
            // This fails while the folder has other contents in it.
            let _ = object.parent().map(fs::remove_dir);
        }
        plan.partials.iter().try_for_each(|path| remove(path))?;
        self.store.forget_the_gone()
    }

    /// Reads all records, the least recently used first, and marks those that are kept.
    fn records(&self, current: &HashSet<Digest>, busy: Option<SystemTime>) -> Result<Vec<Record>> {
        let pointed: HashSet<_> =
            self.artifacts_dir.targets()?.iter().filter_map(|name| hash_in(name)).collect();
        let mut records = Vec::new();
        for (key, used) in self.store.actions()? {
            // A record that cannot be read names nothing; the next build writes it again.
            let Some(action) = self.store.action(&key) else { continue };
            let stays = current.contains(&key) || pointed.contains(&action.artifact.digest().short());
            records.push(Record { key, action, used, stays });
        }
        let artifacts: HashSet<_> = records
            .iter()
            .filter(|record| record.stays)
            .map(|record| record.action.artifact.digest())
            .collect();
        for record in &mut records {
            record.stays |= artifacts.contains(&record.action.artifact.digest());
            record.stays |= busy.is_some_and(|busy| record.used >= busy);
        }
        records.sort_by_key(|record| (record.used, record.key));
        Ok(records)
    }

    /// Returns our hashed folders that no name points at and that belong to none of the records in `left`.
    fn folders(&self, left: &[Record]) -> Result<Vec<PathBuf>> {
        let known: HashSet<_> = left.iter().map(|record| record.action.artifact.digest().short()).collect();
        let mut folders = self.artifacts_dir.folders()?;
        folders.retain(|(_, hash)| !known.contains(hash));
        Ok(folders.into_iter().map(|(folder, _)| folder).collect())
    }

    fn partials(&self) -> Result<Vec<PathBuf>> {
        let older = |path: &Path, limit| {
            let written = fs::metadata(path).and_then(|metadata| metadata.modified());
            written.is_ok_and(|written| self.age(written) > limit)
        };
        let mut found = list(&self.store.tmp())?;
        found.retain(|path| is_partial(path) && older(path, ABANDONED));
        found.extend(list(&self.store.measuring())?.into_iter().filter(|path| older(path, GIVEN_UP)));
        // The output of a command that failed has no record.
        let has_record = |path: &Path| {
            let key = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            key.is_some_and(|key| self.store.action_path(&key).exists())
        };
        let logs = list(&self.store.logs())?.into_iter();
        found.extend(logs.filter(|path| !has_record(path) && older(path, GIVEN_UP)));
        Ok(found)
    }

    fn age(&self, time: SystemTime) -> Duration {
        self.now.duration_since(time).unwrap_or_default()
    }
}

/// The size of each stored content, how often records name it, and the size of all contents in bytes.
struct Ledger {
    sizes: HashMap<Digest, u64>,
    names: HashMap<Digest, usize>,
    bytes: u64,
}

impl Ledger {
    fn new(objects: &BTreeMap<Digest, (u64, SystemTime)>, records: &[Record]) -> Self {
        let sizes: HashMap<_, _> = objects.iter().map(|(digest, (size, _))| (*digest, *size)).collect();
        let mut names = HashMap::new();
        for file in records.iter().flat_map(|record| record.action.artifact.files()) {
            *names.entry(file.digest).or_default() += 1;
        }
        let bytes = sizes.values().sum();
        Self { sizes, names, bytes }
    }

    fn is_named(&self, digest: &Digest) -> bool {
        self.names.contains_key(digest)
    }

    /// Whether a file of the artifact is in the store. The files of a source are not.
    fn stores(&self, artifact: &Artifact) -> bool {
        artifact.files().iter().any(|file| self.sizes.contains_key(&file.digest))
    }

    fn drop_object(&mut self, digest: &Digest) -> bool {
        let size = self.sizes.remove(digest);
        self.bytes -= size.unwrap_or(0);
        size.is_some()
    }

    /// Removes a record; returns the stored contents that no other record names.
    fn drop_record(&mut self, artifact: &Artifact) -> Vec<Digest> {
        let mut free = Vec::new();
        for file in artifact.files() {
            let Some(names) = self.names.get_mut(&file.digest) else { continue };
            *names -= 1;
            if *names == 0 {
                self.names.remove(&file.digest);
                if self.drop_object(&file.digest) {
                    free.push(file.digest);
                }
            }
        }
        free
    }
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

impl LocalStore {
    /// Returns the size of each stored content in bytes, and when it was written.
    pub(super) fn stored(&self) -> Result<BTreeMap<Digest, (u64, SystemTime)>> {
        let mut stored = BTreeMap::new();
        for digest in self.objects()? {
            let path = self.object_path(&digest);
            let metadata = fs::metadata(&path).at("read", &path)?;
            stored.insert(digest, (metadata.len(), metadata.modified().at("read", &path)?));
        }
        Ok(stored)
    }

    /// Returns the key of each record, and when it was last used: the mtime of its file.
    pub(super) fn actions(&self) -> Result<Vec<(Digest, SystemTime)>> {
        let mut actions = Vec::new();
        for path in list(&self.actions_path())? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(key) = name.and_then(|name| name.strip_suffix(".json")?.parse().ok()) else { continue };
            let used = fs::metadata(&path).and_then(|metadata| metadata.modified()).at("read", &path)?;
            actions.push((key, used));
        }
        Ok(actions)
    }
}
