//! Opens a project: reads and checks the pipeline file, finds the cache and the sources. Nothing is written.
//! Knows nothing of what is then done with it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::workers::Workers;
use super::{ARTIFACTS, MANIFEST_FORMAT, Project, text_file, usage};
use crate::error::{Result, require};
use crate::graph::Graph;
use crate::manifest::{self, DEFAULT_DIR, Manifest, TrustedKey};
use crate::sources::Sources;
use crate::stage::WorkerProgram;
use crate::store::{ArtifactsDir, LocalState, LocalStore, Stat};
use crate::{Error, paths};
use text::yaml::Problem;

/// Where a project is.
#[derive(Clone, Debug)]
pub struct ProjectPath {
    /// The folder that `file` is relative to; if `None`, the current one.
    pub folder: Option<PathBuf>,
    /// The pipeline file.
    pub file: PathBuf,
    /// A file with the keys that are trusted, relative to the current folder. They come before those in the
    /// pipeline file, which a change under review may have edited.
    pub trusted_keys: Option<PathBuf>,
}

impl ProjectPath {
    /// Returns the path of the project whose `pipeline.yaml` is in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), file: PathBuf::from("pipeline.yaml"), trusted_keys: None }
    }

    /// Returns the path of the pipeline file as the user would write it.
    pub fn path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(|| self.file.clone(), |folder| folder.join(&self.file))
    }

    /// Creates the default cache and `artifacts/`, which git is told to ignore.
    ///
    /// # Errors
    /// Fails if one of them cannot be written, or if there is something else.
    pub fn make_folders(&self) -> Result<()> {
        let root = self.root();
        LocalStore::new(root.join(DEFAULT_DIR)).make_folders()?;
        ArtifactsDir::new(root.join(ARTIFACTS)).prepare()
    }

    /// Returns the folder of the pipeline file.
    pub(super) fn root(&self) -> PathBuf {
        self.path().parent().map_or_else(PathBuf::new, Path::to_owned)
    }
}

impl Project {
    /// Opens the project at `path` and checks its pipeline file. Nothing is written.
    ///
    /// # Errors
    /// Fails if the pipeline file cannot be read or is wrong, if a source contains the cache or `artifacts/` or
    /// lies in them, if the cache may not be used, or if sources on the hub, or sources that are not here, need
    /// a lock that cannot be read.
    pub fn open(path: &ProjectPath) -> Result<Self> {
        let trusted_keys = path.trusted_keys.clone();
        let (root, path) = (path.root(), path.path());
        require!(
            path.extension().is_none_or(|extension| extension != "lock"),
            Usage,
            "{} is the name of a lock; a pipeline file has another",
            path.display()
        );
        let (opened, stat) = (SystemTime::now(), Stat::at(&path));
        let text = text_file::read(&path).map_err(|error| {
            let hint = "`pipeline init` writes one, -C and -f name another";
            Error::Usage(format!("cannot read {}: {error}; {hint}", path.display()))
        })?;
        // The local state is in the cache, and the pipeline file says where the cache is. So the default
        // place is tried first.
        let default = LocalStore::new(root.join(DEFAULT_DIR));
        let mut state = LocalState::load(&default.state_path(), default.secret());
        let manifest = match remembered(&state, &text) {
            Some(manifest) => manifest,
            None => Manifest::parse(&text).map_err(|problem| usage(&problem, &path, &text))?,
        };
        let mut cache = manifest.cache.clone();
        if let Some(file) = &trusted_keys {
            cache.trusted_keys = read_keys(file)?;
        }
        let store = if cache.dir == DEFAULT_DIR { default } else { store_in(&root, &cache.dir, &path)? };
        store.check_folder()?;
        if cache.dir != DEFAULT_DIR {
            state = LocalState::load(&store.state_path(), store.secret());
        }
        remember(&mut state, &text, &manifest);
        if let Ok(stat) = stat {
            state.stats.log(&path, stat);
        }
        let workers = Workers::read(&manifest.workers)?;
        let graph = Graph::check(manifest).map_err(|problem| usage(&problem, &path, &text))?;
        let artifacts_dir = ArtifactsDir::new(root.join(ARTIFACTS));
        artifacts_dir.check()?;
        let outputs = [store.root().to_owned(), root.join(ARTIFACTS)];
        let sources = Sources::new(root.clone(), &graph, &outputs);
        let sources = sources.map_err(|problem| usage(&problem, &path, &text))?;
        let worker = WorkerProgram::default();
        let mut project = Self {
            root,
            path,
            text,
            cache,
            graph,
            sources,
            store,
            artifacts_dir,
            state,
            keys_are_given: trusted_keys.is_some(),
            believed: None,
            share: None,
            worker,
            workers,
            opened,
        };
        project.graph.read_environment(&|name| std::env::var(name).ok());
        project.use_locked_sources()?;
        Ok(project)
    }

    /// Takes the commits of the sources on the hub, and what is known of sources that are not here, from the
    /// lock. If all sources are here, the lock is not read.
    fn use_locked_sources(&mut self) -> Result<()> {
        let Self { graph, sources, .. } = self;
        let mut ids = graph.order().iter().copied();
        if ids.any(|id| sources.unresolved(graph, id).is_some() || sources.missing(graph, id).is_some()) {
            let lock = self.lockfile()?;
            self.sources.use_locked(&self.graph, &lock);
        }
        Ok(())
    }
}

/// Returns the cache in the folder that `cache.dir` of the pipeline file names.
fn store_in(root: &Path, dir: &str, file: &Path) -> Result<LocalStore> {
    let dir = paths::expand(dir);
    let dir = dir.map_err(|error| Error::Usage(format!("{}: `cache.dir`: {error}", file.display())))?;
    Ok(LocalStore::new(root.join(dir)))
}

/// Reads a file of trusted keys: a mapping as in `cache: {trusted_keys: …}`. Nothing of it is quoted, because it
/// may be a file that holds something else.
fn read_keys(file: &Path) -> Result<Vec<TrustedKey>> {
    let wrong = |problem: String| Error::Usage(format!("the trusted keys in {}: {problem}", file.display()));
    let text = text_file::read(file).map_err(|error| wrong(error.to_string()))?;
    manifest::read_trusted_keys(&text).map_err(|Problem { at, .. }| {
        let form = "a mapping of names to keys, as `cache: {trusted_keys: …}` in pipeline.yaml";
        wrong(format!("line {} is not part of {form}", at.line))
    })
}

fn text_digest(text: &str) -> artifact::Digest {
    artifact::Digest::of(&[&MANIFEST_FORMAT.to_le_bytes(), text.as_bytes()].concat())
}

/// Returns the manifest that was kept for `text`. Parsing ten thousand nodes of YAML takes longer than
/// everything else in a build that has nothing to do. The manifest depends on the text alone, so the local
/// state keeps it.
fn remembered(state: &LocalState, text: &str) -> Option<Manifest> {
    Manifest::from_bytes(state.manifest(&text_digest(text))?)
}

fn remember(state: &mut LocalState, text: &str, manifest: &Manifest) {
    let digest = text_digest(text);
    if state.manifest(&digest).is_none()
        && let Some(bytes) = manifest.to_bytes()
    {
        state.set_manifest(digest, bytes);
    }
}
