//! The output folder of a stage: files hashed while they are written, synced, and listed.
//! Knows nothing of what is in them, nor of where they go afterwards.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::digest::HashingWriter;
use crate::io_error::{AtPath, IoError};
use crate::list::{Artifact, FileEntry};

const BUFFER_BYTES: usize = 1 << 16;

/// How much is written before the disk is set to work on it.
const FLUSH_BYTES: usize = 32 << 20;

/// An empty folder that a stage fills.
pub struct Output {
    folder: PathBuf,
    files: Mutex<Vec<FileEntry>>,
    warnings: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
}

/// What a stage left behind.
#[derive(Debug)]
pub struct Made {
    /// The files, listed.
    pub artifact: Artifact,
    /// What the user should know of it.
    pub warnings: Vec<String>,
    /// Why the node fails although everything was made, such as a gate that did not hold.
    pub failure: Option<String>,
}

impl Output {
    /// Takes over `folder`, which is empty.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, files: Mutex::default(), warnings: Mutex::default(), failure: Mutex::default() }
    }

    /// Returns the folder, for a worker process that fills it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins the file at `path`, relative to the folder.
    pub fn create(&self, path: &str) -> Result<OutputFile<'_>, IoError> {
        let target = self.folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        let file = File::create_new(&target).at("create", &target)?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, HashingWriter::new(file));
        Ok(OutputFile {
            output: self,
            path: path.to_owned(),
            target,
            writer,
            volatile: false,
            flusher: Flusher::default(),
        })
    }

    /// Writes a whole file.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), IoError> {
        let mut file = self.create(path)?;
        file.write_all(bytes).at("write", &self.folder.join(path))?;
        file.close()
    }

    /// Writes a whole file that differs from run to run, such as timings: kept, but never compared.
    pub fn write_volatile(&self, path: &str, bytes: &[u8]) -> Result<(), IoError> {
        let mut file = self.create(path)?;
        file.volatile = true;
        file.write_all(bytes).at("write", &self.folder.join(path))?;
        file.close()
    }

    /// Copies the file at `from`, unchanged.
    pub fn copy(&self, from: &Path, path: &str) -> Result<(), IoError> {
        let mut source = File::open(from).at("read", from)?;
        let mut file = self.create(path)?;
        io::copy(&mut source, &mut file).at("copy", from)?;
        file.close()
    }

    /// Lists what another process wrote into the folder, hashed and synced as here.
    pub fn accept(&self, artifact: &Artifact) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(artifact.files());
    }

    /// Keeps something that the user should know of what was made.
    pub fn warn(&self, message: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// Says that the node fails, although all it makes is made and kept.
    pub fn fail(&self, message: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    /// Returns what was made.
    pub fn finish(self) -> Made {
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        Made {
            artifact: Artifact::new(files),
            warnings: self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner),
            failure: self.failure.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A file being written. Dropped before [`OutputFile::close`], it is not part of the output.
pub struct OutputFile<'a> {
    output: &'a Output,
    path: String,
    target: PathBuf,
    writer: BufWriter<HashingWriter<File>>,
    volatile: bool,
    flusher: Flusher,
}

/// Has a large file brought to the disk while it is still being written, so that little is left to wait for when it is
/// closed: the disk works while the processor does.
#[derive(Default)]
struct Flusher {
    written: usize,
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Flusher {
    fn count(&mut self, bytes: usize, file: &File) -> io::Result<()> {
        self.written += bytes;
        if self.written < FLUSH_BYTES {
            return Ok(());
        }
        self.written = 0;
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => start_flushing(file.try_clone()?)?,
        };
        // If it is busy, the next call will find it free.
        let _ = thread.0.try_send(());
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits for the thread. The system tells of a failed write once: who is told must pass it on.
    fn finish(self) -> io::Result<()> {
        let Some((sender, thread)) = self.thread else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Starts a thread that ends with its sender, or with the first error.
fn start_flushing(file: File) -> io::Result<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (sender, calls) = sync_channel(1);
    let flush = move || calls.into_iter().try_for_each(|()| file.sync_data());
    let thread = thread::Builder::new().spawn(flush)?;
    Ok((sender, thread))
}

impl OutputFile<'_> {
    /// Makes the file durable and lists it.
    pub fn close(self) -> Result<(), IoError> {
        let hashing = self.writer.into_inner().map_err(io::IntoInnerError::into_error);
        let (file, digest, size) = hashing.at("write", &self.target)?.finish();
        self.flusher.finish().and_then(|()| file.sync_all()).at("write", &self.target)?;
        let entry = FileEntry { digest, path: self.path, size, volatile: self.volatile };
        self.output.files.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        Ok(())
    }
}

impl Write for OutputFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.flusher.count(written, self.writer.get_ref().inner())?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// A pipe can be written to but not synced, as a disk that fails behind its cache. The system tells of that once.
    #[test]
    fn a_failure_behind_the_writer_is_passed_on() {
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        let mut flusher = Flusher::default();
        flusher.count(FLUSH_BYTES - 1, &file).unwrap();
        assert!(flusher.thread.is_none(), "little is left for the end");
        flusher.count(1, &file).unwrap();
        assert!(flusher.finish().is_err());
    }
}
