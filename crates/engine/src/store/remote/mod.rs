//! Storage that the team has, as names and bytes: a shared folder, S3 and what speaks it, Google's, Azure's.
//! Knows nothing of what the bytes are; the only room with async in it, which nobody outside sees.
//!
//! Names are content digests or are overwritten whole, so nothing here asks the storage for locks or conditions:
//! some that speak S3 ignore them. A transfer that breaks off is taken up where it was by the client below us.

mod place;
mod profile;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt};
use place::Purpose;
use tokio::runtime::Runtime;

/// How long a question that is answered in a few bytes may take, retries included.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// How many bytes are sent in a second at the least, where others are sent beside them: the limit on sending is this
/// much above [`ANSWER_PATIENCE`].
const SLOWEST: u64 = 64 << 10;

/// The storage, opened.
pub struct Remote {
    storage: Arc<dyn ObjectStore>,
    /// Made when something is first written: most that read never write.
    writer: OnceLock<Result<Arc<dyn ObjectStore>, String>>,
    prefix: Name,
    runtime: Runtime,
    url: String,
}

/// What the storage says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name below the prefix.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// The storage could not be asked, or said no.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The address cannot be understood, or what must be known to use it is missing.
    #[error("the remote {url} cannot be opened: {problem}")]
    Address {
        /// The address as the user wrote it.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// It does not answer, or refuses.
    #[error("the remote {url} failed to {verb} {name}: {problem}")]
    Failed {
        /// The address as the user wrote it.
        url: String,
        /// What was asked.
        verb: &'static str,
        /// Of what.
        name: String,
        /// What came back.
        problem: String,
    },
    /// It says nothing.
    #[error("the remote {url} failed to {verb} {name}: no answer within {seconds} s")]
    Silent {
        /// The address as the user wrote it.
        url: String,
        /// What was asked.
        verb: &'static str,
        /// Of what.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// What lies there is longer than it may be.
    #[error("{name} in the remote {url} has {size} bytes, more than the {limit} it may have")]
    TooLong {
        /// The address as the user wrote it.
        url: String,
        /// Of what.
        name: String,
        /// What the storage says.
        size: u64,
        /// What was allowed.
        limit: u64,
    },
}

impl Remote {
    /// Opens the storage at `url`; nothing is asked of it yet. Credentials and endpoints come from the environment
    /// variables of each provider, and for S3 from the AWS command line's profiles too.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        let problem = |problem: String| RemoteError::Address { url: url.to_owned(), problem };
        let (storage, prefix) = place::open(url, Purpose::Reading).map_err(problem)?;
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().thread_name("remote").build();
        let runtime = runtime.map_err(|error| problem(error.to_string()))?;
        Ok(Self { storage: storage.into(), writer: OnceLock::new(), prefix, runtime, url: url.to_owned() })
    }

    /// Returns the bytes under `name`, or nothing if there is no such name. More than `limit` bytes are not read.
    pub fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        self.runtime.block_on(self.get_bounded(name, limit))
    }

    /// The same for a few bytes that somebody waits for.
    pub fn ask(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let answer = async { tokio::time::timeout(ANSWER_PATIENCE, self.get_bounded(name, limit)).await };
        self.runtime.block_on(answer).unwrap_or_else(|_| Err(self.silent("read", name, ANSWER_PATIENCE)))
    }

    async fn get_bounded(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let found = match self.storage.get(&self.full(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("read", name, &error)),
        };
        let size = found.meta.size;
        let too_long =
            |size| RemoteError::TooLong { url: self.url.clone(), name: name.to_owned(), size, limit };
        if size > limit {
            return Err(too_long(size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_long(size))?);
        let mut blocks = found.into_stream();
        while let Some(block) = blocks.next().await {
            let block = block.map_err(|error| self.failed("read", name, &error))?;
            bytes.extend_from_slice(&block);
            // The length was the storage's word; what it sends may be longer.
            if bytes.len() as u64 > limit {
                return Err(too_long(bytes.len() as u64));
            }
        }
        Ok(Some(bytes))
    }

    /// Writes `bytes` under `name`, whole or not at all.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let patience = ANSWER_PATIENCE + Duration::from_secs(bytes.len() as u64 / SLOWEST);
        let full = self.full(name);
        let writer = self.writer()?;
        let put = async { tokio::time::timeout(patience, writer.put(&full, bytes.into())).await };
        let put = self.runtime.block_on(put).map_err(|_| self.silent("write", name, patience))?;
        put.map(drop).map_err(|error| self.failed("write", name, &error))
    }

    fn writer(&self) -> Result<&dyn ObjectStore, RemoteError> {
        let open = || place::open(&self.url, Purpose::Writing).map(|(writer, _)| Arc::from(writer));
        let problem =
            |problem: &String| RemoteError::Address { url: self.url.clone(), problem: problem.clone() };
        self.writer.get_or_init(open).as_deref().map_err(problem)
    }

    /// Returns the length in bytes of what is under `name`, or nothing if there is no such name.
    pub fn size(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        let full = self.full(name);
        let answer = async { tokio::time::timeout(ANSWER_PATIENCE, self.storage.head(&full)).await };
        match self.runtime.block_on(answer) {
            Ok(Ok(found)) => Ok(Some(found.size)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.failed("look for", name, &error)),
            Err(_) => Err(self.silent("look for", name, ANSWER_PATIENCE)),
        }
    }

    /// Returns what lies below `folder`, sorted by name.
    pub fn list(&self, folder: &str) -> Result<Vec<Held>, RemoteError> {
        let full = self.full(folder);
        let listed = self.storage.list(Some(&full)).try_collect::<Vec<_>>();
        let found = self.runtime.block_on(listed).map_err(|error| self.failed("list", folder, &error))?;
        let held = |meta: object_store::ObjectMeta| {
            let name = meta.location.prefix_match(&self.prefix)?;
            let name = name.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            Some(Held { name, size: meta.size, modified: meta.last_modified.into() })
        };
        let mut held: Vec<_> = found.into_iter().filter_map(held).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(held)
    }

    /// Removes what is under `name`; what is not there is already removed.
    pub fn remove(&self, name: &str) -> Result<(), RemoteError> {
        match self.runtime.block_on(self.storage.delete(&self.full(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", name, &error)),
        }
    }

    fn full(&self, name: &str) -> Name {
        name.split('/').fold(self.prefix.clone(), |full, part| full.join(part))
    }

    fn failed(&self, verb: &'static str, name: &str, error: &object_store::Error) -> RemoteError {
        let problem = innermost(error);
        RemoteError::Failed { url: self.url.clone(), verb, name: name.to_owned(), problem }
    }

    fn silent(&self, verb: &'static str, name: &str, patience: Duration) -> RemoteError {
        let (url, name, seconds) = (self.url.clone(), name.to_owned(), patience.as_secs());
        RemoteError::Silent { url, verb, name, seconds }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The errors of the clients are nested five deep and say the address three times; the last two levels say what
/// happened. One line, and not a page of what a server sent.
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
    line.trim().to_owned()
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
