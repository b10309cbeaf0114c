//! Runs one stage on a thread of its own, under the lock of its key, and moves its files into the store.
//! Knows nothing of the graph, nor of the other nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use super::records::records;
use crate::error::Result;
use crate::hub::{self, HubCache};
use crate::inputs::guarded;
use crate::measurements::{Measurements, Source, Tell};
use crate::origin::Origin;
use crate::plan::share_policy;
use crate::recipe::Recipe;
use crate::share::{LocalRecords, Share};
use crate::stage::{self, BackendKind, Console, Counted, Environment, Inputs, Stage, WorkerProgram};
use crate::store::{Action, LocalStore, RecordOrigin, Stat, hash_files, is_content, owned_file};
use artifact::{Artifact, Digest, FileEntry, IoError, Made, Output, Tick};

/// The longest file of an earlier measurement that is read, in bytes.
const LONGEST_RESULT: u64 = 1 << 30;

/// What the thread of a stage returns.
pub(crate) struct Executed {
    pub(crate) artifact: Artifact,
    pub(crate) stats: Vec<(Stat, Digest)>,
    /// How long it took, in seconds; `None` if another process ran it meanwhile.
    pub(crate) seconds: Option<f64>,
    pub(crate) warnings: Vec<String>,
    /// What a benchmark measured.
    pub(crate) counted: Counted,
    /// Why the node fails although the artifact was made.
    pub(crate) failure: Option<String>,
}

/// What a thread needs to run a stage.
pub(crate) struct Task {
    pub(crate) stage: Stage,
    pub(crate) inputs: Inputs,
    pub(crate) recipe: Recipe,
    pub(crate) source_files: Option<Artifact>,
    /// The source, if it is on the hub.
    pub(crate) download: Option<Download>,
    /// Whether to run it although it is recorded: the build was forced, or recorded files are damaged or
    /// gone.
    pub(crate) rerun: bool,
    /// Whether the build was forced.
    pub(crate) forced: bool,
}

/// Who is told what happens in a stage.
#[derive(Clone, Copy)]
pub(crate) struct Listeners<'a> {
    pub(crate) tick: Tick<'a>,
    pub(crate) tell: Tell<'a>,
    /// Gets each line that a command writes.
    pub(crate) line: &'a dyn Fn(&str),
}

/// A source on the hub.
pub(crate) struct Download {
    pub(crate) cache: HubCache,
    pub(crate) origin: Origin,
    /// The reproducible digest of its files, if the lock has it.
    pub(crate) content: Option<Digest>,
}

/// Runs one stage and stores its artifact, under the lock of its key.
pub(crate) fn execute(
    task: &Task,
    store: &LocalStore,
    believed: LocalRecords<'_>,
    share: Option<&Share>,
    (backend, worker): (BackendKind, &WorkerProgram),
    Listeners { tick, tell, line }: Listeners<'_>,
) -> Result<Executed> {
    let key = task.recipe.key();
    let _lock = store.lock(&key, &|| tick(0, 0))?;
    if !task.rerun
        && let Some(action) = believed.get(&key, &share_policy(&task.stage))
        && task.stage.check_volatile(&action.artifact).is_ok()
        && task.is_stored(store, &action.artifact)
    {
        return Ok(Executed {
            artifact: action.artifact,
            stats: Vec::new(),
            seconds: None,
            warnings: Vec::new(),
            counted: Counted::default(),
            failure: action.failure,
        });
    }
    let start = Instant::now();
    let downloaded = task.download.as_ref().map(|download| download.run(tick)).transpose()?;
    let folder = store.output_folder(&key)?;
    let output = Output::new(folder.clone());
    let mut inputs = task.inputs.clone();
    inputs.measured = task.measured(store, believed, share, tick).unwrap_or_default();
    let known = Source::Known { share, tick, forced: task.forced };
    let host = Measurements::new(store, &task.recipe, known, tell);
    let _locks = host.lock(tick)?;
    let log = task.log(store, &key)?;
    let environment =
        Environment { backend, worker, host: &host, console: Console { log: log.as_deref(), line } };
    let counted = guarded(store, &task.stage, &inputs, || {
        stage::run(&task.stage, &inputs, &output, &environment, tick)
    })?;
    host.finish()?;
    let Made { artifact: made, warnings, failure, tool } = output.finish();
    // Until the record is written, only this lock tells the collector that the contents are needed.
    let gc_lock = store.gc_lock()?;
    let is_new = |file: &&FileEntry| !store.object_path(&file.digest).exists();
    let new: Vec<_> = made.files().iter().filter(is_new).cloned().collect();
    let (artifact, stats) = match (downloaded, &task.source_files) {
        (Some(downloaded), _) => downloaded,
        (None, Some(source_files)) if task.stage.is_reference() => (source_files.clone(), Vec::new()),
        _ => {
            let stats = store.put_files(&folder, &made)?;
            (made, stats)
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let recipe = serde_json::to_value(&task.recipe).expect("BUG: a recipe has a JSON form");
    let action = Action { artifact: artifact.clone(), failure: failure.clone(), recipe, seconds, tool };
    let mut records = records(&task.recipe, action).into_iter();
    let recorded = records.try_for_each(|(key, action)| store.put_record(&key, &action, RecordOrigin::Here));
    if let Err(error) = recorded {
        // The disk may be full: what no record names is not left on it.
        store.forget(&new);
        return Err(error.into());
    }
    drop(gc_lock);
    Ok(Executed { artifact, stats, seconds: Some(seconds), warnings, counted, failure })
}

impl Task {
    /// Returns the file that the output of a command goes to.
    fn log(&self, store: &LocalStore, key: &Digest) -> Result<Option<PathBuf>, IoError> {
        matches!(self.stage, Stage::Run(_)).then(|| store.log_file(key)).transpose()
    }

    /// Whether the files of an artifact that somebody else recorded meanwhile are really in the store. A source
    /// is not stored.
    fn is_stored(&self, store: &LocalStore, artifact: &Artifact) -> bool {
        let is_there = |file: &FileEntry| is_content(&store.object_path(&file.digest), &file.digest);
        self.stage.is_reference() || artifact.files().iter().all(is_there)
    }

    /// Returns the files of an earlier benchmark with the same measurement but other gates or verdicts, by
    /// name. It ran here or on another machine of the same class. Returns `None` if there is none, or if one
    /// of the files is gone or damaged.
    fn measured(
        &self,
        store: &LocalStore,
        believed: LocalRecords<'_>,
        share: Option<&Share>,
        tick: Tick<'_>,
    ) -> Option<BTreeMap<String, Vec<u8>>> {
        if self.rerun || self.forced {
            return None;
        }
        let (key, policy) = (self.recipe.measurement()?.key(), share_policy(&self.stage));
        let theirs = || {
            let action = share?.record(&key, &policy)?;
            share?.pull(store, &action.artifact, tick).ok().map(|_| action)
        };
        let action = believed.get(&key, &policy).or_else(theirs)?;
        self.stage.check_volatile(&action.artifact).ok()?;
        let read = |file: &FileEntry| {
            let bytes = owned_file::read(&store.object_path(&file.digest), LONGEST_RESULT).ok()?;
            (Digest::of(&bytes) == file.digest).then(|| (file.path.clone(), bytes))
        };
        action.artifact.files().iter().map(read).collect()
    }
}

impl Download {
    /// Downloads the files. The artifact lists the files of the commit, not all files in the folder, because
    /// other programs download into it too.
    fn run(&self, tick: Tick<'_>) -> Result<(Artifact, Vec<(Stat, Digest)>)> {
        let Self { cache, origin, content } = self;
        let folder = cache.snapshot(origin);
        // If the files that are here match the lock, the hub is not asked. So a build works on a machine
        // without a network.
        if let Some(content) = content
            && let Ok(found) = hash_files(&folder, &hub::present(cache, origin))
            && found.0.reproducible_digest() == *content
        {
            return Ok(found);
        }
        hash_files(&folder, &hub::download(cache, origin, tick)?)
    }
}
