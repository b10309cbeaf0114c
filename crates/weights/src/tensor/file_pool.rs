//! Files that are open while they are read, but never too many at once: a model may have hundreds of shards,
//! and several are read at the same time.
//! Knows nothing of what is in the files.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The most files that this process keeps open here. The default limit of macOS is 256 for everything.
const MOST_OPEN: usize = 48;

/// The files that are open, the longest first.
static OPEN: Mutex<VecDeque<Weak<Slot>>> = Mutex::new(VecDeque::new());

/// The open file, if it is open.
type Slot = Mutex<Option<Arc<File>>>;

/// A file that is opened when it is read.
#[derive(Debug)]
pub(super) struct PooledFile {
    path: PathBuf,
    /// Device, inode and length in bytes, so that no other file is read in its place.
    identity: (u64, u64, u64),
    slot: Arc<Slot>,
}

impl PooledFile {
    /// Opens the file at `path`, which must be a regular file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let this = Self { path: path.to_owned(), identity: identity(&metadata), slot: Arc::default() };
        this.keep(&mut this.slot.lock().unwrap_or_else(PoisonError::into_inner), file);
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file. Opens it again if it was closed to make room for others.
    pub(super) fn get(&self) -> Result<Arc<File>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&self.path)?;
        if identity(&file.metadata()?) != self.identity {
            return Err(Error::other("it was replaced while it was read"));
        }
        Ok(self.keep(&mut slot, file))
    }

    fn keep(&self, slot: &mut Option<Arc<File>>, file: File) -> Arc<File> {
        let file = Arc::new(file);
        *slot = Some(Arc::clone(&file));
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(&self.slot));
        while open.len() > MOST_OPEN {
            // A file that is being opened right now holds its own lock; it is young, so it stays.
            let Some(oldest) = open.pop_front().and_then(|oldest| oldest.upgrade()) else { continue };
            if let Ok(mut oldest) = oldest.try_lock() {
                *oldest = None;
            }
        }
        file
    }
}

fn identity(metadata: &Metadata) -> (u64, u64, u64) {
    (metadata.dev(), metadata.ino(), metadata.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn many_files_are_read_with_few_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: u8| folder.path().join(index.to_string());
        (0..200).for_each(|index| fs::write(path(index), [index]).unwrap());
        let files: Vec<_> = (0..200).map(|index| PooledFile::open(&path(index)).unwrap()).collect();
        for (file, index) in files.iter().zip(0..200) {
            let mut byte = [0];
            file.get().unwrap().read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte, [index]);
        }
        let open = files.iter().filter(|file| file.slot.lock().unwrap().is_some()).count();
        assert!(open <= MOST_OPEN, "{open}");
    }

    #[test]
    fn a_file_that_was_replaced_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let file = PooledFile::open(&path).unwrap();
        *file.slot.lock().unwrap() = None;
        fs::write(folder.path().join("b"), "two").unwrap();
        fs::rename(folder.path().join("b"), &path).unwrap();
        assert!(file.get().unwrap_err().to_string().contains("replaced"));
        assert!(PooledFile::open(folder.path()).is_err());
    }
}
