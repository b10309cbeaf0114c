//! What a shared folder needs beyond `object_store`, which follows links: a member without a key could place a
//! link there, and have others write, delete or wait somewhere else.
//! Knows nothing of what the objects are.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::RemoteObject;

/// The folder of a `file://` remote.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Checks that the folders in an object's name are no links. The object itself is replaced when it is written.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        let mut path = self.root.clone();
        let (folders, _) = name.rsplit_once('/').unwrap_or(("", name));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            let metadata = match path.symlink_metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                metadata => metadata.map_err(|error| error.to_string())?,
            };
            if !metadata.is_dir() {
                let what = if metadata.is_symlink() { "a link" } else { "not a folder" };
                return Err(format!("{} is {what}; somebody else put it there", path.display()));
            }
        }
        Ok(())
    }

    /// Whether there is a regular file under this name. A link or a pipe counts as nothing.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Returns the regular files below `folder`, sorted by name. Links and everything behind them are left out.
    ///
    /// # Errors
    /// Fails if a folder cannot be read.
    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<RemoteObject>> {
        let mut found = Vec::new();
        if self.root.join(folder).symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            walk(&self.root.join(folder), folder, &mut found)?;
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes an object. A missing one is not an error.
    ///
    /// # Errors
    /// Fails if the system refuses, or if a part of the name is a link.
    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        self.check(name)?;
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<RemoteObject>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let metadata = match entry.path().symlink_metadata() {
            // Another collector removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_dir() {
            walk(&entry.path(), &name, found)?;
        } else if metadata.is_file() {
            found.push(RemoteObject { name, size: metadata.len(), modified: metadata.modified()? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let (root, victim) = (temporary.path().join("remote"), temporary.path().join("victim"));
        for folder in [root.join("chunks/ab"), victim.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(root.join("chunks/ab/c"), "x").unwrap();
        fs::write(victim.join("key"), "x").unwrap();
        symlink(&victim, root.join("files")).unwrap();
        symlink(&victim, root.join("chunks/zz")).unwrap();
        symlink(victim.join("key"), root.join("chunks/ab/d")).unwrap();
        let folder = Folder::new(root);
        let names: Vec<_> = folder.list("chunks").unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!(names, ["chunks/ab/c"]);
        assert_eq!(folder.list("files").unwrap(), []);
        for name in ["files/key", "chunks/zz/key"] {
            assert!(folder.check(name).unwrap_err().contains("is a link"), "{name}");
            assert!(folder.remove(name).is_err(), "{name}");
        }
        assert!(folder.has("chunks/ab/c") && !folder.has("chunks/ab/d"));
        folder.remove("chunks/ab/d").unwrap();
        assert!(victim.join("key").exists());
        folder.check("chunks/ab/new").unwrap();
        folder.remove("chunks/ab/c").unwrap();
    }
}
