//! Reads what the last build of a node made here.
//! Knows nothing of what is in the files.

use super::Project;
use crate::Error;
use crate::error::Result;
use crate::store::{BuiltNode, read_checked};
use artifact::FileEntry;

impl Project {
    /// Reads a file that the last build of `node` here made. What lies in `artifacts/` counts only if it is that
    /// file.
    ///
    /// # Errors
    /// Fails if the node was not built here, makes no such file, or if the file is gone or was altered.
    pub fn read_built(&self, node: &str, file: &str) -> Result<Vec<u8>> {
        let built = self.state.nodes.get(node);
        let entry = built.and_then(|built| Some((built, built.artifact.file(file)?)));
        let read = |(built, entry): (&BuiltNode, &FileEntry)| {
            let path = self.artifacts_dir.folder(node, &built.artifact).join(file);
            let stored = || self.store.read_content(&entry.digest).ok();
            read_checked(&path, &entry.digest).ok().or_else(stored)
        };
        let missing = || {
            Error::NotBuilt(format!("there is no result of `{node}` yet; `pipeline build {node}` makes it"))
        };
        entry.and_then(read).ok_or_else(missing)
    }
}
