//! Where the user's secret key lies: in a variable, or in a file that nobody else can read.
//! Knows nothing of what is signed with it.

use std::env;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::key::{PublicKey, SecretKey};

/// The variable that holds the text of a secret key, for machines that have no home: CI.
pub const VARIABLE: &str = "PIPELINE_SIGNING_KEY";

const NO_KEY: &str = "no key as `pipeline keys init` writes it";

/// A key file is shorter than this, line feeds and all.
const FILE_BYTES: u64 = 1024;

/// Returns the user's key: that of the variable, else that of the file, else none.
pub fn load() -> anyhow::Result<Option<SecretKey>> {
    match env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        // A secret that CI does not hand out, as to pull requests from forks, is an empty variable there.
        Some(text) => {
            read(&text.to_string_lossy()).with_context(|| format!("{VARIABLE} holds {NO_KEY}")).map(Some)
        }
        None => KeyFile::of_user()?.map_or(Ok(None), |file| file.load()),
    }
}

/// Makes a key and writes it to the user's file; returns where that is, and the public half.
pub fn create() -> anyhow::Result<(PathBuf, PublicKey)> {
    let file = KeyFile::of_user()?;
    let file = file.context("neither XDG_CONFIG_HOME nor HOME says where a key could be kept")?;
    let key = file.create()?;
    Ok((file.path, key))
}

/// A file that holds a secret key.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Names the file at `path`; nothing is read or made yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Names the user's file; none where the user has no home.
    pub fn of_user() -> anyhow::Result<Option<Self>> {
        let folder = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        // The XDG standard has relative paths ignored.
        let config = folder("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = config.or_else(|| env::home_dir().map(|home| home.join(".config")));
        let Some(config) = config.filter(|path| path.is_absolute()) else { return Ok(None) };
        Ok(Some(Self::new(config.join("pipeline/signing-key"))))
    }

    /// Reads the key; none if there is no file.
    pub fn load(&self) -> anyhow::Result<Option<SecretKey>> {
        let path = self.path.display();
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("cannot read {path}"))?,
        };
        // The open file is asked, not the path: what is checked is what is read.
        let mode = file.metadata().with_context(|| format!("cannot read {path}"))?.mode();
        ensure!(
            mode & 0o077 == 0,
            "others may read the secret key in {path}; close it with: chmod 600 {path}"
        );
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text).with_context(|| format!("cannot read {path}"))?;
        read(&text).with_context(|| format!("{path} holds {NO_KEY}")).map(Some)
    }

    /// Makes a key and writes it. A key that is there already is never replaced: what it signed would be orphaned.
    pub fn create(&self) -> anyhow::Result<PublicKey> {
        let path = self.path.display();
        let there =
            || format!("there is a key in {path} already; `pipeline keys show` prints its public half");
        if self.path.symlink_metadata().is_ok() {
            bail!(there());
        }
        let folder = self.path.parent().context("BUG: a key file lies in a folder")?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot create {}", folder.display()))?;
        let key = SecretKey::generate()?;
        match write_new(&self.path, folder, &key) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(there()),
            written => written.with_context(|| format!("cannot write {path}"))?,
        }
        Ok(key.public())
    }
}

/// Writes the key beside its place, in a file that is closed to others from its first moment, and links it into
/// place once it is on the disk: there is never half a key, and never one that others could have read.
fn write_new(path: &Path, folder: &Path, key: &SecretKey) -> std::io::Result<()> {
    let mut builder = tempfile::Builder::new();
    let mut file = builder.prefix(".key-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)?;
    file.write_all(key.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

fn read(text: &str) -> anyhow::Result<SecretKey> {
    Ok(text.trim().parse()?)
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
