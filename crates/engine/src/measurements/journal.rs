//! The journal of a measurement that is not finished: one line for each thing that was measured, written as soon as it
//! is known.
//! Knows nothing of what a line means.
//!
//! Each line begins with a mark that only this user on this machine can make, so a journal that came with a checkout is
//! empty. A line that a killed process left half written has no valid mark, and is passed over.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::store::{LocalStore, owned_file};
use artifact::{AtPath, Digest, IoError};

/// The role of a line among the things that are marked with the machine's secret.
const ROLE: &str = "measurement";

/// The longest journal that is read, in bytes.
const LONGEST: u64 = 1 << 30;

/// The journal of one subject.
pub(super) struct Journal<'a> {
    store: &'a LocalStore,
    subject: Digest,
}

impl<'a> Journal<'a> {
    /// Sets the subject. Nothing is read or created yet.
    pub(super) fn of(store: &'a LocalStore, subject: Digest) -> Self {
        Self { store, subject }
    }

    fn path(&self) -> PathBuf {
        self.store.measuring_path(&self.subject)
    }

    /// Returns the lines that this user wrote on this machine, in order.
    pub(super) fn lines(&self) -> Vec<Vec<u8>> {
        let Ok(bytes) = owned_file::read(&self.path(), LONGEST) else { return Vec::new() };
        let line = |line: &[u8]| {
            let (mark, text) = line.split_at_checked(64)?;
            let mark: Digest = std::str::from_utf8(mark).ok()?.parse().ok()?;
            self.store.secret().made(ROLE, &self.marked(text), &mark).then(|| text.to_vec())
        };
        bytes.split(|byte| *byte == b'\n').filter_map(line).collect()
    }

    /// Appends a line and writes it through to the disk. Without a place for a secret nothing is kept.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub(super) fn append(&self, text: &[u8]) -> Result<(), IoError> {
        let Some(mark) = self.store.secret().mark(ROLE, &self.marked(text)) else { return Ok(()) };
        let path = self.path();
        self.store.make_measuring_folder()?;
        let line = [mark.to_string().as_bytes(), text, b"\n"].concat();
        append(&path, &line).at("write", &path)
    }

    /// Removes the journal.
    ///
    /// # Errors
    /// Fails if it cannot be removed.
    pub(super) fn remove(&self) -> Result<(), IoError> {
        let path = self.path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }

    fn marked(&self, text: &[u8]) -> Vec<u8> {
        [self.subject.as_bytes().as_slice(), text].concat()
    }
}

/// Appends a line. If a killed process left half a line, the new one begins behind it.
fn append(path: &std::path::Path, line: &[u8]) -> io::Result<()> {
    let mut file = owned_file::open_for_writing(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let gap: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
    file.write_all(&[gap, line].concat())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test damages a journal")]
    fn whole_lines_of_this_machine_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::with_secret(folder.path().join("cache"), folder.path().join("secret"));
        store.make_folders().unwrap();
        let journal = Journal::of(&store, Digest::of(b"subject"));
        assert_eq!(journal.lines(), Vec::<Vec<u8>>::new());
        journal.append(b"one").unwrap();
        let path = journal.path();
        let whole = fs::read(&path).unwrap();
        // A line of which half was written, and one that somebody else wrote.
        let foreign = [&Digest::of(b"x").to_string().into_bytes()[..], b"foreign\n"].concat();
        fs::write(&path, [&whole[..], &foreign, &whole[..20]].concat()).unwrap();
        journal.append(b"two").unwrap();
        assert_eq!(journal.lines(), [b"one", b"two"]);
        // The journal of another subject.
        let other = Journal::of(&store, Digest::of(b"other"));
        fs::copy(&path, other.path()).unwrap();
        assert_eq!(other.lines(), Vec::<Vec<u8>>::new());
        journal.remove().unwrap();
        journal.remove().unwrap();
        assert_eq!(journal.lines(), Vec::<Vec<u8>>::new());
    }
}
