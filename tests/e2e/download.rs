//! Downloads from the hub that are disturbed, refused or falsified: what is kept, what is said, and what the
//! next run does.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::signal;
use crate::hub::hub;
use crate::server::{REPO, Server};
use crate::space::{ALL, Run, Space};

fn size(server: &Server, commit: &str, name: &str) -> usize {
    server.state().commits[commit][name].len()
}

/// Returns what a failed build says. Checks that no large file that it wanted to download has its final name.
fn failure(space: &Space) -> String {
    let run = space.run(&["build"]).exits(1);
    let large = |name: &String| name.len() == 64;
    let blobs = space.names("home/hub/models--org--pico/blobs");
    assert_eq!(blobs.iter().filter(|name| large(name)).count(), 0, "{blobs:?}");
    assert_eq!(blobs.iter().filter(|name| name.contains("incomplete")).count(), 0, "{blobs:?}");
    space.is_tidy();
    redact(&run.stderr)
}

fn redact(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', ';', ',', '/', '`', ')']);
    let port = |word: &str| match word.split_once("127.0.0.1:") {
        Some((before, rest)) => {
            format!("{before}[HUB]{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => word.to_owned(),
    };
    words.map(port).collect()
}

#[test]
fn a_lost_connection_is_taken_up_where_it_was_lost() {
    let (server, space, commit) = hub();
    server.state().cuts = vec![20_000, 10_000];
    let _ = space.build().ran(ALL);
    let asked = server.requests();
    let large: Vec<_> = asked.iter().filter(|path| path.starts_with("/cdn/")).collect();
    assert_eq!(large.len(), 3);
    assert!(large[1].ends_with(" from 20000") && large[2].ends_with(" from 30000"), "{large:?}");
    let files = ["LICENSE", "config.json", "docs/read me #1.txt", "model.safetensors", "tokenizer.json"];
    let whole: usize = files.iter().map(|name| size(&server, &commit, name)).sum();
    assert_eq!(server.state().sent, whole, "no byte came twice");
}

#[test]
fn an_interrupted_download_is_taken_up_by_the_next_run() {
    let (server, space, commit) = hub();
    server.state().slow = true;
    let mut child = space.command().arg("build").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let large = size(&server, &commit, "model.safetensors");
    let begin = Instant::now();
    while server.state().sent < large / 4 && begin.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "INT");
    let asked = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let blobs = space.names("home/hub/models--org--pico/blobs");
    let parts: Vec<_> = blobs.iter().filter(|name| name.ends_with(".pipeline.incomplete")).collect();
    assert_eq!(parts.len(), 1, "{blobs:?}");
    let part = space.bytes(&format!("home/hub/models--org--pico/blobs/{}", parts[0])).len();
    assert!(part > 0);
    server.requests();
    server.state().slow = false;
    let _ = space.is_tidy().build().ran(["base", "fused", "q4", "q8"]);
    let asked = server.requests();
    let large: Vec<_> = asked.iter().filter(|path| path.starts_with("/cdn/")).collect();
    assert!(large.len() == 1 && large[0].ends_with(&format!(" from {part}")), "{large:?}");
}

#[test]
fn a_wrong_length() {
    let (server, space, commit) = hub();
    server.state().short = true;
    let length = size(&server, &commit, "model.safetensors");
    let said = failure(&space);
    assert!(said.contains(&format!("{} bytes, but the hub lists {length}", length - 1)), "{said}");
    assert!(said.contains("cannot download `model.safetensors` of org/pico@"), "{said}");
    server.state().short = false;
    let _ = space.build().ran(["base", "fused", "q4", "q8"]);
}

#[test]
fn a_wrong_content() {
    let (server, space, _) = hub();
    server.state().garbled = true;
    insta::assert_snapshot!(failure(&space), @r"
    base: running (org/pico@[DIGEST] was never downloaded)
    adapter: running (it was never built here)
    adapter: checked, 2.6 kB where it lies, [DIGEST]
    base: failed: cannot download `model.safetensors` of org/pico@0000000000000000000000000000000000c0ffee: what came has another content: its sha256 is [DIGEST], but the hub lists [DIGEST]; it was removed; build again, and if it stays so, look for a proxy or a mirror on the way
    fused: skipped, because base failed
    q4: skipped, because base failed
    q8: skipped, because base failed
    ");
}

#[test]
fn a_token_is_needed_and_sent() {
    let (server, mut space, _) = hub();
    server.state().token = Some("hf_secret".to_owned());
    let message = |run: Run<'_>| redact(&run.exits(1).stderr);
    insta::assert_snapshot!(message(space.run(&["build"])), @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/pico@main`
    caused by: `org/pico` is private, gated or not there (HTTP 401), and no token was found: HF_TOKEN is not set and [DIR]/home/token is not there; ask for access at http://[HUB]/org/pico, then set HF_TOKEN or run `hf auth login`
    ");
    space.set_variable("HF_TOKEN", "hf_wrong");
    insta::assert_snapshot!(message(space.run(&["build"])), @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/pico@main`
    caused by: `org/pico` is private, gated or not there, and the token from HF_TOKEN is not let in (HTTP 401); ask for access at http://[HUB]/org/pico, or set HF_TOKEN to a token that has it
    ");
    space.set_variable("HF_TOKEN", "");
    space.write("home/token", "hf_secret\n");
    let _ = space.build().ran(ALL);
    assert!(!space.files("cache").values().any(|bytes| bytes.windows(9).any(|part| part == b"hf_secret")));
}

#[test]
fn what_is_not_there() {
    let (_server, space, _) = hub();
    space.edit(&format!("hf:{REPO}"), &format!("hf:{REPO}@v9"));
    let message = |run: Run<'_>| redact(&run.exits(1).stderr);
    insta::assert_snapshot!(message(space.run(&["build"])), @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/pico@v9`
    caused by: `org/pico` at http://[HUB] does not have the revision `v9`; its branches and tags are at http://[HUB]/org/pico/tree/main
    ");
    space.edit(&format!("hf:{REPO}@v9"), "hf:org/piko");
    insta::assert_snapshot!(message(space.run(&["build"])), @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/piko@main`
    caused by: there is no model `org/piko` at http://[HUB]; look at the name behind `hf:`
    ");
    space.edit("hf:org/piko", "hf:pico");
    insta::assert_snapshot!(space.run(&["build"]).exits(2).stderr, @r"
    error: pipeline.yaml:3:31: `pico` is not a model on the hub; write `hf:ORG/NAME` or `hf:ORG/NAME@REVISION`
      3 |   base: {stage: base, source: 'hf:pico'}
        |                               ^
    ");
}

#[test]
fn no_way_to_the_hub() {
    let (_server, mut space, _) = hub();
    // Nobody listens on port 9, that of the discard protocol.
    space.set_variable("HF_ENDPOINT", "http://127.0.0.1:9");
    insta::assert_snapshot!(space.run(&["build"]).exits(1).stderr, @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/pico@main`
    caused by: cannot reach http://127.0.0.1:9: io: Connection refused (os error 111); use a folder as `source`, or build where the hub is reachable
    ");
    space.set_variable("HF_HUB_OFFLINE", "1");
    insta::assert_snapshot!(space.run(&["build"]).exits(1).stderr, @r"
    error: pipeline.yaml:3:31: node `base`: cannot resolve `hf:org/pico@main`
    caused by: the hub must be asked, but HF_HUB_OFFLINE is set; unset it, or use a folder as `source`
    ");
}

#[test]
fn a_hostile_file_name() {
    let (server, space, _) = hub();
    for name in ["../../escaped", "/tmp/escaped", "a\\..\\b"] {
        server.state().extra = Some(name.to_owned());
        let said = failure(&space);
        assert!(said.contains(&format!("a file named {name:?}")), "{said}");
    }
    assert_eq!(space.names("home/hub/models--org--pico/blobs"), [""; 0]);
}

#[test]
fn the_token_goes_to_the_origin_of_the_hub_only() {
    let (server, mut space, commit) = hub();
    // The same host, but another port. It refuses whoever shows it the token.
    let other = Server::start();
    other.commit("main", server.state().commits[&commit].clone());
    server.state().token = Some("hush".to_owned());
    server.state().cdn = Some(other.endpoint());
    space.set_variable("HF_TOKEN", "hush");
    space.build().ran(ALL);
    let asked = other.requests();
    assert!(!asked.is_empty() && asked.iter().all(|path| path.starts_with("/cdn/")), "{asked:?}");
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let (_server, mut space, _) = hub();
    space.set_variable("HF_ENDPOINT", "http://ana:hush@127.0.0.1:1");
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("***@127.0.0.1:1") && !run.stderr.contains("hush"), "{}", run.transcript());
    let space = Space::pico();
    let run = space.run(&["build", "--remote", "s3://ana:hush@bucket/x"]);
    assert!(!run.stderr.contains("hush"), "{}", run.transcript());
}

/// Serves a repository over TLS, with a certificate of an authority that only this test knows.
const TLS_HUB: &str = r#"
import hashlib, http.server, json, ssl, subprocess, sys
from pathlib import Path
def openssl(*words): subprocess.run(["openssl", *words], check=True, capture_output=True)
openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Company")
openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "hub.key", "-out", "hub.csr", "-subj", "/CN=localhost")
Path("ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
openssl("x509", "-req", "-in", "hub.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "hub.pem", "-days", "2", "-extfile", "ext")
files = {path.name: path.read_bytes() for path in Path("model").iterdir()}
commit = "c" * 40
def sibling(name, data): return {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "/api/" in self.path: body = json.dumps({"sha": commit, "siblings": [sibling(*file) for file in files.items()]}).encode()
        else: body = files[self.path.rsplit("/", 1)[1]]
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("hub.pem", "hub.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

#[test]
fn the_certificates_of_a_company_count() {
    let mut space = Space::pico();
    let mut python = space.command_of("python3");
    let mut hub = python.args(["-c", TLS_HUB]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(hub.stdout.take().unwrap()), &mut port).unwrap();
    space.edit("source: model", &format!("source: 'hf:{REPO}'"));
    space.set_variable("HF_ENDPOINT", &format!("https://localhost:{}", port.trim()));
    space.set_variable("HF_HOME", space.path("home").to_str().unwrap());
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("ertificate"), "{}", run.transcript());
    space.set_variable("SSL_CERT_FILE", space.path("ca.pem").to_str().unwrap());
    space.build().ran(ALL);
    hub.kill().unwrap();
    hub.wait().unwrap();
}
