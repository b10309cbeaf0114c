//! The team's storage as names and bytes: a folder, S3 and compatible services, Google Cloud Storage, Azure.
//! Knows nothing of what the bytes are. It is the only module with async code, and its own functions block.
//!
//! A name is a content digest or is overwritten as a whole, so the storage needs no locks and no conditional
//! requests, which some S3-compatible services ignore. The client resumes a download that breaks off.

mod folder;
mod place;
mod profile;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use folder::Folder;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt};
use place::Purpose;
use tokio::runtime::Runtime;

use text::without_password;

/// How long a request with a short answer may take, retries included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The slowest upload that is allowed, in bytes per second, while other uploads run beside it. An upload may
/// take [`ANSWER_TIMEOUT`] plus the time it needs at this rate.
const SLOWEST: u64 = 64 << 10;

/// The storage, opened.
pub struct Remote {
    storage: Arc<dyn ObjectStore>,
    /// Opened at the first write, because most processes only read.
    writer: OnceLock<Result<Arc<dyn ObjectStore>, String>>,
    prefix: Name,
    /// The folder, if the storage is one.
    folder: Option<Folder>,
    /// Always there, until it is dropped.
    runtime: Option<Runtime>,
    url: String,
}

/// What the storage says about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteObject {
    /// The name below the prefix.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// The storage could not be reached, or it refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address is invalid, or something needed to use it is missing.
    #[error("the remote {url} cannot be opened: {problem}")]
    Address {
        /// The address as the user wrote it.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The storage refuses, or the connection fails.
    #[error("the remote {url} failed to {verb} {name}: {problem}")]
    Failed {
        /// The address as the user wrote it.
        url: String,
        /// The operation that was requested.
        verb: &'static str,
        /// The name of the object or folder.
        name: String,
        /// The error that came back.
        problem: String,
    },
    /// The storage does not answer in time.
    #[error("the remote {url} failed to {verb} {name}: no answer within {seconds} s")]
    Silent {
        /// The address as the user wrote it.
        url: String,
        /// The operation that was requested.
        verb: &'static str,
        /// The name of the object or folder.
        name: String,
        /// How long the client waited, in seconds.
        seconds: u64,
    },
    /// The object is longer than allowed.
    #[error("{name} in the remote {url} has {size} bytes, more than the {limit} it may have")]
    TooLong {
        /// The address as the user wrote it.
        url: String,
        /// The name of the object or folder.
        name: String,
        /// Its length in bytes.
        size: u64,
        /// The longest length that was allowed, in bytes.
        limit: u64,
    },
}

impl Remote {
    /// Opens the storage at `url`. Nothing is requested from it yet. Credentials and endpoints come from each
    /// provider's environment variables, and for S3 also from the profiles of the AWS command line.
    ///
    /// # Errors
    ///
    /// Fails if the address is invalid, the folder of a `file://` address cannot be created, or no client can
    /// be set up.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        let problem = |problem: String| RemoteError::Address {
            url: without_password(url),
            problem: without_password(&problem),
        };
        let (storage, prefix) = place::open(url, Purpose::Reading).map_err(problem)?;
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().thread_name("remote").build();
        let runtime = runtime.map_err(|error| problem(error.to_string()))?;
        let folder = url.strip_prefix("file://").map(|path| Folder::new(path.into()));
        let (storage, runtime) = (storage.into(), Some(runtime));
        Ok(Self { storage, writer: OnceLock::new(), prefix, folder, runtime, url: url.to_owned() })
    }

    /// Returns the bytes under `name`, or `None` if there is no such name.
    ///
    /// # Errors
    ///
    /// Fails if the storage refuses or does not answer, or if the object has more than `limit` bytes.
    pub fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        self.runtime().block_on(self.get_bounded(name, limit))
    }

    /// Like [`Remote::get`], but for a short answer that somebody waits for: gives up after 20 s.
    ///
    /// # Errors
    ///
    /// Fails if the storage refuses or does not answer within 20 s, or if the object has more than `limit`
    /// bytes.
    pub fn ask(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let answer = async { tokio::time::timeout(ANSWER_TIMEOUT, self.get_bounded(name, limit)).await };
        self.runtime().block_on(answer).unwrap_or_else(|_| Err(self.silent("read", name, ANSWER_TIMEOUT)))
    }

    async fn get_bounded(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        self.check(name, "read")?;
        if self.folder.as_ref().is_some_and(|folder| !folder.has(name)) {
            return Ok(None);
        }
        let found = match self.storage.get(&self.full(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("read", name, &error)),
        };
        let size = found.meta.size;
        let too_long = |size| RemoteError::TooLong {
            url: without_password(&self.url),
            name: name.to_owned(),
            size,
            limit,
        };
        if size > limit {
            return Err(too_long(size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_long(size))?);
        let mut blocks = found.into_stream();
        while let Some(block) = blocks.next().await {
            let block = block.map_err(|error| self.failed("read", name, &error))?;
            bytes.extend_from_slice(&block);
            // The storage may send more bytes than it announced.
            if bytes.len() as u64 > limit {
                return Err(too_long(bytes.len() as u64));
            }
        }
        Ok(Some(bytes))
    }

    /// Writes `bytes` under `name`, completely or not at all. Gives up after 20 s plus 1 s for every 64 KiB.
    ///
    /// # Errors
    ///
    /// Fails if the storage cannot be opened for writing, refuses, or does not answer in time.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let patience = ANSWER_TIMEOUT + Duration::from_secs(bytes.len() as u64 / SLOWEST);
        self.check(name, "write")?;
        let full = self.full(name);
        let writer = self.writer()?;
        let put = async { tokio::time::timeout(patience, writer.put(&full, bytes.into())).await };
        let put = self.runtime().block_on(put).map_err(|_| self.silent("write", name, patience))?;
        put.map(drop).map_err(|error| self.failed("write", name, &error))
    }

    fn writer(&self) -> Result<&dyn ObjectStore, RemoteError> {
        let open = || place::open(&self.url, Purpose::Writing).map(|(writer, _)| Arc::from(writer));
        let problem = |problem: &String| RemoteError::Address {
            url: without_password(&self.url),
            problem: problem.clone(),
        };
        self.writer.get_or_init(open).as_deref().map_err(problem)
    }

    /// Returns the length in bytes of the object under `name`, or `None` if there is no such name.
    ///
    /// # Errors
    ///
    /// Fails if the storage refuses or does not answer within 20 s.
    pub fn size(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        self.check(name, "look for")?;
        if self.folder.as_ref().is_some_and(|folder| !folder.has(name)) {
            return Ok(None);
        }
        let full = self.full(name);
        let answer = async { tokio::time::timeout(ANSWER_TIMEOUT, self.storage.head(&full)).await };
        match self.runtime().block_on(answer) {
            Ok(Ok(found)) => Ok(Some(found.size)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.failed("look for", name, &error)),
            Err(_) => Err(self.silent("look for", name, ANSWER_TIMEOUT)),
        }
    }

    /// Returns the objects below `folder`, sorted by name.
    ///
    /// # Errors
    ///
    /// Fails if the storage refuses or does not answer.
    pub fn list(&self, folder: &str) -> Result<Vec<RemoteObject>, RemoteError> {
        if let Some(shared) = &self.folder {
            let failed = |error: std::io::Error| self.refused("list", folder, error.to_string());
            return shared.list(folder).map_err(failed);
        }
        let full = self.full(folder);
        let listed = self.storage.list(Some(&full)).try_collect::<Vec<_>>();
        let found = self.runtime().block_on(listed).map_err(|error| self.failed("list", folder, &error))?;
        let held = |meta: object_store::ObjectMeta| {
            let name = meta.location.prefix_match(&self.prefix)?;
            let name = name.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            Some(RemoteObject { name, size: meta.size, modified: meta.last_modified.into() })
        };
        let mut held: Vec<_> = found.into_iter().filter_map(held).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(held)
    }

    /// Removes the object under `name`. A missing object is not an error.
    ///
    /// # Errors
    ///
    /// Fails if the storage refuses or does not answer.
    pub fn remove(&self, name: &str) -> Result<(), RemoteError> {
        if let Some(shared) = &self.folder {
            return shared.remove(name).map_err(|problem| self.refused("remove", name, problem));
        }
        match self.runtime().block_on(self.storage.delete(&self.full(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", name, &error)),
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("BUG: the runtime is there until the remote is dropped")
    }

    /// Checks that a name in a shared folder leads nowhere else.
    fn check(&self, name: &str, verb: &'static str) -> Result<(), RemoteError> {
        let checked = self.folder.as_ref().map_or(Ok(()), |folder| folder.check(name));
        checked.map_err(|problem| self.refused(verb, name, problem))
    }

    fn refused(&self, verb: &'static str, name: &str, problem: String) -> RemoteError {
        RemoteError::Failed { url: without_password(&self.url), verb, name: name.to_owned(), problem }
    }

    fn full(&self, name: &str) -> Name {
        name.split('/').fold(self.prefix.clone(), |full, part| full.join(part))
    }

    fn failed(&self, verb: &'static str, name: &str, error: &object_store::Error) -> RemoteError {
        self.refused(verb, name, innermost(error))
    }

    fn silent(&self, verb: &'static str, name: &str, patience: Duration) -> RemoteError {
        let (url, name, seconds) = (without_password(&self.url), name.to_owned(), patience.as_secs());
        RemoteError::Silent { url, verb, name, seconds }
    }
}

impl Drop for Remote {
    /// Does not wait for requests that nobody waits for any more.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &without_password(&self.url)).finish_non_exhaustive()
    }
}

/// Returns the last two levels of an error as one line of at most 300 characters. The clients' errors are
/// nested five deep and repeat the address three times, and the last two levels say what happened. The limit
/// cuts off long server answers.
fn innermost(error: &object_store::Error) -> String {
    let mut chain = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    let said = match chain.as_slice() {
        [.., before, last] if !before.contains(last.as_str()) => format!("{before}: {last}"),
        [.., before, _] => before.clone(),
        _ => chain.concat(),
    };
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    without_password(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_names_and_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let remote = Remote::open(&format!("file://{}/team cache", folder.path().display())).unwrap();
        assert_eq!(remote.get("chunks/ab/c", 10).unwrap(), None);
        assert_eq!(remote.list("chunks").unwrap(), []);
        remote.put("chunks/ab/c", b"one".to_vec()).unwrap();
        remote.put("chunks/ab/c", b"other".to_vec()).unwrap();
        assert_eq!(remote.get("chunks/ab/c", 10).unwrap().as_deref(), Some(&b"other"[..]));
        assert_eq!(remote.size("chunks/ab/c").unwrap(), Some(5));
        assert!(matches!(remote.get("chunks/ab/c", 4), Err(RemoteError::TooLong { size: 5, limit: 4, .. })));
        assert_eq!(remote.list("chunks").unwrap()[0].name, "chunks/ab/c");
        remote.remove("chunks/ab/c").unwrap();
        remote.remove("chunks/ab/c").unwrap();
        assert_eq!(remote.size("chunks/ab/c").unwrap(), None);
        assert!(folder.path().join("team cache").is_dir());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for url in ["", "team", "ftp://host/x", "s3://", "file://host/x"] {
            let error = Remote::open(url).unwrap_err();
            assert!(matches!(error, RemoteError::Address { .. }), "{url}: {error}");
        }
    }
}
