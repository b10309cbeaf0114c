//! The origin of a node on the Hugging Face hub: the repository, the requested revision, and the commit.
//! Knows nothing of the network, nor of where downloaded files are kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use weights::checkpoint::ModelOrigin;

/// The prefix of a source on the hub in `pipeline.yaml`.
pub const PREFIX: &str = "hf:";

/// The branch that is used if no revision is given.
const DEFAULT_REVISION: &str = "main";

/// A source as the user wrote it: `hf:ORG/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSource {
    /// `ORG/NAME`.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// The text after `hf:` is not a repository, or the revision after it is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// It is not `ORG/NAME`.
    #[error("`{0}` is not a model on the hub; write `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`")]
    Repository(String),
    /// What follows the `@` cannot be a branch, a tag or a commit.
    #[error("`{0}` cannot be a revision; write a branch, a tag or a commit after the `@`")]
    Revision(String),
}

impl HubSource {
    /// Parses the text after `hf:`. Both parts are used in URLs and in paths, so only plain characters are
    /// accepted.
    ///
    /// # Errors
    /// Fails if the text is not `ORG/NAME` or `ORG/NAME@REVISION`, or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidSource> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let whole = repo.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name));
        if !whole {
            return Err(InvalidSource::Repository(repo.to_owned()));
        }
        let revision_is_plain = revision.split('/').all(is_name) && !revision.contains("..");
        if !revision_is_plain {
            return Err(InvalidSource::Revision(revision.to_owned()));
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// Returns the commit, if the revision is one. Then the hub need not be asked.
    pub fn commit(&self) -> Option<Commit> {
        self.revision.parse().ok()
    }
}

/// Whether `part` is a valid part of a repository name or of a revision.
fn is_name(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(plain)
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}@{}", self.repo, self.revision)
    }
}

/// A git commit: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(String);

/// The text is not 40 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a commit of 40 hexadecimal digits")]
pub struct InvalidCommit(String);

impl Commit {
    /// Returns the first 12 digits: enough for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for Commit {
    type Err = InvalidCommit;

    fn from_str(text: &str) -> Result<Self, InvalidCommit> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Commit {
    type Error = InvalidCommit;

    fn try_from(text: String) -> Result<Self, InvalidCommit> {
        let hex = text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(text)) } else { Err(InvalidCommit(text)) }
    }
}

impl From<Commit> for String {
    fn from(commit: Commit) -> Self {
        commit.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository at a commit: what a model was made from. Written `ORG/NAME@COMMIT`. The fields are in
/// alphabetical order, because it is hashed as canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The commit.
    pub commit: Commit,
    /// `ORG/NAME`.
    pub repo: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repo, self.commit)
    }
}

impl From<Origin> for ModelOrigin {
    fn from(origin: Origin) -> Self {
        Self { repo: origin.repo, commit: origin.commit.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let read = |text: &str| HubSource::parse(text).map(|source| source.to_string());
        assert_eq!(read("mlx-community/Qwen2.5-0.5B"), Ok("hf:mlx-community/Qwen2.5-0.5B@main".to_owned()));
        assert_eq!(read("org/name@refs/pr/3"), Ok("hf:org/name@refs/pr/3".to_owned()));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(HubSource::parse(&format!("o/n@{commit}")).unwrap().commit().unwrap().to_string(), commit);
        assert_eq!(HubSource::parse("o/n@main").unwrap().commit(), None);
    }

    #[test]
    fn refuses_what_leads_elsewhere() {
        for text in ["", "name", "org/", "../name", "org/..", "a/b/c", "o/n?x", "o/n x", "o\\n/m"] {
            assert!(matches!(HubSource::parse(text), Err(InvalidSource::Repository(_))), "{text}");
        }
        for revision in ["", "a..b", "/a", "a/", "a b", "a#b", "a\"b", "-a"] {
            let text = format!("org/name@{revision}");
            assert!(matches!(HubSource::parse(&text), Err(InvalidSource::Revision(_))), "{text}");
        }
    }
}
