//! The other end of a request: a worker brings its inputs by their digests, runs the stage, and sends what it made, the
//! record last.
//! Knows nothing of the graph: the pipeline file here only says where the cache is and who is trusted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Project, RemoteChoice};
use crate::error::{Context, OrBug, Result, fail, require};
use crate::executor::Heard;
use crate::plan::share_policy;
use crate::recipe::Recipe;
use crate::request::{Ending, OUTCOMES, REQUEST_TYPE, REQUESTS, WorkOutcome, WorkRequest};
use crate::schedule::{self, Listeners, MaySign, Task, execute};
use crate::share::{LocalRecords, Share, Unread};
use crate::stage::{BackendKind, Device, InputFile, Inputs, Measuring, Quoting, Stage};
use crate::store::{Action, LocalStore, Slot};
use crate::{Error, inputs, machine, paths};
use artifact::{Artifact, AtPath, Digest, ErrorKind, FileEntry, Interrupted, in_one_line};
use text::without_password;

/// How long a signal may be on its way to this process when another has felt it.
const SIGNAL_ON_ITS_WAY: Duration = Duration::from_millis(300);

/// What a worker is started with.
#[derive(Debug)]
pub struct WorkOptions<'a> {
    /// The key of what it makes.
    pub key: Digest,
    /// What the attempt is called.
    pub attempt: String,
    /// How many jobs run on this machine at once; `None` if that is decided elsewhere.
    pub slots: Option<usize>,
    /// The remote.
    pub remote: RemoteChoice,
    /// The caller sets this flag to stop it.
    pub cancel: &'a AtomicBool,
}

/// Hears what a worker does.
pub trait WorkListener: Sync {
    /// Hears one thing.
    fn heard(&self, heard: Heard);
}

/// What a worker has made.
struct Done {
    seconds: Option<f64>,
    warnings: Vec<String>,
}

impl Project {
    /// Does what the request for a key asks for. How it ended is in the remote too, signed with the key of this machine.
    ///
    /// # Errors
    /// Fails if there is no remote or no signing key, if the remote has no request for the key that a trusted key signed,
    /// if the outcome cannot be written, or if it is asked to stop. A stage that fails is an outcome.
    pub fn work(&mut self, options: &WorkOptions<'_>, listener: &dyn WorkListener) -> Result<WorkOutcome> {
        self.must_connect(&options.remote)?;
        let share = self.share.take().or_bug("the remote is connected")?;
        let worked = self.work_with(&share, options, listener);
        self.share = Some(share);
        self.save_state();
        self.store.finish()?;
        worked
    }

    fn work_with(
        &mut self,
        share: &Share,
        options: &WorkOptions<'_>,
        listener: &dyn WorkListener,
    ) -> Result<WorkOutcome> {
        let key = options.key;
        require!(
            share.own_key().is_some(),
            Key,
            "this machine has no signing key; `pipeline keys init` makes one, and the `trusted_keys` of the project must name it"
        );
        let request = read_request(share, &key)?;
        let (warnings, ending) = match self.make(&request, share, options, listener) {
            Ok(Done { seconds, warnings }) => (warnings, Ending::Made { seconds }),
            Err(error) if error.is_interrupted() => return Err(error),
            Err(_) if is_stopping(options.cancel) => return Err(Interrupted.into()),
            Err(error) => {
                let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
                let is_of_machine = error.kind() == ErrorKind::System;
                (Vec::new(), Ending::Failed { error: in_one_line(&error) + &hint, is_of_machine })
            }
        };
        let (attempt, machine) = (options.attempt.clone(), machine::class().to_owned());
        let outcome = WorkOutcome { key, attempt, host: machine::name(), machine, ending, warnings };
        share.put_text(OUTCOMES, &key, WorkOutcome::TYPE, outcome.to_json())?;
        Ok(outcome)
    }

    fn make(
        &mut self,
        request: &WorkRequest,
        share: &Share,
        options: &WorkOptions<'_>,
        listener: &dyn WorkListener,
    ) -> Result<Done> {
        let (recipe, stage) = (request.recipe()?, request.stage()?);
        let backend = backend_of(&stage, recipe.backend())?;
        let is_it =
            |action: &Action| Recipe::read(&action.recipe).is_some_and(|recipe| recipe.key() == request.key);
        if !request.again
            && share.record(&request.key, &share_policy(&stage)).is_some_and(|action| is_it(&action))
        {
            return Ok(Done { seconds: None, warnings: Vec::new() });
        }
        self.store.prepare()?;
        let stop = || if options.cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) };
        let waiting = || {
            listener.heard(Heard::Waits("another job runs there".to_owned()));
            stop()
        };
        let _slot = options.slots.map(|count| Slot::take(count, &waiting)).transpose()?;
        listener.heard(Heard::Begins);
        let inputs = self.gather(request, share, &stage, &|_, _| stop())?;
        let task = Task {
            inputs,
            recipe,
            source_files: None,
            download: None,
            rerun: request.again,
            forced: request.again,
            stage,
        };
        let tick = |done, total| {
            listener.heard(Heard::Progress { done, total });
            stop()
        };
        let tell = |measuring: &Measuring| {
            listener.heard(Heard::Measuring(measuring.clone()));
            stop()
        };
        let line = |line: &str| listener.heard(Heard::Said(line.to_owned()));
        let listeners = Listeners { tick: &tick, tell: &tell, line: &line };
        let (store, worker) = (&self.store, &self.worker);
        let records = LocalRecords::new(store, None);
        let made = execute(&task, store, records, Some(share), (backend, worker), listeners)?;
        if request.again {
            // What the remote had of it may be damaged.
            share.distrust_contents();
        }
        let may_sign = MaySign::This(&made.artifact);
        schedule::send(share, store, &request.key, may_sign, None, &|_, _| stop())?;
        Ok(Done { seconds: made.seconds, warnings: made.warnings })
    }

    /// Brings the inputs of a request here, and returns them as the stage takes them.
    fn gather(
        &mut self,
        request: &WorkRequest,
        share: &Share,
        stage: &Stage,
        tick: artifact::Tick<'_>,
    ) -> Result<Inputs> {
        self.bring(request, share, tick)?;
        let store = &self.store;
        let scratch = store.workspace();
        let object = |file: &FileEntry| store.object_path(&file.digest);
        let (mut folders, mut files) = (BTreeMap::new(), Vec::new());
        for (number, (role, given)) in request.inputs.iter().enumerate() {
            let meant = Artifact::new(given.files().cloned().collect());
            let root =
                inputs::link_all(&meant, paths::absolute(&scratch.join(format!("{number}.input"))), &object)?;
            let only = given.artifact.files().first().filter(|_| given.is_file).map(|file| &file.path);
            let folder = given.path.as_ref().or(only).map_or_else(|| root.clone(), |path| root.join(path));
            for file in given.part().files() {
                let path = if folder.is_dir() { folder.join(&file.path) } else { folder.clone() };
                files.push(InputFile {
                    role: role.clone(),
                    name: file.path.clone(),
                    path,
                    digest: file.digest,
                });
            }
            folders.insert(role.clone(), folder);
        }
        let mut source = None;
        if let Some(given) = &request.source {
            let folder = paths::absolute(&scratch.join("source"));
            given.artifact.files().iter().try_for_each(|file| put(store, file, &folder).map(drop))?;
            source = Some(folder.join(&given.name));
        }
        let folder = paths::absolute(&scratch.join("project"));
        let mut project_files = BTreeMap::new();
        for (name, file) in &request.project_files {
            project_files.insert(name.clone(), (put(store, file, &folder)?, file.digest));
        }
        let has_program = stage.project_program().is_some_and(|program| project_files.contains_key(&program));
        Ok(Inputs {
            folders,
            source,
            quoting: if request.may_quote { Quoting::Allowed } else { Quoting::Forbidden },
            origin: request.recipe()?.origin().cloned().map(Into::into),
            about: request.about.clone(),
            asked_by: Some(request.asked_by.clone()),
            root: if has_program { folder } else { paths::absolute(&self.root) },
            files: if matches!(stage, Stage::Run(_)) { files } else { Vec::new() },
            project_files,
            ..Inputs::default()
        })
    }

    /// Fetches the contents of a request that are not here.
    fn bring(&mut self, request: &WorkRequest, share: &Share, tick: artifact::Tick<'_>) -> Result<()> {
        let mut lacking = BTreeMap::new();
        for file in request.files() {
            if self.store.check(file, &mut self.state.stats).is_err() {
                lacking.insert(file.digest, file.clone());
            }
        }
        // Each content once, whatever it is called.
        let named = lacking.into_values().enumerate().map(|(number, file)| {
            let extension = Path::new(&file.path).extension().map(|end| end.to_string_lossy().into_owned());
            let end = extension.map_or_else(String::new, |end| format!(".{end}"));
            FileEntry { path: format!("{number}{end}"), ..file }
        });
        let lacking = Artifact::new(named.collect());
        let pulled = share.pull(&self.store, &lacking, tick);
        for (stat, digest) in
            pulled.map_err(miss).within(|| "its inputs cannot be brought here".to_owned())?
        {
            self.state.stats.remember(stat, digest);
        }
        Ok(())
    }
}

/// Whether somebody asks to stop. A signal that ends all of a job may be felt by its parts first.
fn is_stopping(cancel: &AtomicBool) -> bool {
    let start = Instant::now();
    while !cancel.load(Ordering::Relaxed) && start.elapsed() < SIGNAL_ON_ITS_WAY {
        thread::sleep(Duration::from_millis(10));
    }
    cancel.load(Ordering::Relaxed)
}

/// Reads the request for a key, which a trusted key must have signed.
fn read_request(share: &Share, key: &Digest) -> Result<WorkRequest> {
    match share.text(REQUESTS, key, REQUEST_TYPE) {
        Ok(Some((text, _))) => WorkRequest::parse(&text, key),
        Ok(None) => fail!(
            NotBuilt,
            "the remote {} has no request for {key}; the machine that wants it sends it, to the same remote: see `remote` of the \
             worker there",
            without_password(share.url())
        ),
        Err(Unread::Down(error)) => Err(error.into()),
        Err(Unread::NotBelieved(problem)) => fail!(
            Key,
            "the request for {} is not believed: {problem}; the `trusted_keys` of this machine's project must name the key of who asks",
            key.short()
        ),
    }
}

/// Returns the backend for the weights of a stage, which must be one of this machine.
fn backend_of(stage: &Stage, id: &str) -> Result<BackendKind> {
    let kinds = [BackendKind::Cpu, BackendKind::Mlx];
    let found = kinds.into_iter().find(|kind| stage.backend(*kind) == id);
    let is_elsewhere =
        matches!(stage, Stage::Benchmark(benchmark) if benchmark.runs_on == Device::MlxElsewhere);
    let Some(kind) = found.filter(|_| !is_elsewhere) else {
        fail!(Source, "it is for `{}`, which this machine does not have", text::shown(id));
    };
    Ok(kind)
}

/// Copies a content to its place below `folder`. A command may start it.
fn put(store: &LocalStore, file: &FileEntry, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(&file.path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).at("create", parent)?;
    fs::copy(store.object_path(&file.digest), &path).at("write", &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("write", &path)?;
    Ok(path)
}

fn miss(miss: crate::share::Miss) -> Error {
    use crate::share::Miss;
    match miss {
        Miss::Interrupted(interrupted) => Error::Interrupted(interrupted),
        Miss::Down(error) => Error::Remote(error),
        Miss::LocalIo(error) => error,
        Miss::Lost(problem) => Error::NotBuilt(problem),
    }
}
