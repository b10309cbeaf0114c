//! HTTP requests to the hub: addresses, timeouts, redirects, and error messages.
//! Knows nothing of files on this machine.
//!
//! The crate `hf-hub` is not used. It renames a file into the cache without checking its length or digest,
//! it starts over when the connection is lost in the middle of a run, and it trusts other certificates than
//! the system does. Version 1.0 of the crate does no better there, is asynchronous, and adds 175 packages
//! (`hf-xet` cannot be left out).
//!
//! The token goes to the hub's own origin and nowhere else: the hub redirects large files to other hosts.

use std::env::var;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::Address;
use super::cache::{Token, token_path};
use super::pauses::Fault;
use crate::Error;
use crate::error::{Result, require};
use crate::origin::Origin;
use text::without_password;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long the server may be silent. This is short because Ctrl-C is checked between two reads. A slow
/// answer only costs another attempt.
const SILENCE: Duration = Duration::from_secs(10);

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 10;

/// The longest answer about a repository, in bytes.
const LONGEST_INFO: u64 = 64 << 20;

/// The hub, at the address that `HF_ENDPOINT` names.
pub(super) struct Web {
    agent: Agent,
    /// The address as it is used.
    address: Address,
    /// The address as it is shown: without a password.
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
    pub(super) fn from_env() -> Result<Self> {
        let offline = var("HF_HUB_OFFLINE")
            .is_ok_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        require!(
            !offline,
            Hub,
            "the hub must be asked, but HF_HUB_OFFLINE is set; unset it, or use a folder as `source`"
        );
        let endpoint = var("HF_ENDPOINT").ok().filter(|value| !value.is_empty());
        let endpoint = endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT).trim_end_matches('/').to_owned();
        let shown = without_password(&endpoint);
        let address = Address::parse(&endpoint);
        let address =
            address.ok_or_else(|| Error::Hub(format!("`{shown}` in HF_ENDPOINT is not an address")))?;
        // The certificates of the system and of SSL_CERT_FILE: companies have their own.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .build();
        Ok(Self { agent: agent.into(), address, endpoint: shown, token: Token::find() })
    }

    /// Requests the commit and the files of `repo` at `revision`, with the length and digest of each file.
    pub(super) fn info(&self, repo: &str, revision: &str) -> Result<Info, Fault> {
        // A branch may have a slash in its name.
        let path = format!("/api/models/{repo}/revision/{}?blobs=true", revision.replace('/', "%2F"));
        let mut response = self.request(&path, 0, Some(3 * SILENCE))?;
        self.check(&response, repo, &format!("the revision `{revision}`"))?;
        let read = response.body_mut().with_config().limit(LONGEST_INFO).read_json();
        read.map_err(|error| match error {
            ureq::Error::Json(error) => {
                let problem = format!("{} answers of `{repo}` what is none of a hub's", self.endpoint);
                Fault::Lasting(Error::Hub(format!("{problem}: {error}")))
            }
            error => self.unreachable(error),
        })
    }

    /// Requests the bytes of a file, starting at the offset `start` in bytes.
    pub(super) fn get(&self, origin: &Origin, name: &str, start: u64) -> Result<Response<Body>, Fault> {
        let path = format!("/{}/resolve/{}/{}", origin.repo, origin.commit, percent_encode(name));
        let response = self.request(&path, start, None)?;
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.check(&response, &origin.repo, &format!("`{name}` at {}", origin.commit))?;
        }
        Ok(response)
    }

    /// Requests `path` from the hub, and follows its redirects. `limit` is the longest time that the whole answer
    /// may take.
    fn request(&self, path: &str, start: u64, limit: Option<Duration>) -> Result<Response<Body>, Fault> {
        let mut at = self.address.join(path);
        for _ in 0..MOST_REDIRECTS {
            // Without this header the server may compress the body, and its length would not be the listed one.
            let request = self.agent.get(at.text()).config().timeout_global(limit).build();
            let mut request = request.header("Accept-Encoding", "identity");
            if let Some(token) = self.token.as_ref().filter(|_| at.has_origin_of(&self.address)) {
                request = request.header("Authorization", format!("Bearer {}", token.text));
            }
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| self.unreachable(error))?;
            let location = response.headers().get("Location").and_then(|location| location.to_str().ok());
            match location.filter(|_| response.status().is_redirection()) {
                Some(location) => {
                    at = at.follow(location).ok_or_else(|| {
                        let location = text::shown(location);
                        Fault::Lasting(Error::Hub(format!("{} redirects to `{location}`", self.endpoint)))
                    })?;
                }
                None => return Ok(response),
            }
        }
        Err(Fault::Lasting(Error::Hub(format!("{} redirects without end", self.endpoint))))
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
        let shown = without_password(&error.to_string());
        let problem = format!(
            "cannot reach {}: {shown}; use a folder as `source`, or build where the hub is reachable",
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

/// Percent-encodes a file name for a URL.
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
