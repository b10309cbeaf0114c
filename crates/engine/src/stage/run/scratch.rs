//! The scratch folder of a command: links to its inputs, copies of the files of the project that it names, an empty
//! folder for what it makes, and one for temporary files. All of it goes when the command is done.
//! Knows nothing of the command itself.
//!
//! ```text
//! inputs/NAME/…     links to the files of an input
//! project/PATH      a copy of a file of the project
//! out/              what the command makes
//! tmp/              TMPDIR
//! ```
//! The command runs in this folder, and gets paths that are relative to it. So what it writes about its own arguments is
//! the same on every machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{OUT, Run};
use crate::error::{Error, OrBug, Result, require};
use crate::paths::open_up;
use crate::stage::{InputFile, Inputs};
use artifact::{AtPath, Digest, IoError};

/// The folder with the inputs.
const INPUTS: &str = "inputs";

/// The folder for temporary files.
const TEMPORARY: &str = "tmp";

/// The folder with the files of the project.
const PROJECT: &str = "project";

/// A scratch folder. It is removed when this is dropped.
pub(super) struct Scratch {
    folder: PathBuf,
    /// The folder of the pipeline file.
    root: PathBuf,
    /// For each place in the command, the path from this folder.
    paths: BTreeMap<String, String>,
    /// The links to the files of inputs, by their path from this folder, and what they lead to.
    links: BTreeMap<String, PathBuf>,
}

impl Scratch {
    /// Makes the folder beside `output`.
    pub(super) fn make(output: &Path, parameters: &Run, inputs: &Inputs) -> Result<Self> {
        let folder = output.with_extension("scratch");
        remove(&folder)?;
        let mut scratch = Self {
            folder,
            root: inputs.root.clone(),
            paths: [(OUT.to_owned(), OUT.to_owned())].into(),
            links: BTreeMap::new(),
        };
        for name in [OUT, INPUTS, PROJECT, TEMPORARY] {
            scratch.make_folder(name)?;
        }
        for name in inputs.folders.keys() {
            scratch.make_folder(&format!("{INPUTS}/{name}"))?;
            scratch.paths.insert(name.clone(), format!("{INPUTS}/{name}"));
        }
        for file in &inputs.files {
            scratch.add_input(file, inputs)?;
        }
        for file in parameters.project_files() {
            let (path, digest) =
                inputs.project_files.get(&file).or_bug("the files of a command are known")?;
            scratch.add_file(&file, path, *digest)?;
        }
        Ok(scratch)
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the folder for what is made.
    pub(super) fn out(&self) -> PathBuf {
        self.folder.join(OUT)
    }

    /// Returns the folder for temporary files.
    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join(TEMPORARY)
    }

    /// Returns the path of a program: one of the user with a `/` is relative to the folder of the pipeline file, and one
    /// that stands in a place lies here.
    pub(super) fn program(&self, program: &str, is_constant: bool) -> PathBuf {
        if is_constant { resolve(&self.root, program) } else { self.folder.join(program) }
    }

    /// Empties the folders that a command may write to.
    pub(super) fn empty(&self) -> Result<(), IoError> {
        for name in [OUT, TEMPORARY] {
            let folder = self.folder.join(name);
            open_up(&folder);
            remove(&folder)?;
            self.make_folder(name)?;
        }
        Ok(())
    }

    /// Makes all folders readable that the command has left otherwise.
    pub(super) fn open_up(&self) {
        open_up(&self.folder);
    }

    /// Returns the path that stands in a place of the command.
    pub(super) fn path_of(&self, place: &str) -> String {
        self.paths.get(place).cloned().unwrap_or_default()
    }

    /// Whether a link to this file may be taken for the file: it is in an input.
    pub(super) fn is_of_an_input(&self, real: &Path) -> bool {
        self.links.values().any(|target| target.canonicalize().is_ok_and(|target| target == real))
    }

    /// Checks that the links to the inputs are as they were made.
    pub(super) fn check_inputs(&self) -> Result<()> {
        let changed = |path: &str, how: &str| {
            let mut parts = path.splitn(3, '/').skip(1);
            let (name, file) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            Err(Error::Command(format!(
                "the command {how} `{file}` in its input `{name}`; inputs are read-only: what it makes goes into {{out}}"
            )))
        };
        let mut found = Vec::new();
        list(&self.folder.join(INPUTS), INPUTS, &mut found)?;
        for path in &found {
            match self.links.get(path) {
                None => return changed(path, "made"),
                Some(target) if fs::read_link(self.folder.join(path)).is_ok_and(|now| now == *target) => {}
                Some(_) => return changed(path, "replaced"),
            }
        }
        match self.links.keys().find(|path| !found.contains(path)) {
            Some(path) => changed(path, "removed"),
            None => Ok(()),
        }
    }

    fn make_folder(&self, name: &str) -> Result<(), IoError> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).at("create", &path)
    }

    /// Links to a file of an input. If the input is a single file, the file stands for it.
    fn add_input(&mut self, file: &InputFile, inputs: &Inputs) -> Result<()> {
        let InputFile { role, name, path, .. } = file;
        let link = format!("{INPUTS}/{role}/{name}");
        if let Some((folder, _)) = link.rsplit_once('/') {
            self.make_folder(folder)?;
        }
        if inputs.folders.get(role) == Some(path) {
            self.paths.insert(role.clone(), link.clone());
        }
        Ok(self.link(path.clone(), link)?)
    }

    fn link(&mut self, target: PathBuf, path: String) -> Result<(), IoError> {
        let link = self.folder.join(&path);
        symlink(&target, &link).at("link", &link)?;
        self.links.insert(path, target);
        Ok(())
    }

    /// Copies a file of the project, which must still be what the key says.
    fn add_file(&mut self, name: &str, file: &Path, digest: Digest) -> Result<()> {
        let path = format!("{PROJECT}/{name}");
        let copy = self.folder.join(&path);
        let parent = copy.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).at("create", parent)?;
        fs::copy(file, &copy).at("copy", file)?;
        let (copied, _) = Digest::of_file(&copy).at("read", &copy)?;
        require!(copied == digest, Source, "`{name}` was changed while the build ran; build again");
        self.paths.insert(format!("{}{name}", super::FILE_ROLE), path);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        open_up(&self.folder);
        // What cannot be removed now goes with the workspace of this process.
        let _ = remove(&self.folder);
    }
}

/// Returns the path of a program: one with a `/` is relative to the folder of the pipeline file.
pub(super) fn resolve(root: &Path, program: &str) -> PathBuf {
    if program.contains('/') { root.join(program) } else { program.into() }
}

/// Lists what is below `folder`, without following links.
fn list(folder: &Path, prefix: &str, found: &mut Vec<String>) -> Result<(), IoError> {
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        match entry.file_type().at("read", &entry.path())?.is_dir() {
            true => list(&entry.path(), &path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), IoError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", folder),
        _ => Ok(()),
    }
}
