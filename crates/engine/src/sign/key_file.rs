//! The user's secret key, in an environment variable or in a file that nobody else can read.
//! Knows nothing of what is signed with it.

use std::env;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::key::{PublicKey, SecretKey};
use crate::error::{Error, OrBug, Result, require};

/// The environment variable for the text of a secret key. It is meant for machines without a home folder,
/// such as CI.
pub const VARIABLE: &str = "PIPELINE_SIGNING_KEY";

const NO_KEY: &str = "no key as `pipeline keys init` writes it";

/// The most bytes that are read of a key file, line feeds included.
const FILE_BYTES: u64 = 1024;

/// Returns the key from the variable, or else from the user's file; `None` if there is neither.
///
/// # Errors
///
/// Fails if the variable or the file does not hold a key, the file cannot be read, or others may read it.
pub fn load() -> Result<Option<SecretKey>> {
    match env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        // If CI withholds a secret, as for pull requests from forks, the variable is set but empty.
        Some(text) => parse(&text.to_string_lossy(), VARIABLE).map(Some),
        None => KeyFile::of_user().map_or(Ok(None), |file| file.load()),
    }
}

/// Whether there seems to be a key: the variable is set, or the file is there. It is not read.
pub(super) fn is_configured() -> bool {
    let in_variable = env::var_os(VARIABLE).is_some_and(|text| !text.is_empty());
    in_variable || KeyFile::of_user().is_some_and(|file| file.path.symlink_metadata().is_ok())
}

/// Makes a key and writes it to the user's file; returns the path and the public half.
///
/// # Errors
///
/// Fails if there is no place for a key, there is a key already, or the file cannot be written.
pub fn create() -> Result<(PathBuf, PublicKey)> {
    let file = KeyFile::of_user();
    let file = file.ok_or_else(|| {
        Error::Key("neither XDG_CONFIG_HOME nor HOME says where a key could be kept".to_owned())
    })?;
    let key = file.create()?;
    Ok((file.path, key))
}

/// A file that holds a secret key.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Sets the path of the file. Nothing is read or created yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the user's key file, whether it exists or not: `pipeline/signing-key` below `XDG_CONFIG_HOME`
    /// or `~/.config`. Returns `None` if the user has no home folder.
    pub fn of_user() -> Option<Self> {
        let folder = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        // The XDG standard says that relative paths are ignored.
        let config = folder("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = config.or_else(|| env::home_dir().map(|home| home.join(".config")));
        let config = config.filter(|path| path.is_absolute())?;
        Some(Self::new(config.join("pipeline/signing-key")))
    }

    /// Reads the key; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, others may read it, or it does not hold a key.
    pub fn load(&self) -> Result<Option<SecretKey>> {
        let path = self.path.display();
        let failed = |attempt| refused(attempt, &self.path);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("read"))?,
        };
        // The mode of the open file is checked, not that of the path, so the checked file is the one that is
        // read.
        let mode = file.metadata().map_err(failed("read"))?.mode();
        require!(
            mode & 0o077 == 0,
            Key,
            "others may read the secret key in {path}; close it with: chmod 600 {path}"
        );
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(failed("read"))?;
        parse(&text, &path).map(Some)
    }

    /// Makes a key and writes it; returns the public half. An existing key is never replaced: its signatures
    /// would be orphaned.
    ///
    /// # Errors
    ///
    /// Fails if something exists at the path, the system has no random numbers, or the file cannot be
    /// written.
    pub fn create(&self) -> Result<PublicKey> {
        let path = self.path.display();
        let there =
            || format!("there is a key in {path} already; `pipeline keys show` prints its public half");
        if self.path.symlink_metadata().is_ok() {
            return Err(Error::Key(there()));
        }
        let folder = self.path.parent().or_bug("a key file lies in a folder")?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(refused("create", folder))?;
        let key = SecretKey::generate()?;
        match write_new(&self.path, folder, &key) {
            // Another process created a key meanwhile.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Error::Key(there())),
            written => written.map_err(refused("write", &self.path))?,
        }
        Ok(key.public())
    }
}

/// Writes the key to a temporary file that only the user can read, syncs it, and links it into place without
/// replacing anything. So there is never a partial key file, nor one that others could have read.
fn write_new(path: &Path, folder: &Path, key: &SecretKey) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    let mut file = builder.prefix(".key-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)?;
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

/// Parses the text of a key. `place` is where the text was found, for the error, which never repeats the text
/// itself.
fn parse(text: &str, place: impl std::fmt::Display) -> Result<SecretKey> {
    text.trim().parse().map_err(|error| Error::Key(format!("{place} holds {NO_KEY}: {error}")))
}

/// Turns a system error into an error with the system's message as text and not as a cause, because the hints
/// for errors of the cache's disk do not fit it.
fn refused(attempt: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Key(format!("cannot {attempt} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn in_folder() -> (tempfile::TempDir, KeyFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/pipeline/signing-key");
        (folder, KeyFile::new(path))
    }

    #[test]
    fn a_new_key_is_closed_to_others_and_stays() {
        let (_folder, file) = in_folder();
        assert!(file.load().unwrap().is_none());
        let public = file.create().unwrap();
        let parent = file.path.parent().unwrap();
        assert_eq!((mode(&file.path), mode(parent)), (0o600, 0o700));
        assert_eq!(file.load().unwrap().unwrap().public(), public);
        let error = file.create().unwrap_err().to_string();
        assert!(error.contains("already") && error.contains("pipeline keys show"), "{error}");
        assert_eq!(file.load().unwrap().unwrap().public(), public);
        assert_eq!(fs::read_dir(parent).unwrap().count(), 1, "something unfinished is left");
    }

    #[test]
    fn a_link_to_nowhere_is_not_replaced() {
        let (_folder, file) = in_folder();
        fs::create_dir_all(file.path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("nowhere", &file.path).unwrap();
        assert!(file.create().is_err());
        assert!(file.path.is_symlink());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let (_folder, file) = in_folder();
        file.create().unwrap();
        for wrong in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file.path, Permissions::from_mode(wrong)).unwrap();
            let error = file.load().err().unwrap().to_string();
            assert!(error.contains(&format!("chmod 600 {}", file.path.display())), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_not_repeated() {
        let (_folder, file) = in_folder();
        file.create().unwrap();
        for text in ["", "hush-hush", &"ed25519-secret:hush".repeat(1000)] {
            fs::write(&file.path, text).unwrap();
            let error = format!("{:#}", file.load().err().unwrap());
            assert!(!error.contains("hush") && error.contains("signing-key"), "{error}");
        }
    }
}
