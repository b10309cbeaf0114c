//! The storages that the shared cache is tested with: a folder, and a real S3 server. Tests read and alter
//! their content directly, like somebody who has the keys to them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "secret-of-the-tester";

/// A storage. It is empty at first.
pub(crate) enum Bucket {
    Folder(TempDir),
    S3 { endpoint: String, prefix: String },
}

impl Bucket {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    /// A new prefix on the server that all tests share. The first call starts the server.
    pub(crate) fn s3() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self::S3 { endpoint: format!("http://127.0.0.1:{}", server().s3), prefix }
    }

    /// One storage of each kind.
    pub(crate) fn all() -> [Self; 2] {
        [Self::folder(), Self::s3()]
    }

    /// A new storage of the same kind.
    pub(crate) fn like(other: &Self) -> Self {
        match other {
            Self::Folder(_) => Self::folder(),
            Self::S3 { .. } => Self::s3(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("file://{}", folder.path().display()),
            Self::S3 { prefix, .. } => format!("s3://team/{prefix}"),
        }
    }

    /// Returns the environment variables that are needed to use it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::S3 { endpoint, .. } => vec![
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ENDPOINT_URL", endpoint.clone()),
            ],
        }
    }

    /// Returns the names of all objects, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        match self {
            Self::Folder(folder) => walk(folder.path(), folder.path(), &mut names),
            Self::S3 { prefix, .. } => list(prefix, "", &mut names),
        }
        names.sort();
        names
    }

    /// Returns the names that begin with `folder`.
    pub(crate) fn names_in(&self, folder: &str) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with(folder)).collect()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        match self {
            Self::Folder(folder) => fs::read(folder.path().join(name)).unwrap(),
            Self::S3 { prefix, .. } => {
                let mut answer = ureq::get(plain(&format!("{prefix}/{name}"))).call().unwrap();
                answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
            }
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        match self {
            Self::Folder(folder) => {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            Self::S3 { prefix, .. } => {
                ureq::put(plain(&format!("{prefix}/{name}"))).send(bytes).unwrap();
            }
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        match self {
            Self::Folder(folder) => fs::remove_file(folder.path().join(name)).unwrap(),
            Self::S3 { prefix, .. } => {
                ureq::delete(plain(&format!("{prefix}/{name}"))).call().unwrap();
            }
        }
    }
}

fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, names);
        } else {
            names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

fn list(prefix: &str, folder: &str, names: &mut Vec<String>) {
    let url = plain(&format!("{prefix}/{folder}?limit=10000"));
    let Ok(mut answer) = ureq::get(url).header("Accept", "application/json").call() else { return };
    let listing: serde_json::Value =
        serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap();
    for entry in listing["Entries"].as_array().into_iter().flatten() {
        let path = entry["FullPath"].as_str().unwrap();
        let name = path.strip_prefix(&format!("/buckets/team/{prefix}/")).unwrap();
        // The mode of a folder has the bit that Go uses for folders.
        if entry["Mode"].as_u64().unwrap() & (1 << 31) != 0 {
            list(prefix, &format!("{name}/"), names);
        } else {
            names.push(name.to_owned());
        }
    }
}

/// The ports of the server on 127.0.0.1.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    /// Speaks S3.
    pub(crate) s3: u16,
    /// Shows the objects as plain files, without a signature.
    filer: u16,
}

/// Starts SeaweedFS once for all tests of this process. The server ends when its standard input is closed, which
/// happens when this process ends, however it ends.
///
/// # Panics
///
/// If the server does not come up. What it printed is on standard error.
pub(crate) fn server() -> Server {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).expect("the S3 server did not come up; what it printed is above")
}

/// Returns the server's ports once it takes objects.
fn start() -> Option<Server> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let weed = root.join(".seaweedfs/bin/weed");
    assert!(weed.exists(), "run scripts/seaweedfs/setup.sh, or `make test`, which does");
    let mut child = Command::new(root.join("scripts/seaweedfs/serve.py"))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // This process keeps the server's standard input open for as long as it lives.
    std::mem::forget(child);
    let (s3, filer) = line.trim().split_once(' ')?;
    Some(Server { s3: s3.parse().unwrap(), filer: filer.parse().unwrap() })
}

/// Returns the address where the server shows an object of the bucket `team` as a plain file.
fn plain(name: &str) -> String {
    format!("http://127.0.0.1:{}/buckets/team/{name}", server().filer)
}
