//! Small operations on the files of a cache: list, move, remove, compare.
//! Knows nothing of what the files are for.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{file_system, owned_file};
use artifact::{AtPath, Digest, IoError};

/// Whether the stored file at `path` has the content of `digest`.
pub(crate) fn is_content(path: &Path, digest: &Digest) -> bool {
    owned_file::open(path).and_then(Digest::of_open_file).is_ok_and(|(found, _)| found == *digest)
}

/// The longest content that is read as a whole, in bytes.
const LONGEST_CONTENT: u64 = 1 << 30;

/// Reads a file that must have the content of `digest`.
pub(crate) fn read_checked(path: &Path, digest: &Digest) -> io::Result<Vec<u8>> {
    let bytes = owned_file::read(path, LONGEST_CONTENT)?;
    match Digest::of(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(io::Error::new(ErrorKind::InvalidData, "it was altered")),
    }
}

/// Renames `from` to `to`. If `to` is on another file system, copies to a file beside it and renames that.
pub(super) fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let sibling = to.with_file_name(format!("{name}.partial"));
            let moved = file_system::copy(from, &sibling).and_then(|()| fs::rename(&sibling, to));
            if moved.is_err() {
                // On a full disk, half a file would only be in the way.
                let _ = fs::remove_file(&sibling);
            }
            moved.and_then(|()| fs::remove_file(from))
        }
        renamed => renamed,
    }
}

/// Removes a file, or a folder with all that is in it. A missing path is not an error.
pub(super) fn remove(path: &Path) -> Result<(), IoError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Returns the paths in a folder. A missing folder counts as empty.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, IoError> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.at("read", folder)?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("read", folder),
    }
}
