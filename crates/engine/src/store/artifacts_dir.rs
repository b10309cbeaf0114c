//! The `artifacts/` folder: a name per node, which links to a hashed folder of read-only links into the
//! store. Tells whether such a folder is unchanged.
//! Knows nothing of what a node is.

use std::borrow::Cow;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{is_content, list, move_file, remove};
use super::{LocalStore, Stat, StatCache, cache_folder, file_system};
use crate::Error;
use crate::error::{Result, fail};
use crate::paths;
use artifact::{Artifact, AtPath, Digest, IoError};

/// The `artifacts/` folder.
#[derive(Debug)]
pub struct ArtifactsDir {
    root: PathBuf,
}

/// What is in `artifacts/` under a node's name, compared with what should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactState {
    /// The name points at the artifact, and every file is as it was linked.
    InPlace,
    /// There is no such name, or it points at another artifact.
    Absent,
    /// A file was changed, added or removed by hand; the path is relative to the artifact.
    Edited(String),
}

impl ArtifactsDir {
    /// Sets the folder. Nothing is read or created yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates the folder if it is missing, keeps it out of git, and checks that it can hold symbolic links.
    ///
    /// # Errors
    /// Fails if the folder cannot be written, or if its file system has no symbolic links.
    pub fn prepare(&self) -> Result<()> {
        self.check()?;
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        cache_folder::ignore_in_git(&self.root);
        let probe = self.root.join(format!(".link-{}", std::process::id()));
        let made = symlink("nowhere", &probe);
        let _ = fs::remove_file(&probe);
        match made {
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                Err(Error::NoLinks { path: self.root.clone(), error })
            }
            made => Ok(made.at("link", &probe)?),
        }
    }

    /// Checks that the folder is no link that came with the checkout.
    ///
    /// # Errors
    /// Fails if it is a link and git tracks it.
    pub fn check(&self) -> Result<()> {
        cache_folder::check_artifacts(&self.root)
    }

    /// Returns the folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the hashed folder of `artifact` of the node `name`, such as `artifacts/8bit-3fa9c1d2e4b7`.
    pub fn folder(&self, name: &str, artifact: &Artifact) -> PathBuf {
        self.root.join(hashed_name(name, artifact))
    }

    /// Logs the state of the folder itself, which changes when a name in it is pointed elsewhere.
    pub fn observe(&self, stats: &mut StatCache) {
        // If there is no folder, there are no links in it either, and each link is checked on its own.
        let _ = stats.observe(&self.root);
    }

    /// Compares what is under `name` with `artifact`.
    pub fn state(&self, name: &str, artifact: &Artifact, stats: &mut StatCache) -> ArtifactState {
        let hashed = hashed_name(name, artifact);
        if fs::read_link(self.root.join(name)).ok().as_deref() != Some(Path::new(&hashed)) {
            return ArtifactState::Absent;
        }
        let folder = self.root.join(hashed);
        if folder.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            return ArtifactState::Absent;
        }
        find_edited(&folder, artifact, stats).map_or(ArtifactState::InPlace, ArtifactState::Edited)
    }

    /// Puts `artifact` under `name`, with links into `store`, which must have all its files.
    ///
    /// # Errors
    /// Fails if a file is missing from the store, if the folder cannot be written, or if something that is
    /// not a link has this name.
    pub fn put(
        &self,
        name: &str,
        artifact: &Artifact,
        store: &LocalStore,
        stats: &mut StatCache,
    ) -> Result<()> {
        let _gc_lock = store.gc_lock()?;
        let folder = self.folder(name, artifact);
        if self.state(name, artifact, stats) == ArtifactState::InPlace {
            return Ok(());
        }
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        let unfinished = store.workspace().join(hashed_name(name, artifact));
        remove(&unfinished)?;
        fs::create_dir(&unfinished).at("create", &unfinished)?;
        for file in artifact.files() {
            link(&store.object_path(&file.digest), &unfinished.join(&file.path), file.digest, stats)?;
        }
        self.replace_folder(&unfinished, &folder, artifact, store, stats)?;
        self.link(name, Path::new(&hashed_name(name, artifact)), store)
    }

    /// Makes `name` point at `target`: a folder beside it, or a source.
    ///
    /// # Errors
    /// Fails if the folder cannot be written, or if something that is not a link has this name.
    pub fn link(&self, name: &str, target: &Path, store: &LocalStore) -> Result<()> {
        let path = self.root.join(name);
        let target = &*self.reachable(target);
        if fs::read_link(&path).is_ok_and(|current| current == target) {
            return Ok(());
        }
        fs::create_dir_all(&self.root).at("create", &self.root)?;
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_symlink()) {
            fail!(Store, "{} is not a link of ours; move it away, it is the name of a node", path.display());
        }
        let unfinished = store.workspace().join(format!("{name}.link"));
        remove(&unfinished)?;
        symlink(target, &unfinished).at("link", &unfinished)?;
        let linked = fs::rename(&unfinished, &path).or_else(|error| match error.kind() {
            ErrorKind::CrossesDevices => {
                fs::remove_file(&path).or(Ok(())).and_then(|()| symlink(target, &path))
            }
            _ => Err(error),
        });
        Ok(linked.at("link", &path)?)
    }

    /// Removes the link `name` if it does not point at `artifact`. It is called when the files of `artifact`
    /// are not here, so that the name does not point at an old artifact.
    ///
    /// # Errors
    /// Fails if the link cannot be removed.
    pub fn unlink(&self, name: &str, artifact: &Artifact) -> Result<(), IoError> {
        let path = self.root.join(name);
        match fs::read_link(&path) {
            Ok(target) if target != Path::new(&hashed_name(name, artifact)) => {
                fs::remove_file(&path).at("remove", &path)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether `name` points at `target`.
    pub fn links_to(&self, name: &str, target: &Path) -> bool {
        fs::read_link(self.root.join(name)).is_ok_and(|current| current == self.reachable(target))
    }

    /// Returns the target of a link in the folder. If the folder is itself a link to another place, `..` does
    /// not lead to the project there, so such a target is made absolute.
    fn reachable<'t>(&self, target: &'t Path) -> Cow<'t, Path> {
        let project = || Some(paths::absolute(self.root.parent()?));
        match target.strip_prefix("..").ok().filter(|_| self.root.is_symlink()).zip(project()) {
            Some((inside, project)) => Cow::Owned(project.join(inside)),
            None => Cow::Borrowed(target),
        }
    }

    /// Returns the targets of all names in the folder, as the links have them.
    pub(super) fn targets(&self) -> Result<Vec<String>> {
        let targets = list(&self.root)?.into_iter().filter_map(|path| fs::read_link(path).ok());
        Ok(targets.map(|target| target.to_string_lossy().into_owned()).collect())
    }

    /// Returns our hashed folders that no name points at, each with the digits in its name. A folder with
    /// anything but read-only files in it may be the user's own, and is left out.
    pub(super) fn folders(&self) -> Result<Vec<(PathBuf, String)>> {
        let targets = self.targets()?;
        let mut folders = Vec::new();
        for path in list(&self.root)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(hash) = hash_in(&name).filter(|_| !targets.contains(&name)) else { continue };
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) && is_ours(&path)? {
                folders.push((path, hash));
            }
        }
        Ok(folders)
    }

    /// Removes a hashed folder. A content that was linked into it then has one hard link less. This changes
    /// its state but not its bytes, so the stat cache is updated.
    pub(super) fn discard(
        &self,
        folder: &Path,
        store: &LocalStore,
        stats: &mut StatCache,
    ) -> Result<(), IoError> {
        for path in list(folder)? {
            if fs::symlink_metadata(&path).at("read", &path)?.is_dir() {
                self.discard(&path, store, stats)?;
                continue;
            }
            let before = Stat::at(&path).at("read", &path)?;
            remove(&path)?;
            let object = stats.known(&before).and_then(|digest| Stat::at(&store.object_path(&digest)).ok());
            if let Some(object) = object.filter(|object| object.file() == before.file()) {
                stats.relinked(&before, object);
            }
        }
        remove(folder)
    }

    /// Renames a finished folder into place. If there is an unchanged folder already, it is kept: another
    /// process made the same artifact at the same time, and may be reading it. A folder that was edited is
    /// moved away.
    fn replace_folder(
        &self,
        finished: &Path,
        folder: &Path,
        artifact: &Artifact,
        store: &LocalStore,
        stats: &mut StatCache,
    ) -> Result<(), IoError> {
        if folder.is_symlink() {
            fs::remove_file(folder).at("remove", folder)?;
        }
        let renamed = match fs::rename(finished, folder) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                if find_edited(folder, artifact, stats).is_none() {
                    return remove(finished);
                }
                let old = store.workspace().join("replaced");
                remove(&old)?;
                fs::rename(folder, &old).or_else(|_| fs::remove_dir_all(folder)).at("replace", folder)?;
                remove(&old)?;
                fs::rename(finished, folder)
            }
            renamed => renamed,
        };
        match renamed {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                remove(folder)?;
                move_across(finished, folder)
            }
            renamed => renamed.at("put in place", folder),
        }
    }
}

/// Returns a file that was changed, added or removed by hand, if there is one.
fn find_edited(folder: &Path, artifact: &Artifact, stats: &mut StatCache) -> Option<String> {
    // The folder is observed before its files, so that the state of the folder shows what is done to them in
    // between.
    let now = SystemTime::now();
    let settled = stats.observe(folder).ok().filter(|stat| !stat.is_racy(now));
    let edited = artifact.files().iter().find(|file| {
        let path = folder.join(&file.path);
        !stats.has_own_content(&path, &file.digest, file.size)
    });
    edited.map(|file| file.path.clone()).or_else(|| added_file(folder, settled, artifact, stats))
}

fn hashed_name(name: &str, artifact: &Artifact) -> String {
    format!("{name}-{}", artifact.digest().short())
}

/// Returns the digits at the end of the name of a hashed folder, or `None` for any other name.
pub(super) fn hash_in(name: &str) -> Option<String> {
    let (_, hash) = name.rsplit_once('-')?;
    let hex = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (hex && hash.len() == 12 && !name.contains('/')).then(|| hash.to_owned())
}

fn is_ours(folder: &Path) -> Result<bool> {
    for path in list(folder)? {
        let metadata = fs::symlink_metadata(&path).at("read", &path)?;
        let ours = match metadata.is_dir() {
            true => is_ours(&path)?,
            false => metadata.is_file() && metadata.permissions().mode() & 0o222 == 0,
        };
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns an entry of the folder that the artifact does not have, or that is no longer a file. While the
/// state of a folder is unchanged, the same names are in it. So the stat cache remembers a listing like the
/// content of a file, unless the folder changed too recently for its state to be trusted.
fn added_file(
    folder: &Path,
    settled: Option<Stat>,
    artifact: &Artifact,
    stats: &mut StatCache,
) -> Option<String> {
    let flat = artifact.files().iter().all(|file| !file.path.contains('/'));
    let settled = settled.filter(|_| flat);
    if settled.is_some_and(|stat| stats.known(&stat) == Some(artifact.digest())) {
        return None;
    }
    let added = find_unknown(folder, "", artifact, stats);
    if let Some(stat) = settled
        && added.is_none()
    {
        stats.remember(stat, artifact.digest());
    }
    added
}

fn find_unknown(folder: &Path, prefix: &str, artifact: &Artifact, stats: &mut StatCache) -> Option<String> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let unknown = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                let _ = stats.observe(&entry.path());
                find_unknown(&entry.path(), &format!("{path}/"), artifact, stats)
            }
            Ok(kind) if kind.is_file() && artifact.file(&path).is_some() => None,
            _ => Some(path),
        };
        if unknown.is_some() {
            return unknown;
        }
    }
    None
}

/// Makes `to` a file with the content of `object`, if possible without using space: a clone, else a hard
/// link, else a copy. It is read-only, so that nobody edits it by accident. If the object was not hashed in the
/// state that it is in, it is hashed now: several people may write to a cache.
fn link(object: &Path, to: &Path, digest: Digest, stats: &mut StatCache) -> Result<(), IoError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).at("create", parent)?;
    }
    let before = Stat::of(&fs::symlink_metadata(object).at("read", object)?);
    if stats.known(&before) != Some(digest) && !is_content(object, &digest) {
        let altered = io::Error::new(ErrorKind::InvalidData, "its content is not what its name says");
        return Err(altered).at("use", object);
    }
    if reflink_copy::reflink(object, to).is_err() && fs::hard_link(object, to).is_err() {
        file_system::copy(object, to).at("copy to", to)?;
    }
    file_system::protect(to).at("protect", to)?;
    stats.relinked(&before, Stat::of(&fs::metadata(object).at("read", object)?));
    stats.remember(Stat::of(&fs::metadata(to).at("read", to)?), digest);
    Ok(())
}

/// Moves a folder file by file, which is slow. Used for an `artifacts/` on another file system than the
/// cache.
fn move_across(from: &Path, to: &Path) -> Result<(), IoError> {
    fs::create_dir_all(to).at("create", to)?;
    for entry in fs::read_dir(from).at("read", from)? {
        let entry = entry.at("read", from)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            move_across(&entry.path(), &target)?;
        } else {
            move_file(&entry.path(), &target).at("put in place", &target)?;
            file_system::protect(&target).at("protect", &target)?;
        }
    }
    remove(from)
}
