//! A hub on loopback with the addresses and headers of the real one, which misbehaves on demand.
//! Knows nothing of the program under test: files are hashed here as git and LFS do it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::{Value, json};

/// The only repository.
pub(crate) const REPO: &str = "org/pico";

/// What the hub has, and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    /// The commit of each branch and tag.
    pub(crate) refs: BTreeMap<String, String>,
    /// The files of each commit.
    pub(crate) commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The path of each request, and where its range starts if it has one.
    pub(crate) requests: Vec<String>,
    /// How many bytes of files were sent.
    pub(crate) sent: usize,
    /// The token that a client must send.
    pub(crate) token: Option<String>,
    /// The address of the host with the large files; if `None`, this machine under another name.
    pub(crate) cdn: Option<String>,
    /// After how many bytes the next connections that send a large file are cut, in order.
    pub(crate) cuts: Vec<usize>,
    /// Large files are sent a few bytes at a time.
    pub(crate) slow: bool,
    /// Large files are sent with a byte changed.
    pub(crate) garbled: bool,
    /// Large files are sent without their last byte, and with a length to match.
    pub(crate) short: bool,
    /// A file that is listed but does not exist.
    pub(crate) extra: Option<String>,
}

/// The hub. It runs for as long as the process lives.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// A request.
struct Request {
    path: String,
    start: usize,
    token: Option<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                // A client may go away before the answer ends; that is ignored.
                thread::spawn(move || stream.map(|stream| answer(stream, port, &state)));
            }
        });
        Self { port, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a commit with these files on `branch`, and returns it.
    pub(crate) fn commit(&self, branch: &str, files: BTreeMap<String, Vec<u8>>) -> String {
        let mut state = self.state();
        let commit = format!("{:040x}", 0xc0ffee + state.commits.len());
        state.refs.insert(branch.to_owned(), commit.clone());
        state.commits.insert(commit.clone(), files);
        commit
    }

    /// Returns the requests since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }
}

impl State {
    fn info(&self, revision: &str) -> Option<Value> {
        let sha = self.refs.get(revision).map_or(revision, String::as_str);
        let files = self.commits.get(sha)?;
        let mut siblings: Vec<_> = files.iter().map(|(name, bytes)| sibling(name, bytes)).collect();
        siblings.extend(self.extra.as_ref().map(|name| sibling(name, b"")));
        Some(json!({"id": REPO, "sha": sha, "siblings": siblings}))
    }

    fn large(&self, etag: &str) -> Option<Vec<u8>> {
        let mut files = self.commits.values().flat_map(BTreeMap::values);
        let mut bytes = files.find(|bytes| sha256(bytes) == etag)?.clone();
        if self.garbled {
            bytes[0] ^= 1;
        }
        if self.short {
            bytes.pop();
        }
        Some(bytes)
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn sibling(name: &str, bytes: &[u8]) -> Value {
    let mut sibling = json!({"rfilename": name, "size": bytes.len(), "blobId": git_sha1(bytes)});
    if is_large(name) {
        sibling["lfs"] = json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
    }
    sibling
}

fn answer(stream: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let request = read(&stream)?;
    let cdn = request.path.strip_prefix("/cdn/").map(str::to_owned);
    let mut guard = state.lock().unwrap();
    let range = if request.start > 0 { format!(" from {}", request.start) } else { String::new() };
    guard.requests.push(format!("{}{range}", request.path));
    if let Some(etag) = cdn {
        assert_eq!(request.token, None, "the token went to another host");
        let Some(bytes) = guard.large(&etag) else { return head(&stream, "404 Not Found", "", 0) };
        let cut = if guard.cuts.is_empty() { usize::MAX } else { guard.cuts.remove(0) };
        let slow = guard.slow;
        drop(guard);
        return send(stream, &bytes, request.start, cut, slow, state);
    }
    if guard.token.is_some() && guard.token != request.token {
        return head(&stream, "401 Unauthorized", "X-Error-Code: GatedRepo\r\n", 0);
    }
    let path = request.path.split('?').next().unwrap();
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{REPO}/revision/")) {
        let Some(info) = guard.info(&revision.replace("%2F", "/")) else {
            return head(&stream, "404 Not Found", "X-Error-Code: RevisionNotFound\r\n", 0);
        };
        let body = info.to_string();
        head(&stream, "200 OK", "Content-Type: application/json\r\n", body.len())?;
        return (&stream).write_all(body.as_bytes());
    }
    let file = path.strip_prefix(&format!("/{REPO}/resolve/")).and_then(|rest| rest.split_once('/'));
    let Some((commit, name)) = file else {
        return head(&stream, "404 Not Found", "X-Error-Code: RepoNotFound\r\n", 0);
    };
    let name = &decode(name);
    let Some(bytes) = guard.commits.get(commit).and_then(|files| files.get(name)).cloned() else {
        return head(&stream, "404 Not Found", "X-Error-Code: EntryNotFound\r\n", 0);
    };
    if is_large(name) {
        let etag = sha256(&bytes);
        let size = bytes.len();
        // This is another name of this machine, as the hub keeps large files on another host.
        let cdn = guard.cdn.clone().unwrap_or_else(|| format!("http://localhost:{port}"));
        let headers = format!(
            "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n\
             Location: {cdn}/cdn/{etag}\r\n"
        );
        return head(&stream, "302 Found", &headers, 0);
    }
    guard.sent += bytes.len();
    let headers = format!("X-Repo-Commit: {commit}\r\nETag: \"{}\"\r\n", git_sha1(&bytes));
    head(&stream, "200 OK", &headers, bytes.len())?;
    (&stream).write_all(&bytes)
}

fn read(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, start: 0, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                request.start = start.unwrap().parse().unwrap();
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Ok(request)
}

/// Decodes the percent encoding of an address.
fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn head(mut stream: &TcpStream, status: &str, headers: &str, length: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")
}

fn send(
    mut stream: TcpStream,
    bytes: &[u8],
    start: usize,
    cut: usize,
    slow: bool,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let rest = &bytes[start.min(bytes.len())..];
    let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    match start {
        0 => head(&stream, "200 OK", "", rest.len())?,
        _ => head(&stream, "206 Partial Content", &range, rest.len())?,
    }
    let step = if slow { 512 } else { 16 * 1024 };
    for piece in rest[..cut.min(rest.len())].chunks(step) {
        stream.write_all(piece)?;
        state.lock().unwrap().sent += piece.len();
        if slow {
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Context::new(&SHA256);
    hasher.update(bytes);
    hex(hasher.finish().as_ref())
}

/// Hashes a file as `git hash-object` does.
pub(crate) fn git_sha1(bytes: &[u8]) -> String {
    let mut hasher = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hasher.update(format!("blob {}\0", bytes.len()).as_bytes());
    hasher.update(bytes);
    hex(hasher.finish().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
