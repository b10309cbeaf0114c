//! Slots of this machine: how many jobs of workers run on it at once, whichever project they are of.
//! Knows nothing of the jobs.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::KeyLock;
use crate::error::{Result, fail};
use artifact::{AtPath, Interrupted};

/// How often a taken slot is tried again.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A slot that is held. It is free again when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "it is held, not read")] KeyLock);

impl Slot {
    /// Waits until one of `count` slots of this user on this machine is free, and takes it. `waiting` is called while all
    /// are taken.
    ///
    /// # Errors
    /// Fails if the lock files cannot be made, or if `waiting` asks to stop.
    pub fn take(count: usize, waiting: &dyn Fn() -> Result<(), Interrupted>) -> Result<Self> {
        let folder = folder()?;
        fs::create_dir_all(&folder).at("create", &folder)?;
        loop {
            for number in 0..count {
                let path = folder.join(format!("slot-{number}.lock"));
                if let Some(lock) = KeyLock::try_take(&path).at("lock", &path)? {
                    return Ok(Self(lock));
                }
            }
            waiting()?;
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Returns `pipeline` below `XDG_CACHE_HOME`, or below `.cache` in the home folder.
fn folder() -> Result<PathBuf> {
    let whole = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || whole("HOME").map(|home| home.join(".cache"));
    match whole("XDG_CACHE_HOME").or_else(home) {
        Some(folder) => Ok(folder.join("pipeline")),
        None => fail!(Store, "neither XDG_CACHE_HOME nor HOME says where locks could be kept"),
    }
}
