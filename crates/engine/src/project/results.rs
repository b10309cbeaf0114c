//! Reads what the last build of a node made here.
//! Knows nothing of what is in the files.

use std::path::PathBuf;

use serde::Serialize;

use super::Project;
use crate::Error;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::stage::{Run, Stage};
use crate::store::{BuiltNode, read_checked};
use artifact::{Digest, FileEntry};

/// How a command made what a node has now.
#[derive(Clone, Debug, Serialize)]
pub struct LastRun {
    /// The program and its arguments as written.
    pub command: Vec<String>,
    /// What the user says of the version of the program.
    pub version: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What the command of `tool` wrote.
    pub tool: Option<String>,
    /// The files that it made, each with its size in bytes.
    pub files: Vec<(String, u64)>,
    /// Where its output is, if it ran here.
    pub log: Option<PathBuf>,
    /// The key of the action.
    pub key: Digest,
}

impl Project {
    /// Returns how a command made what `node` has now.
    ///
    /// # Errors
    /// Fails if the node was not built here, or if no command made it.
    pub fn last_run(&self, node: &str) -> Result<LastRun> {
        let built = self.state.nodes.get(node);
        let action = built.and_then(|built| Some((built.key, self.store.action(&built.key)?)));
        let read = action.and_then(|(key, action)| Some((key, Recipe::read(&action.recipe)?, action)));
        let Some((key, recipe, action)) = read else {
            let how = format!("`pipeline build {node}` makes it");
            return Err(Error::NotBuilt(format!("there is no record of `{node}` yet; {how}")));
        };
        let Stage::Run(Run { command, version, .. }) = recipe.stage().clone() else {
            return Err(Error::NotBuilt(format!(
                "no command made `{node}`; `pipeline build {node}` makes it"
            )));
        };
        let files = action.artifact.files().iter().map(|file| (file.path.clone(), file.size)).collect();
        let log = Some(self.store.log_path(&key)).filter(|log| log.exists());
        Ok(LastRun { command, version, seconds: action.seconds, tool: action.tool, files, log, key })
    }

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
