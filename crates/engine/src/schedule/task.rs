//! One stage on a thread of its own: run under the lock of its key, its files taken into the store.
//! Knows nothing of the graph, nor of the other nodes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use super::records::records;
use crate::error::Result;
use crate::graph::NodeId;
use crate::hub::{self, HubCache};
use crate::origin::Origin;
use crate::recipe::Recipe;
use crate::share::{Share, SharePolicy};
use crate::stage::{self, Environment, Inputs, Stage};
use crate::store::{Action, LocalStore, Stat, hash_files};
use artifact::{Artifact, Digest, FileEntry, Made, Output, Tick};

/// What the thread of a stage hands back.
pub(super) struct Executed {
    pub(super) artifact: Artifact,
    pub(super) stats: Vec<(Stat, Digest)>,
    /// None if another process had run it meanwhile.
    pub(super) seconds: Option<f64>,
    pub(super) warnings: Vec<String>,
    /// Why the node fails although the artifact was made.
    pub(super) failure: Option<String>,
}

/// A stage on its way to a thread.
pub(super) struct Task {
    pub(super) id: NodeId,
    pub(super) stage: Stage,
    pub(super) inputs: Inputs,
    pub(super) recipe: Recipe,
    pub(super) source_files: Option<Artifact>,
    /// The source, if it is on the hub.
    pub(super) download: Option<Download>,
    /// Run it although a record of it exists: the user said so, or what the record names is damaged.
    pub(super) rerun: bool,
    /// The user said so.
    pub(super) forced: bool,
}

/// A source on the hub.
pub(super) struct Download {
    pub(super) cache: HubCache,
    pub(super) origin: Origin,
    /// What the lock says that its files are.
    pub(super) content: Option<Digest>,
}

/// Runs one stage and stores what it made, under the lock of its key.
pub(super) fn execute(
    task: &Task,
    store: &LocalStore,
    share: Option<&Share>,
    environment: &Environment<'_>,
    tick: Tick<'_>,
) -> Result<Executed> {
    let key = task.recipe.key();
    let _lock = store.lock(&key, &|| tick(0, 0))?;
    if !task.rerun
        && let Some(action) = store.action(&key)
    {
        return Ok(Executed {
            artifact: action.artifact,
            stats: Vec::new(),
            seconds: None,
            warnings: Vec::new(),
            failure: action.failure,
        });
    }
    let start = Instant::now();
    let downloaded = task.download.as_ref().map(|download| download.run(tick)).transpose()?;
    let folder = store.output_folder(&key)?;
    let output = Output::new(folder.clone());
    let mut inputs = task.inputs.clone();
    inputs.measured = task.measured(store, share, tick).unwrap_or_default();
    stage::run(&task.stage, &inputs, &output, environment, tick)?;
    let Made { artifact: made, warnings, failure } = output.finish();
    // Until the record is written nothing tells the collector that the contents are needed.
    let hold = store.gc_lock()?;
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
    let action = Action { artifact: artifact.clone(), failure: failure.clone(), recipe, seconds };
    for (key, action) in records(&task.recipe, action) {
        store.put_record(&key, &action)?;
    }
    drop(hold);
    Ok(Executed { artifact, stats, seconds: Some(seconds), warnings, failure })
}

impl Task {
    /// Returns the files of an earlier run, here or on a teammate's machine of the same class, that measured the same
    /// and asked something else; none if there is none, or one of them is gone or damaged.
    fn measured(
        &self,
        store: &LocalStore,
        share: Option<&Share>,
        tick: Tick<'_>,
    ) -> Option<BTreeMap<String, Vec<u8>>> {
        if self.rerun || self.forced {
            return None;
        }
        let key = self.recipe.measurement()?.key();
        let theirs = || {
            let action = share?.record(&key, SharePolicy::Measured)?;
            share?.pull(store, &action.artifact, tick).ok().map(|_| action)
        };
        let action = store.action(&key).or_else(theirs)?;
        let read = |file: &FileEntry| {
            let bytes = fs::read(store.object_path(&file.digest)).ok()?;
            (Digest::of(&bytes) == file.digest).then(|| (file.path.clone(), bytes))
        };
        action.artifact.files().iter().map(read).collect()
    }
}

impl Download {
    /// Brings the files to this machine. The artifact is what the commit has, not what lies in the folder: other
    /// programs download into it too.
    fn run(&self, tick: Tick<'_>) -> Result<(Artifact, Vec<(Stat, Digest)>)> {
        let Self { cache, origin, content } = self;
        let folder = cache.snapshot(origin);
        // What is there and is what the lock says needs no list from the hub: a build on a machine without a network.
        if let Some(content) = content
            && let Ok(found) = hash_files(&folder, &hub::present(cache, origin))
            && found.0.reproducible_digest() == *content
        {
            return Ok(found);
        }
        hash_files(&folder, &hub::download(cache, origin, tick)?)
    }
}
