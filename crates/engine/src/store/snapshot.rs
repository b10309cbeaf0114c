//! What a command of the user must leave alone: its inputs, and the cache. Their state is noted before the command
//! runs, and compared afterwards.
//! Knows nothing of the command.
//!
//! Other threads and other processes put contents and records into the cache meanwhile, which is no trespass: a content
//! has the digest that it is named after, and a record has the mark of this machine or a signed statement beside it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::{list, remove};
use super::{LocalStore, Stat, cache_folder};
use crate::error::Result;
use artifact::{AtPath, Digest, IoError};

/// The state of the inputs of a command, and of the cache.
#[derive(Debug)]
pub struct Snapshot {
    inputs: Vec<(PathBuf, Option<Stat>, Digest)>,
    cache: HashMap<PathBuf, Stat>,
}

impl LocalStore {
    /// Notes the state of the files in `inputs`, each with its digest, and of the cache.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed.
    pub fn snapshot(&self, inputs: &[(&Path, Digest)]) -> Result<Snapshot, IoError> {
        let state = |(path, digest): &(&Path, Digest)| ((*path).to_owned(), Stat::at(path).ok(), *digest);
        Ok(Snapshot { inputs: inputs.iter().map(state).collect(), cache: self.files()? })
    }

    /// Returns the first file that is not as it was and that no process of ours has written since. A content in the
    /// cache that is not what its name says is removed, so that it is made or fetched again.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed, or if something cannot be removed.
    pub fn trespass(&self, before: &Snapshot) -> Result<Option<PathBuf>, IoError> {
        let mut found = None;
        for (path, stat, digest) in &before.inputs {
            // A new hard link changes the state of a file too.
            let is_same = stat.is_some() && Stat::at(path).ok() == *stat;
            if !is_same && Digest::of_file(path).ok().map(|(digest, _)| digest) != Some(*digest) {
                found.get_or_insert_with(|| path.clone());
            }
        }
        let now = self.files()?;
        let mut changed: Vec<_> =
            now.iter().filter(|(path, stat)| before.cache.get(*path) != Some(stat)).collect();
        changed.sort_by_key(|(path, _)| path.as_path());
        for (path, _) in changed {
            let is_put_by_us = !before.cache.contains_key(path) && self.has_put(path);
            if is_put_by_us || self.is_sound(path) {
                continue;
            }
            found.get_or_insert_with(|| path.clone());
            remove(path)?;
        }
        Ok(found)
    }

    /// Whether a file that is new or was written is what its name says.
    fn is_sound(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(self.root()) else { return false };
        let parts: Vec<_> = inside.iter().filter_map(|part| part.to_str()).collect();
        match parts.as_slice() {
            ["objects", folder, name] => match format!("{folder}{name}").parse::<Digest>() {
                Ok(digest) => is_content(path, &digest),
                Err(_) => false,
            },
            ["actions", name] => match name.strip_suffix(".json").and_then(|key| key.parse().ok()) {
                Some(key) => {
                    let is_ours = self.record(&key).is_some_and(|record| record.made_here);
                    is_ours || self.attestation(&key).is_some()
                }
                None => false,
            },
            [name] => cache_folder::is_known(name),
            _ => false,
        }
    }

    /// Returns the state of each content, of each record, and of what lies beside their folders.
    fn files(&self) -> Result<HashMap<PathBuf, Stat>, IoError> {
        let mut files = HashMap::new();
        let mut add = |path: PathBuf| -> Result<(), IoError> {
            match fs::symlink_metadata(&path) {
                Ok(metadata) => drop(files.insert(path, Stat::of(&metadata))),
                // The collector has removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("read", &path),
            }
            Ok(())
        };
        for folder in list(&self.root().join("objects"))? {
            match folder.is_dir() && !folder.is_symlink() {
                true => list(&folder)?.into_iter().try_for_each(&mut add)?,
                false => add(folder)?,
            }
        }
        list(&self.actions_path())?.into_iter().try_for_each(&mut add)?;
        for path in list(self.root())? {
            if path.is_symlink() || !path.is_dir() || !is_folder_of_a_cache(&path) {
                add(path)?;
            }
        }
        Ok(files)
    }
}

fn is_folder_of_a_cache(path: &Path) -> bool {
    let folders: HashSet<_> = cache_folder::FOLDERS.into_iter().collect();
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| folders.contains(name))
}

fn is_content(path: &Path, digest: &Digest) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    is_file && Digest::of_file(path).is_ok_and(|(found, _)| found == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> LocalStore {
        let mut store = LocalStore::with_secret(folder.join("cache"), folder.join("secret"));
        store.prepare().unwrap();
        store
    }

    /// Puts a content into the store, as a stage does.
    fn put(store: &LocalStore, bytes: &[u8]) -> PathBuf {
        let digest = Digest::of(bytes);
        let written = store.workspace().join("written");
        fs::write(&written, bytes).unwrap();
        store.put_object(&written, &store.object_path(&digest)).unwrap();
        store.object_path(&digest)
    }

    #[test]
    fn what_others_write_is_found_and_what_we_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let (old, input) = (put(&store, b"old"), folder.path().join("input"));
        fs::write(&input, b"input").unwrap();
        let inputs = [(input.as_path(), Digest::of(b"input"))];
        let before = store.snapshot(&inputs).unwrap();
        put(&store, b"new");
        fs::hard_link(&old, folder.path().join("link")).unwrap();
        assert_eq!(store.trespass(&before).unwrap(), None);

        let stranger = store.root().join("objects/ab/cd");
        fs::create_dir_all(stranger.parent().unwrap()).unwrap();
        fs::write(&stranger, b"x").unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(stranger));
        assert_eq!(store.trespass(&before).unwrap(), None, "it is removed");

        fs::remove_file(&old).unwrap();
        fs::write(&old, b"other").unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(old.clone()));
        assert!(!old.exists());

        fs::write(store.root().join("notes"), b"x").unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(store.root().join("notes")));

        let record = store.root().join(format!("actions/{}.json", Digest::of(b"key")));
        fs::write(&record, b"{}").unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(record));

        fs::write(&input, b"other").unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(input.clone()));
        fs::remove_file(&input).unwrap();
        assert_eq!(store.trespass(&before).unwrap(), Some(input));
    }
}
