//! The secret of this user on this machine: 32 random bytes outside of any project. It marks what this
//! program wrote into a cache, so that what came with a checkout is not taken for it.
//! Knows nothing of what is marked.

use std::env;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::owned_file;
use artifact::Digest;

/// The secret, read when it is first needed. Without a place for it nothing can be marked: then the local
/// state is not kept, and no record counts as made here.
#[derive(Debug)]
pub struct MachineSecret {
    path: Option<PathBuf>,
    bytes: OnceLock<Option<[u8; 32]>>,
}

impl MachineSecret {
    /// The secret of the user: `pipeline/machine-secret` below `XDG_STATE_HOME` or `~/.local/state`.
    pub fn of_user() -> Self {
        let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let state = state.or_else(|| env::home_dir().map(|home| home.join(".local/state")));
        let path = state.filter(|path| path.is_absolute()).map(|path| path.join("pipeline/machine-secret"));
        Self { path, bytes: OnceLock::new() }
    }

    /// The secret in the file at `path`.
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path), bytes: OnceLock::new() }
    }

    /// Returns the mark of `bytes` in their `role`, or `None` if there is no place for a secret. The first
    /// call on a machine makes the secret.
    pub(crate) fn mark(&self, role: &str, bytes: &[u8]) -> Option<Digest> {
        let secret = self.bytes.get_or_init(|| self.path.as_deref().and_then(load_or_make));
        // Each role has a key of its own, so a mark in one role is none in another.
        secret.as_ref().map(|secret| Digest::keyed(Digest::keyed(secret, role.as_bytes()).as_bytes(), bytes))
    }

    /// Whether `mark` is the mark of `bytes` in their `role`.
    pub(crate) fn made(&self, role: &str, bytes: &[u8], mark: &Digest) -> bool {
        self.mark(role, bytes).as_ref() == Some(mark)
    }

    /// Returns the mark of `body`, followed by `body`: the form of a file that only this program believes.
    pub(crate) fn seal(&self, role: &str, body: &[u8]) -> Option<Vec<u8>> {
        Some([self.mark(role, body)?.as_bytes(), body].concat())
    }

    /// Returns the body of such a file, or `None` if it is damaged, or if somebody else wrote it.
    pub(crate) fn unseal<'b>(&self, role: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (mark, body) = bytes.split_at_checked(32)?;
        (self.mark(role, body)?.as_bytes() == mark).then_some(body)
    }
}

/// A secret that somebody else may have read marks nothing, so it is replaced.
fn load_or_make(path: &Path) -> Option<[u8; 32]> {
    load(path).or_else(|| make(path).ok()).or_else(|| load(path))
}

fn load(path: &Path) -> Option<[u8; 32]> {
    let metadata = path.symlink_metadata().ok()?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    let bytes = owned_file::read(path, 32).ok().filter(|_| is_ours)?;
    bytes.try_into().ok()
}

fn make(path: &Path) -> io::Result<[u8; 32]> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut secret = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| io::Error::other("there are no random numbers"))?;
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.prefix(".secret-").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)?;
    file.write_all(&secret)?;
    file.as_file().sync_all()?;
    if load(path).is_none() && path.symlink_metadata().is_ok() {
        file.persist(path)?;
    } else {
        // Of two processes that make it at once, the second takes over that of the first.
        file.persist_noclobber(path)?;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn marks_what_this_machine_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipeline/machine-secret");
        let mark = MachineSecret::at(path.clone()).mark("memo", b"text").unwrap();
        let again = MachineSecret::at(path.clone());
        assert!(again.made("memo", b"text", &mark));
        assert!(!again.made("memo", b"other", &mark) && !again.made("record", b"text", &mark));
        assert!(!MachineSecret::at(folder.path().join("other")).made("memo", b"text", &mark));
        // Others could read it, so it is not used any more.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(!MachineSecret::at(path.clone()).made("memo", b"text", &mark));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn without_a_place_nothing_is_marked() {
        let nowhere = MachineSecret { path: None, bytes: OnceLock::new() };
        assert_eq!(nowhere.mark("memo", b""), None);
    }
}
