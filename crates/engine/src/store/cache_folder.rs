//! Whether a folder may be used as the cache: it is one, it is this user's or shared on purpose, git does not
//! track it, and nothing in it is a link. Also makes the folders of a new one.
//! Knows nothing of what is kept in it.
//!
//! What lies in a cache is used without being made again. So whoever fills a cache decides what is used: a
//! cache that came with a checkout, or that another user made, is refused until the user allows it.

use std::fs::{self, Metadata};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use rustix::process::{geteuid, getgid, getgroups};

use super::files::list;
use super::git_index::{self, Tracked};
use super::owned_file;
use super::unfinished::open_to_all;
use crate::Error;
use crate::error::{Result, fail, require};
use artifact::{AtPath, IoError, fold};

/// The environment variable with the caches that are allowed, separated by colons; `*` allows all.
pub const ALLOWED_VARIABLE: &str = "PIPELINE_ALLOWED_CACHES";

/// Marks a folder as a cache, for us and for backup programs: <https://bford.info/cachedir/>.
const MARKER: &str = "CACHEDIR.TAG";

const MARKER_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is a cache of pipeline. It may be removed; `pipeline build` makes again what is missing.\n";

/// The folders in a cache.
pub(super) const FOLDERS: [&str; 8] =
    ["actions", "attestations", "chunks", "jobs", "logs", "measuring", "objects", "tmp"];

/// The beginnings of the names of the files in a cache.
const FILES: [&str; 5] = ["memo", "witness", "stats", "gc.lock", MARKER];

/// What the name of a file goes on with while the file is being written.
const NEW: &str = ".new-";

/// Names that others put into a folder, and that say nothing about what it is.
const STRANGERS: [&str; 5] = [".gitignore", ".gitkeep", "README.md", ".DS_Store", "lost+found"];

/// Checks that the folder at `root` may be used as the cache. A missing folder may.
///
/// # Errors
/// Fails if the folder is not a cache, if another user owns it, if git tracks what is in it, or if a folder
/// in it is a link. The message says how to allow it.
pub(super) fn check(root: &Path) -> Result<()> {
    let metadata = match fs::metadata(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_link = root.is_symlink();
            return match is_link {
                true => Err(Error::Usage(format!("the cache {} is a link to nowhere", root.display()))),
                false => Ok(()),
            };
        }
        metadata => metadata.at("read", root)?,
    };
    if !metadata.is_dir() {
        fail!(Store, "the cache {} is not a folder; `cache: {{dir: …}}` names another", root.display());
    }
    check_names(root)?;
    let problem = foreign(root, &metadata)?;
    match problem.filter(|_| !is_allowed(root)) {
        Some(problem) => Err(Error::Usage(problem)),
        None => Ok(()),
    }
}

/// Checks that the folder has the marker, or nothing in it that is not ours. Nothing in it may be a link.
fn check_names(root: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).at("read", root)? {
        let entry = entry.at("read", root)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_link && is_our_name(&name) {
            let path = entry.path();
            fail!(Usage, "{} is a link, and nothing in a cache is one; remove it", path.display());
        }
        if !is_unfinished(&name) {
            names.push(name);
        }
    }
    // Other programs mark their caches in the same way.
    let marker = owned_file::read(&root.join(MARKER), 4096).unwrap_or_default();
    if marker == MARKER_TEXT.as_bytes() {
        return Ok(());
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let stranger = names.iter().find(|name| !is_our_name(name) && !STRANGERS.contains(&name.as_str()));
    // A cache of an older version has no marker, but always these two.
    let is_older = has("objects") && has("actions");
    let half = names.iter().find(|name| is_our_name(name) && !is_older);
    match stranger.or(half) {
        Some(name) => fail!(
            Usage,
            "{} is not a cache of pipeline: `{name}` is in it; `cache: {{dir: …}}` in pipeline.yaml must name a \
             folder that is empty or not there yet",
            root.display()
        ),
        None => Ok(()),
    }
}

/// Whether `name` is that of a file or folder directly in a cache.
fn is_our_name(name: &str) -> bool {
    FOLDERS.contains(&name) || FILES.iter().any(|file| name.starts_with(file))
}

/// Whether `name` is that of a file that may be written directly in a cache.
pub(super) fn is_known(name: &str) -> bool {
    is_our_name(name) || is_unfinished(name) || STRANGERS.contains(&name)
}

/// Whether `name` is one that a process leaves which is killed while it makes a cache.
fn is_unfinished(name: &str) -> bool {
    let begins = |file: &str| name.strip_prefix(file).is_some_and(|rest| rest.starts_with(NEW));
    begins(MARKER) || begins(".gitignore")
}

/// Returns why what lies in the folder may not be by this user.
fn foreign(root: &Path, metadata: &Metadata) -> Result<Option<String>> {
    let shown = root.display();
    let how = format!(
        "if you trust it, allow it with `pipeline cache allow {shown}`, or set {ALLOWED_VARIABLE}={shown}"
    );
    if !is_own(metadata) && !is_shared(metadata)? {
        let owner = metadata.uid();
        return Ok(Some(format!(
            "the cache {shown} belongs to the user {owner}, who decides what is in it; {how}"
        )));
    }
    let is_ours = |name: &str| {
        let first = name.split('/').next().unwrap_or_default();
        name.is_empty() || FOLDERS.contains(&first) || FILES.iter().any(|file| first.starts_with(&fold(file)))
    };
    // The folder itself, and the link to it, if it is one.
    let whole = root.canonicalize().at("find", root)?;
    let tracked = [whole.as_path(), root].map(|path| git_index::tracked_below(path, &is_ours));
    Ok(tracked.into_iter().find_map(|tracked| match tracked {
        Tracked::Nothing => None,
        Tracked::File(file) => Some(format!(
            "git tracks {}, so what is in the cache came with the checkout and is not trusted; take it out of \
             git with `git rm -r --cached {shown}` and remove it, or {how}",
            root.join(file).display()
        )),
        Tracked::Unknown => Some(format!(
            "the index of git around the cache {shown} cannot be read here, so it is not known whether the cache \
             came with the checkout; {how}"
        )),
    }))
}

/// Checks that `artifacts/` at `root` is no link that came with the checkout.
///
/// # Errors
/// Fails if it is a link and git tracks it.
pub(super) fn check_artifacts(root: &Path) -> Result<()> {
    let tracked = || git_index::tracked_below(root, &str::is_empty) != Tracked::Nothing;
    require!(
        !root.is_symlink() || !tracked(),
        Usage,
        "{} is a link that came with the checkout, so results would be written somewhere else; remove it",
        root.display()
    );
    Ok(())
}

/// Whether this user owns it. For root this is also true of the user who called `sudo`, as in git.
fn is_own(metadata: &Metadata) -> bool {
    let user = geteuid();
    let sudo = || env::var("SUDO_UID").is_ok_and(|uid| uid == metadata.uid().to_string());
    metadata.uid() == user.as_raw() || (user.is_root() && sudo())
}

/// Whether it is shared on purpose with a group of this user: group-writable with the setgid bit.
fn is_shared(metadata: &Metadata) -> Result<bool> {
    if metadata.mode() & 0o2020 != 0o2020 {
        return Ok(false);
    }
    let groups =
        getgroups().map_err(|error| Error::Store(format!("cannot read this user's groups: {error}")))?;
    Ok(groups.into_iter().chain([getgid()]).any(|group| group.as_raw() == metadata.gid()))
}

/// Whether the user has allowed the folder.
fn is_allowed(root: &Path) -> bool {
    let Ok(root) = root.canonicalize() else { return false };
    let variable = env::var(ALLOWED_VARIABLE).unwrap_or_default();
    let file = allowed_file().and_then(|path| owned_file::read(&path, 1 << 20).ok()).unwrap_or_default();
    let file = String::from_utf8_lossy(&file);
    let mut allowed = variable.split(':').chain(file.lines()).filter(|line| !line.is_empty());
    allowed.any(|line| line == "*" || Path::new(line).canonicalize().is_ok_and(|path| path == root))
}

fn allowed_file() -> Option<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| env::home_dir().map(|home| home.join(".config")))?;
    Some(config.join("pipeline/allowed-caches"))
}

/// Allows the cache at `root`, whoever filled it: adds it to the user's list. Returns the path of the list.
///
/// # Errors
/// Fails if the folder does not exist, if the user has no home folder, or if the list cannot be written.
pub fn allow(root: &Path) -> Result<PathBuf> {
    let whole = root.canonicalize().at("find", root)?;
    let path = allowed_file()
        .ok_or_else(|| Error::Usage("there is no home folder to keep the list in".to_owned()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).at("create", folder)?;
    let mut file = fs::File::options().append(true).create(true).open(&path).at("write", &path)?;
    let is_plain = whole.to_str().is_some_and(|path| !path.contains(['\n', '\r', ':']));
    require!(is_plain, Usage, "the path {} has a character that the list cannot hold", whole.display());
    writeln!(file, "{}", whole.display()).at("write", &path)?;
    Ok(path)
}

/// Creates the cache folder and the folders in it, with the marker and a `.gitignore`.
///
/// # Errors
/// Fails as [`check`] does, or if a folder cannot be created.
pub(super) fn make(root: &Path) -> Result<()> {
    check(root)?;
    fs::create_dir_all(root).at("create", root)?;
    write_once(&root.join(MARKER), MARKER_TEXT)?;
    ignore_in_git(root);
    ["objects", "actions", "tmp"].iter().try_for_each(|name| Ok(make_folder(&root.join(name))?))
}

/// Creates a folder of the cache, if it is missing. A link in its place is refused.
///
/// # Errors
/// Fails if it cannot be created, or if something else has its name.
pub(super) fn make_folder(folder: &Path) -> Result<(), IoError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let is_folder = folder.symlink_metadata().at("read", folder)?.is_dir();
            let refused = || io::Error::new(ErrorKind::NotADirectory, "it is a link or a file, not a folder");
            if is_folder { Ok(()) } else { Err(refused()).at("use", folder) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(folder).at("create", folder),
        made => made.at("create", folder),
    }
}

/// Writes a `.gitignore` that keeps everything in `folder` out of git, unless there is one. Errors are ignored:
/// a build does not need it.
pub fn ignore_in_git(folder: &Path) {
    let _ = write_once(&folder.join(".gitignore"), "*\n");
}

/// Writes a file, unless it is there. It appears with all of its text or not at all, also if this process is
/// killed, and if another does the same. What killed processes left of it is removed.
fn write_once(path: &Path, text: &str) -> Result<(), IoError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}{NEW}", name.to_string_lossy());
    for left in list(folder)? {
        if left.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
            let _ = fs::remove_file(left);
        }
    }
    let mut unfinished = open_to_all().prefix(&prefix).tempfile_in(folder).at("create a file in", folder)?;
    unfinished.write_all(text.as_bytes()).at("write", unfinished.path())?;
    match unfinished.persist(path) {
        // Another process that does the same took ours for one that was left, and writes its own.
        Err(error) if error.error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.error).at("write", path),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(root: &Path) -> String {
        check(root).unwrap_err().to_string()
    }

    #[test]
    fn a_new_cache_is_marked_and_kept_out_of_git() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        check(&root).unwrap();
        make(&root).unwrap();
        make(&root).unwrap();
        assert!(fs::read_to_string(root.join(MARKER)).unwrap().starts_with("Signature: 8a477f597d28d172"));
        assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn the_folder_of_somebody_is_not_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("tmp")).unwrap();
        assert!(refusal(root).contains("`tmp` is in it"));
        fs::create_dir(root.join("objects")).unwrap();
        fs::create_dir(root.join("actions")).unwrap();
        check(root).unwrap();
        fs::write(root.join("thesis.tex"), "").unwrap();
        assert!(refusal(root).contains("`thesis.tex` is in it"));
        fs::write(root.join(MARKER), MARKER_TEXT).unwrap();
        check(root).unwrap();
    }

    #[test]
    fn what_a_killed_process_began_may_be_finished() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("CACHEDIR.TAG.new-a1b2c3"), "Signa").unwrap();
        fs::write(root.join(".gitignore.new-a1b2c3"), "").unwrap();
        check(root).unwrap();
        std::thread::scope(|scope| {
            for thread in [0; 8].map(|_| scope.spawn(|| make(root))) {
                thread.join().unwrap().unwrap();
            }
        });
        make(root).unwrap();
        assert_eq!(fs::read_to_string(root.join(MARKER)).unwrap(), MARKER_TEXT);
        let mut names: Vec<_> = list(root).unwrap();
        names.sort();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, [".gitignore", MARKER, "actions", "objects", "tmp"]);
    }

    #[test]
    fn nothing_in_it_is_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        make(&root).unwrap();
        fs::remove_dir(root.join("tmp")).unwrap();
        symlink(folder.path(), root.join("tmp")).unwrap();
        assert!(refusal(&root).contains("tmp is a link"));
        assert!(make_folder(&root.join("tmp")).is_err());
    }
}
