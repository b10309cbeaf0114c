//! The download of one file into the hub's cache: it grows, is checked, and only then gets its final name.
//! Knows nothing of the other files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use ring::digest::Context as Hasher;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::cache::HubCache;
use super::file::{BLOCK_BYTES, HubFile, finish, hash_all};
use super::pauses::{Fault, Pauses};
use super::web::Web;
use crate::Error;
use crate::error::{Context, OrBug, Result, fail};
use crate::origin::Origin;
use artifact::{AtPath, Interrupted};

/// How often a process that waits for another's download checks the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Called with the bytes of the file present so far. An error stops the download.
pub(super) type Got<'a> = &'a dyn Fn(u64) -> Result<(), Interrupted>;

/// A file to download, its source, and the cache it goes to.
pub(super) struct Transfer<'a> {
    pub(super) cache: &'a HubCache,
    pub(super) web: &'a Web,
    pub(super) origin: &'a Origin,
    pub(super) file: &'a HubFile,
}

impl Transfer<'_> {
    /// Brings the file into the snapshot of its commit. A file that is already there is hashed too: nobody
    /// could explain a model that came from a damaged cache.
    pub(super) fn run(&self, got: Got<'_>) -> Result<()> {
        let Self { cache, origin, file, .. } = self;
        let read = |length| got(length).map_err(Into::into);
        let path = cache.snapshot(origin).join(&file.name);
        if file.is_at(&path, &read)? {
            return Ok(());
        }
        let blob = cache.blob(&origin.repo, &file.etag);
        for folder in [path.parent(), blob.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        let _lock = self.lock(got)?;
        if !file.is_at(&blob, &read)? {
            self.fetch(&blob, got).within(|| format!("cannot download `{}` of {origin}", file.name))?;
        }
        link(&blob, &path, &file.etag)
    }

    /// Takes the lock on the content. Waits while another process downloads it.
    fn lock(&self, got: Got<'_>) -> Result<File> {
        let path = self.cache.lock(&self.origin.repo, &self.file.etag);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).at("open", &path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => return Ok(Err(error).at("lock", &path)?),
            }
            got(0)?;
            sleep(POLL_INTERVAL);
        }
    }

    fn fetch(&self, blob: &Path, got: Got<'_>) -> Result<()> {
        let mut part = Part::open(blob, self.file, got)?;
        let mut pauses = Pauses::default();
        let mut farthest = part.length;
        while part.length < self.file.size {
            let Err(fault) = self.receive(&mut part, got) else { continue };
            // Progress restarts the count of retries. Only a new farthest point is progress: a server that
            // sends the same beginning again and again makes none.
            if part.length > farthest {
                farthest = part.length;
                pauses = Pauses::default();
            }
            pauses.wait(fault, &|| got(part.length))?;
        }
        part.keep(self.file, blob)
    }

    /// Receives bytes until the file is complete or the connection is lost.
    fn receive(&self, part: &mut Part, got: Got<'_>) -> Result<(), Fault> {
        let mut response = self.web.get(self.origin, &self.file.name, part.length)?;
        part.align(&response)?;
        let left = response.body().content_length();
        if let Some(announced) = left.map(|left| part.length.saturating_add(left))
            && announced != self.file.size
        {
            return Err(Fault::Lasting(part.wrong_length(self.file, announced)));
        }
        let mut reader = response.body_mut().as_reader();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = match reader.read(&mut block) {
                Ok(0) => {
                    return if part.length < self.file.size { Err(lost(part, self.file)) } else { Ok(()) };
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.web.unreachable(error.into()).passing()),
            };
            part.append(block.get(..count).unwrap_or_default()).map_err(Fault::Lasting)?;
            if part.length > self.file.size {
                return Err(Fault::Lasting(part.wrong_length(self.file, part.length)));
            }
            got(part.length).map_err(|stop| Fault::Lasting(stop.into()))?;
        }
    }
}

fn lost(part: &Part, file: &HubFile) -> Fault {
    Fault::Passing(Error::Hub(format!(
        "the connection ended after {} of {} bytes; build again",
        part.length, file.size
    )))
}

/// The part of a file that was downloaded so far. It lies beside its final content and is kept when a run
/// ends early, so that the next run continues it.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    /// The hasher before any content, for a restart.
    empty: Hasher,
}

impl Part {
    fn open(blob: &Path, wanted: &HubFile, got: Got<'_>) -> Result<Self> {
        // The Python library's name for partial files is not used, because its partial files may have holes.
        let path = blob.with_extension("pipeline.incomplete");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let (file, empty) = (file.at("open", &path)?, wanted.hasher());
        let mut part = Self { path, file, hasher: empty.clone(), length: 0, empty };
        if part.file.metadata().at("read", &part.path)?.len() > wanted.size {
            part.restart()?;
        }
        let read = |length| got(length).map_err(Into::into);
        part.length = hash_all(&mut part.file, &part.path, &mut part.hasher, &read)?;
        Ok(part)
    }

    /// Checks that the response begins where the part ends. If it does not, empties the part.
    fn align(&mut self, response: &Response<Body>) -> Result<(), Fault> {
        if self.length == 0 && response.status() == StatusCode::OK {
            return Ok(());
        }
        let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
        let fits = range.is_some_and(|range| range.starts_with(&format!("bytes {}-", self.length)));
        if response.status() == StatusCode::PARTIAL_CONTENT && fits {
            return Ok(());
        }
        self.restart().map_err(Fault::Lasting)?;
        // A server that does not support ranges sends the whole file.
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        Err(Fault::Passing(Error::Hub("the answer begins elsewhere than was asked; build again".to_owned())))
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).at("empty", &self.path)?;
        (self.hasher, self.length) = (self.empty.clone(), 0);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at("write", &self.path)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Moves the part to its final name, if its digest is the one the hub lists. Otherwise removes it.
    fn keep(self, wanted: &HubFile, blob: &Path) -> Result<()> {
        let found = finish(self.hasher);
        if found != wanted.etag {
            discard(&self.path);
            let (algorithm, etag) = (wanted.algorithm(), &wanted.etag);
            fail!(
                Hub,
                "what came has another content: its {algorithm} is {found}, but the hub lists {etag}; it was \
                 removed; build again, and if it stays so, look for a proxy or a mirror on the way"
            );
        }
        self.file.sync_all().at("write", &self.path)?;
        Ok(fs::rename(&self.path, blob).at("put in place", blob)?)
    }

    fn wrong_length(&self, wanted: &HubFile, found: u64) -> Error {
        discard(&self.path);
        Error::Hub(format!(
            "what came has another length: {found} bytes, but the hub lists {}; it was removed; build again, and if \
             it stays so, look for a proxy or a mirror on the way",
            wanted.size
        ))
    }
}

/// Removes a part that is known to be wrong. If that fails, the next run finds it wrong again.
fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Makes `path` in a snapshot a symbolic link to the content, and replaces what was there before.
fn link(blob: &Path, path: &Path, etag: &str) -> Result<()> {
    let folder = path.parent().or_bug("a file of a snapshot lies in a folder")?;
    let repository = blob.ancestors().nth(2).or_bug("a content lies in a repository")?;
    let depth = folder.strip_prefix(repository).map_or(2, |below| below.components().count());
    // The target is relative, so that the cache can be moved.
    let target = Path::new(&"../".repeat(depth)).join("blobs").join(etag);
    let link = tempfile::Builder::new().prefix(".link-").make_in(folder, |name| symlink(&target, name));
    let link = link.at("link in", folder)?.into_temp_path();
    Ok(link.persist(path).map_err(|error| error.error).at("link", path)?)
}
