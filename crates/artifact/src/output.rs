//! The output folder of a stage: its files are hashed while they are written, then synced and listed.
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

/// How many bytes are written before they are synced in the background.
const FLUSH_BYTES: usize = 32 << 20;

/// An empty folder that a stage fills.
pub struct Output {
    folder: PathBuf,
    files: Mutex<Vec<FileEntry>>,
    warnings: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    tool: Mutex<Option<String>>,
}

/// The result of a stage.
#[derive(Debug)]
pub struct Made {
    /// The files.
    pub artifact: Artifact,
    /// What the user should know about it.
    pub warnings: Vec<String>,
    /// Why the node fails although everything was made, such as a gate that failed.
    pub failure: Option<String>,
    /// What is said of the program that made it.
    pub tool: Option<String>,
}

impl Output {
    /// Takes over `folder`, which must be empty.
    pub fn new(folder: PathBuf) -> Self {
        let (files, warnings, failure, tool) = Default::default();
        Self { folder, files, warnings, failure, tool }
    }

    /// Returns the folder, for a worker process that fills it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the file at `path`, relative to the folder, and the folders above it.
    ///
    /// # Errors
    /// Fails when the file exists already, or when it or a folder above it cannot be created.
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
    ///
    /// # Errors
    /// Fails when the file exists already, or when it cannot be created, written or synced.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), IoError> {
        let mut file = self.create(path)?;
        file.write_all(bytes).at("write", &self.folder.join(path))?;
        file.close()
    }

    /// Writes a whole file that differs from run to run, such as timings. It is kept, but never compared.
    ///
    /// # Errors
    /// Fails when the file exists already, or when it cannot be created, written or synced.
    pub fn write_volatile(&self, path: &str, bytes: &[u8]) -> Result<(), IoError> {
        let mut file = self.create(path)?;
        file.volatile = true;
        file.write_all(bytes).at("write", &self.folder.join(path))?;
        file.close()
    }

    /// Copies the file at `from` to `path`, unchanged.
    ///
    /// # Errors
    /// Fails when `from` cannot be read, when a file exists at `path` already, or when it cannot be created,
    /// written or synced.
    pub fn copy(&self, from: &Path, path: &str) -> Result<(), IoError> {
        let mut source = File::open(from).at("read", from)?;
        let mut file = self.create(path)?;
        io::copy(&mut source, &mut file).at("copy", from)?;
        file.close()
    }

    /// Adds files that another process wrote into the folder, and has already hashed and synced.
    pub fn accept(&self, artifact: &Artifact) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(artifact.files());
    }

    /// Adds a warning to the user about the output.
    pub fn warn(&self, message: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// Marks the node as failed, although its output is complete and is kept.
    pub fn fail(&self, message: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    /// Keeps what is said of the program that makes the output.
    pub fn note_tool(&self, said: String) {
        *self.tool.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    /// Returns the files, the warnings, the failure, and what is said of the program.
    pub fn finish(self) -> Made {
        let files = self.files.into_inner().unwrap_or_else(PoisonError::into_inner);
        Made {
            artifact: Artifact::new(files),
            warnings: self.warnings.into_inner().unwrap_or_else(PoisonError::into_inner),
            failure: self.failure.into_inner().unwrap_or_else(PoisonError::into_inner),
            tool: self.tool.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A file being written. If it is dropped before [`OutputFile::close`], it is not listed in the output.
pub struct OutputFile<'a> {
    output: &'a Output,
    path: String,
    target: PathBuf,
    writer: BufWriter<HashingWriter<File>>,
    volatile: bool,
    flusher: Flusher,
}

/// Syncs a large file in the background while it is still being written. The disk works while the processor
/// does, and little is left to sync when the file is closed.
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
        // If the thread is busy, a later call asks it again.
        let _ = thread.0.try_send(());
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits for the thread. The system reports a failed write only once, so this error must be passed on.
    fn finish(self) -> io::Result<()> {
        let Some((sender, thread)) = self.thread else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Starts a thread that syncs the file at each message. It ends with its sender, or at the first error.
fn start_flushing(file: File) -> io::Result<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (sender, calls) = sync_channel(1);
    let flush = move || calls.into_iter().try_for_each(|()| file.sync_data());
    let thread = thread::Builder::new().spawn(flush)?;
    Ok((sender, thread))
}

impl OutputFile<'_> {
    /// Syncs the file and adds it to the output.
    ///
    /// # Errors
    /// Fails when the file cannot be written or synced. An error of an earlier sync in the background is
    /// returned here too.
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

    /// A pipe can be written to but not synced, like a disk that fails behind its cache. The system reports
    /// that error only once.
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
