//! HTTP requests to the hub: URLs and headers from the crate `hf_hub`, timeouts, and error messages.
//! Knows nothing of files on this machine.
//!
//! The crate's own download is not used. It renames a file into the cache without checking its length or
//! digest, and it starts over when the connection is lost in the middle of a run. Version 1.0 of the crate
//! does no better there, is asynchronous, and adds 175 packages (`hf-xet` cannot be left out); version 0.5
//! adds 28. Both numbers were measured.

use std::env::var;
use std::io;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::cache::{HubCache, Token, token_path};
use super::pauses::Fault;
use crate::Error;
use crate::error::{Result, require};
use crate::origin::Origin;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long the server may be silent. This is short because Ctrl-C is checked between two reads. A slow
/// answer only costs another attempt.
const SILENCE: Duration = Duration::from_secs(10);

/// The hub, at the address that `HF_ENDPOINT` names.
pub(super) struct Web {
    api: Api,
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

/// What the hub says about a repository at a revision.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) sha: String,
    #[serde(default)]
    pub(super) siblings: Vec<Sibling>,
}

/// One file of a repository. The hub sends the fields other than the name only on request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sibling {
    pub(super) rfilename: String,
    pub(super) size: Option<u64>,
    /// Git's sha1 of the file, or of the git LFS pointer of a large file.
    pub(super) blob_id: Option<String>,
    pub(super) lfs: Option<Lfs>,
}

/// The LFS entry of a file that is too large for git.
#[derive(Debug, Deserialize)]
pub(super) struct Lfs {
    pub(super) sha256: String,
    pub(super) size: u64,
}

impl Web {
    pub(super) fn from_env(cache: &HubCache) -> Result<Self> {
        let offline = var("HF_HUB_OFFLINE")
            .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        require!(
            !offline,
            Hub,
            "the hub must be asked, but HF_HUB_OFFLINE is set; unset it, or use a folder as `source`"
        );
        let endpoint = var("HF_ENDPOINT").ok().filter(|value| !value.is_empty());
        let endpoint = endpoint.map_or_else(
            || DEFAULT_ENDPOINT.to_owned(),
            |endpoint| endpoint.trim_end_matches('/').to_owned(),
        );
        let token = Token::find();
        let api = ApiBuilder::from_cache(Cache::new(cache.root().to_owned()))
            .with_endpoint(endpoint.clone())
            .with_token(token.as_ref().map(|token| token.text.clone()))
            .with_user_agent("pipeline", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| Error::Hub(format!("cannot set up the client of the hub: {error}")))?;
        // The hub redirects large files to another host, which must not see the token.
        let agent = Agent::config_builder()
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .build();
        Ok(Self { api, agent: agent.into(), endpoint, token })
    }

    /// Requests the commit and the files of `repo` at `revision`, with the length and digest of each file.
    pub(super) fn info(&self, repo: &str, revision: &str) -> Result<Info, Fault> {
        let at = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
        let request = self.api.repo(at).info_request().query("blobs", "true");
        let request = request
            .config()
            .http_status_as_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_global(Some(3 * SILENCE))
            .build();
        let mut response = request.call().map_err(|error| self.unreachable(error))?;
        self.check(&response, repo, &format!("the revision `{revision}`"))?;
        response.body_mut().read_json().map_err(|error| match error {
            ureq::Error::Json(error) => {
                let problem = format!("{} answers of `{repo}` what is none of a hub's", self.endpoint);
                Fault::Lasting(Error::Hub(format!("{problem}: {error}")))
            }
            error => self.unreachable(error),
        })
    }

    /// Requests the bytes of a file, starting at the offset `start` in bytes.
    pub(super) fn get(&self, origin: &Origin, name: &str, start: u64) -> Result<Response<Body>, Fault> {
        let at = Repo::with_revision(origin.repo.clone(), RepoType::Model, origin.commit.to_string());
        let url = self.api.repo(at).url(&percent_encode(name));
        // Without this header the server may compress the body, and its length would not be the listed one.
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.text));
        }
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| self.unreachable(error))?;
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.check(&response, &origin.repo, &format!("`{name}` at {}", origin.commit))?;
        }
        Ok(response)
    }

    /// Turns an HTTP status into an error message. `asked` says what was requested from the repository.
    fn check(&self, response: &Response<Body>, repo: &str, asked: &str) -> Result<(), Fault> {
        let status = response.status();
        let code = response.headers().get("X-Error-Code").and_then(|code| code.to_str().ok());
        let endpoint = &self.endpoint;
        if status.is_success() {
            return Ok(());
        }
        Err(match (status.as_u16(), code) {
            (401 | 403, _) => Fault::Lasting(Error::Hub(self.denied(repo, status.as_u16()))),
            (404, Some("RepoNotFound")) => Fault::Lasting(Error::Hub(format!(
                "there is no model `{repo}` at {endpoint}; look at the name behind `hf:`"
            ))),
            (404, _) => Fault::Lasting(Error::Hub(format!(
                "`{repo}` at {endpoint} does not have {asked}; its branches and tags are at \
                 {endpoint}/{repo}/tree/main"
            ))),
            (408 | 429 | 500..=599, _) => Fault::Passing(Error::Hub(format!(
                "{endpoint} is asked for `{repo}` and answers {status}; build again later, or use a folder as \
                 `source`"
            ))),
            _ => Fault::Lasting(Error::Hub(format!("{endpoint} is asked for `{repo}` and answers {status}"))),
        })
    }

    fn denied(&self, repo: &str, status: u16) -> String {
        let page = format!("{}/{repo}", self.endpoint);
        match &self.token {
            Some(Token { place, .. }) => format!(
                "`{repo}` is private, gated or not there, and the token from {place} is not let in (HTTP {status}); \
                 ask for access at {page}, or set HF_TOKEN to a token that has it"
            ),
            None => format!(
                "`{repo}` is private, gated or not there (HTTP {status}), and no token was found: HF_TOKEN is not \
                 set and {} is not there; ask for access at {page}, then set HF_TOKEN or run `hf auth login`",
                token_path().display()
            ),
        }
    }

    /// Turns a failed connection into an error message.
    pub(super) fn unreachable(&self, error: ureq::Error) -> Fault {
        let problem = format!(
            "cannot reach {}: {error}; use a folder as `source`, or build where the hub is reachable",
            self.endpoint
        );
        // If nobody listens there or there is no network, a retry only keeps the user waiting. The system's
        // error goes into the text and not into the error chain, because the hints for disk errors do not fit
        // it.
        match error {
            ureq::Error::HostNotFound | ureq::Error::BadUri(_) => Fault::Lasting(Error::Hub(problem)),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Fault::Lasting(Error::Hub(problem))
            }
            _ => Fault::Passing(Error::Hub(problem)),
        }
    }
}

/// Percent-encodes a file name for a URL, because the crate inserts it as it is.
fn percent_encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_what_means_something_in_an_address() {
        assert_eq!(percent_encode("a/b-c_d.e~f"), "a/b-c_d.e~f");
        assert_eq!(percent_encode("a b#c?d%é"), "a%20b%23c%3Fd%25%C3%A9");
    }
}
