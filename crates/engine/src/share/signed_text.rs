//! Signed texts in the remote beside the records, and contents that no record names: what is asked of workers.
//! Knows nothing of what the texts say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::budget::each;
use super::{LONGEST_RECORD, Share, Unsent, chunk_name, file_name, may_be_cut};
use crate::sign::{Envelope, NotBelieved, PublicKey};
use crate::store::{LONGEST_CHUNK, LocalStore, RemoteError};
use artifact::{Digest, FileEntry, Tick};

/// Why a signed text is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The remote does not answer, or refuses.
    #[error(transparent)]
    Down(#[from] RemoteError),
    /// It is not trusted.
    #[error(transparent)]
    NotBelieved(#[from] NotBelieved),
}

impl Share {
    /// Signs `payload` with our own key, and writes it to `FOLDER/KEY.json` in the remote.
    ///
    /// # Errors
    /// Fails if there is no key to sign with, or if the remote refuses or does not answer.
    pub fn put_text(
        &self,
        folder: &str,
        key: &Digest,
        payload_type: &str,
        payload: Vec<u8>,
    ) -> Result<(), Unsent> {
        let own = self.settings.own.ok_or(Unsent::NoKey)?;
        let sealed = own.seal(payload_type, payload)?;
        Ok(self.remote()?.put(&text_name(folder, key), sealed.to_json())?)
    }

    /// Returns the text in `FOLDER/KEY.json` and who signed it; `None` if there is none.
    ///
    /// # Errors
    /// Fails if the remote refuses or does not answer, or if no trusted key signed the text.
    pub fn text(
        &self,
        folder: &str,
        key: &Digest,
        payload_type: &str,
    ) -> Result<Option<(Vec<u8>, PublicKey)>, Unread> {
        let found = self.remote()?.ask(&text_name(folder, key), LONGEST_RECORD)?;
        let opened = found.map(|json| Envelope::parse(&json)?.open(payload_type, &self.believed()));
        Ok(opened.transpose()?)
    }

    /// Uploads the contents of files that the remote lacks. Each lies where it is said to.
    ///
    /// # Errors
    /// Fails if the remote refuses or does not answer, if a file cannot be read or was altered, or if `tick` asks to
    /// stop.
    pub fn send_contents(
        &self,
        store: &LocalStore,
        files: &[(FileEntry, PathBuf)],
        tick: Tick<'_>,
    ) -> Result<(), Unsent> {
        let total = files.iter().map(|(file, _)| file.size).sum();
        let done = AtomicU64::new(0);
        let add = |bytes: u64| tick(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        let lacking = Mutex::new(BTreeMap::new());
        each(
            files,
            |_| 0,
            |(file, path)| {
                match self.has_content(file)? {
                    true => add(file.size)?,
                    false => {
                        let mut lacking = lacking.lock().unwrap_or_else(PoisonError::into_inner);
                        lacking.insert(file.digest, (file.clone(), path.clone()));
                    }
                }
                Ok::<_, Unsent>(())
            },
        )?;
        let lacking = lacking.into_inner().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = lacking.values().map(|(file, _)| file).collect();
        let place =
            |file: &FileEntry| lacking.get(&file.digest).map(|(_, path)| path.clone()).unwrap_or_default();
        self.push_files(store, &names, &place, &add)
    }

    /// Whether the remote has the content of a file. The list of chunks is written after the chunks.
    ///
    /// # Errors
    /// Fails if the remote refuses or does not answer.
    pub fn has_content(&self, file: &FileEntry) -> Result<bool, RemoteError> {
        let is_listed = || self.has(&file_name(&file.digest));
        let is_one_chunk = || self.has(&chunk_name(&file.digest));
        match (may_be_cut(&file.path, file.size), file.size > LONGEST_CHUNK) {
            (false, _) => is_one_chunk(),
            (true, true) => is_listed(),
            (true, false) => Ok(is_one_chunk()? || is_listed()?),
        }
    }

    /// Forgets what the remote said of `key`, so that it is asked again.
    pub fn ask_again(&self, key: &Digest) {
        self.state().records.remove(key);
    }

    /// Believes nothing that the remote says of its contents: everything is uploaded again.
    pub fn distrust_contents(&self) {
        self.state().is_damaged = true;
    }
}

fn text_name(folder: &str, key: &Digest) -> String {
    format!("{folder}/{key}.json")
}
