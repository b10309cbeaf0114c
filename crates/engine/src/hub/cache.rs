//! The hub's cache on this machine, in the layout of the Python library, and the access token beside it.
//! Knows nothing of the network. Each of the two programs finds what the other downloaded.
//!
//! ```text
//! hub/models--ORG--NAME/blobs/ETAG               the content; ETAG: sha256 if large, git's sha1 if small
//! hub/models--ORG--NAME/snapshots/COMMIT/PATH    a link to the content
//! hub/models--ORG--NAME/refs/REVISION            the commit of a branch or tag when it was last resolved
//! hub/.locks/models--ORG--NAME/ETAG.lock         the lock held during the download of that content
//! ```

use std::env::{home_dir, var_os};
use std::fs;
use std::path::{Path, PathBuf};

use crate::origin::{Commit, HubSource, Origin};
use crate::paths::expand_leniently;

/// The folder in which all programs of this user keep downloaded models.
#[derive(Clone, Debug)]
pub struct HubCache {
    root: PathBuf,
}

/// The access token for private and gated repositories.
pub(super) struct Token {
    pub(super) text: String,
    /// Where it was found: a variable or a path, for messages.
    pub(super) place: String,
}

impl HubCache {
    /// Finds the folder from the environment variables that the Python library uses.
    pub fn from_env() -> Self {
        let root = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let root = root.unwrap_or_else(|| home().join("hub"));
        // The path must be absolute, because `artifacts/NAME` links into it from another folder.
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder for the files of a commit, whether it exists or not.
    pub fn snapshot(&self, origin: &Origin) -> PathBuf {
        self.repository(&origin.repo).join("snapshots").join(origin.commit.to_string())
    }

    /// Returns the path of a content, whether it exists or not.
    pub(super) fn blob(&self, repo: &str, etag: &str) -> PathBuf {
        self.repository(repo).join("blobs").join(etag)
    }

    /// Returns the file that is locked while a content is downloaded.
    pub(super) fn lock(&self, repo: &str, etag: &str) -> PathBuf {
        self.root.join(".locks").join(folder_name(repo)).join(format!("{etag}.lock"))
    }

    /// Writes the current commit of a branch or tag, for programs that look it up without the network. Errors
    /// are ignored: this tool does not depend on the note.
    pub(super) fn note(&self, source: &HubSource, commit: &Commit) {
        let path = self.repository(&source.repo).join("refs").join(&source.revision);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        let _ = fs::create_dir_all(folder).and_then(|()| {
            let mut file = tempfile::Builder::new().prefix(name).tempfile_in(folder)?;
            std::io::Write::write_all(&mut file, commit.to_string().as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        });
    }

    fn repository(&self, repo: &str) -> PathBuf {
        self.root.join(folder_name(repo))
    }
}

impl Token {
    /// Looks for a token where the Python library does.
    pub(super) fn find() -> Option<Self> {
        if let Some(text) = var_os("HF_TOKEN").and_then(|text| text.into_string().ok())
            && !text.trim().is_empty()
        {
            return Some(Self { text: text.trim().to_owned(), place: "HF_TOKEN".to_owned() });
        }
        let path = token_path();
        let text = fs::read_to_string(&path).ok()?.trim().to_owned();
        (!text.is_empty()).then(|| Self { text, place: path.display().to_string() })
    }
}

/// Returns the path of the file to which `hf auth login` writes the token.
pub(super) fn token_path() -> PathBuf {
    variable("HF_TOKEN_PATH").unwrap_or_else(|| home().join("token"))
}

fn home() -> PathBuf {
    variable("HF_HOME").unwrap_or_else(|| {
        let caches = variable("XDG_CACHE_HOME").or_else(|| home_dir().map(|home| home.join(".cache")));
        caches.unwrap_or_default().join("huggingface")
    })
}

/// Returns a path from an environment variable, with `~` and variables in it expanded, as the Python library
/// does; `None` if it is unset or empty.
fn variable(name: &str) -> Option<PathBuf> {
    let value = var_os(name).filter(|value| !value.is_empty())?;
    Some(value.to_str().map_or_else(|| PathBuf::from(&value), expand_leniently))
}

fn folder_name(repo: &str) -> String {
    format!("models--{}", repo.replace('/', "--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_laid_out_as_the_python_library_does_it() {
        let cache = HubCache { root: PathBuf::from("/hub") };
        let origin = Origin { commit: "1".repeat(40).parse().unwrap(), repo: "org/name".to_owned() };
        let snapshot = format!("/hub/models--org--name/snapshots/{}", "1".repeat(40));
        assert_eq!(cache.snapshot(&origin), Path::new(&snapshot));
        assert_eq!(cache.blob("org/name", "ab"), Path::new("/hub/models--org--name/blobs/ab"));
        assert_eq!(cache.lock("org/name", "ab"), Path::new("/hub/.locks/models--org--name/ab.lock"));
    }
}
