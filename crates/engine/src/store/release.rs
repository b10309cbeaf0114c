//! Removes the files of one artifact and keeps its record: a temporary node is done with.
//! Knows nothing of which node needs them.

use std::collections::HashSet;
use std::fs;

use super::files::{list, remove};
use super::unfinished::try_take;
use super::{Action, ArtifactsDir, LocalStore, StatCache};
use crate::error::Result;
use artifact::{Artifact, AtPath, Digest, IoError};

impl LocalStore {
    /// Removes the files of the node `name` from `artifacts_dir`, and those contents of `artifact` that no record names which
    /// needs them. `is_spare` says of a record that it does not. Returns how many bytes that freed. Returns `None` and does nothing if another process
    /// uses the cache, because it may be reading them.
    ///
    /// # Errors
    /// Fails if the cache or `artifacts_dir` cannot be read or written.
    pub fn release(
        &self,
        name: &str,
        artifact: &Artifact,
        is_spare: &dyn Fn(&Digest, &Action) -> bool,
        artifacts_dir: &ArtifactsDir,
        stats: &mut StatCache,
    ) -> Result<Option<u64>> {
        let _alone = self.gc_lock_exclusive()?;
        if self.is_shared_now()? {
            return Ok(None);
        }
        let actions = self.actions()?.into_iter().filter_map(|(key, _)| Some((key, self.action(&key)?)));
        let others = actions.filter(|(key, action)| !is_spare(key, action));
        let needed: HashSet<_> =
            others.flat_map(|(_, action)| action.artifact.files().to_vec()).map(|file| file.digest).collect();
        artifacts_dir.remove(name, artifact, self, stats)?;
        let mut freed = 0;
        for file in artifact.files().iter().filter(|file| !needed.contains(&file.digest)) {
            let object = self.object_path(&file.digest);
            if object.exists() {
                freed += file.size;
            }
            remove(&object)?;
            // This fails while the folder has other contents in it.
            let _ = object.parent().map(fs::remove_dir);
        }
        Ok(Some(freed))
    }

    /// Whether another process has a workspace here.
    fn is_shared_now(&self) -> Result<bool, IoError> {
        let own = self.workspace.as_ref().map(|workspace| workspace.folder.with_extension("lock"));
        let own = own.as_ref().and_then(|path| path.file_name());
        for path in list(&self.tmp())? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_lock = name.starts_with("run-") && name.ends_with(".lock");
            if is_lock && path.file_name() != own && path.exists() && try_take(&path, &path)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ArtifactsDir {
    /// Removes the name of a node and its hashed folder, if the name points at `artifact`.
    fn remove(
        &self,
        name: &str,
        artifact: &Artifact,
        store: &LocalStore,
        stats: &mut StatCache,
    ) -> Result<(), IoError> {
        let (link, folder) = (self.root().join(name), self.folder(name, artifact));
        if fs::read_link(&link).is_ok_and(|target| Some(target.as_os_str()) == folder.file_name()) {
            fs::remove_file(&link).at("remove", &link)?;
        }
        match folder.is_dir() && !folder.is_symlink() {
            true => self.discard(&folder, store, stats),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RecordOrigin;
    use artifact::FileEntry;

    /// Stores an artifact of these contents, each under its own text as a name, and records it.
    fn put(store: &LocalStore, contents: &[&str]) -> Artifact {
        let folder = store.workspace().join("made");
        fs::create_dir(&folder).unwrap();
        let entry = |text: &&str| {
            fs::write(folder.join(text), text).unwrap();
            let digest = Digest::of(text.as_bytes());
            FileEntry { digest, path: (*text).to_owned(), size: 1, volatile: false }
        };
        let artifact = Artifact::new(contents.iter().map(entry).collect());
        store.put_files(&folder, &artifact).unwrap();
        let recipe = serde_json::json!({});
        let action = Action { artifact: artifact.clone(), failure: None, recipe, seconds: 0.1, tool: None };
        store.put_record(&artifact.digest(), &action, RecordOrigin::Here).unwrap();
        artifact
    }

    #[test]
    fn what_others_need_stays_and_the_record_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = LocalStore::with_secret(folder.path().join("cache"), folder.path().join("secret"));
        store.prepare().unwrap();
        let artifacts_dir = ArtifactsDir::new(folder.path().join("artifacts"));
        let mut stats = StatCache::default();
        let (own, other) = (put(&store, &["a", "b"]), put(&store, &["b", "c"]));
        artifacts_dir.put("own", &own, &store, &mut stats).unwrap();
        let mut neighbour =
            LocalStore::with_secret(folder.path().join("cache"), folder.path().join("secret"));
        neighbour.prepare().unwrap();
        let is_spare = |key: &Digest, _: &Action| *key == own.digest();
        let mut release = || store.release("own", &own, &is_spare, &artifacts_dir, &mut stats).unwrap();
        assert_eq!(release(), None, "another process may be reading it");
        neighbour.finish().unwrap();
        drop(neighbour);
        assert_eq!(release(), Some(1));
        let is_there = |text: &str| store.object_path(&Digest::of(text.as_bytes())).exists();
        assert_eq!(["a", "b", "c"].map(is_there), [false, true, true]);
        assert!(store.action(&own.digest()).is_some());
        assert!(
            !artifacts_dir.root().join("own").is_symlink() && !artifacts_dir.folder("own", &own).exists()
        );
        assert!(store.action(&other.digest()).is_some());
        assert_eq!(release(), Some(0), "once more changes nothing");
    }
}
