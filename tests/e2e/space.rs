//! The language of these tests: a folder with a pico project in it, what is done to it, and what is expected
//! of it.
//!
//! ```text
//! Space::pico()                                    // base + adapter + pipeline.yaml in a folder of its own
//!     .build().ran(["base", "adapter", "fused", "q8", "q4"])
//!     .build().ran([])                             // nothing to do
//!     .edit("bits: 4", "bits: 6")
//!     .build().ran(["q4"]);                        // and only this
//! ```
//! Every command gets a cleared environment. Times, digests and the folder's name are redacted in its output.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::pico::{PICO, Size, write_adapter, write_model};

const YAML: &str = "\
version: 1
nodes:
  base: {stage: base, source: model}
  adapter: {stage: adapter, source: lora}
  fused: {stage: fuse, model: base, adapter: adapter}
  q8: {stage: quantize, model: fused, bits: 8}
  q4: {stage: quantize, model: fused, bits: 4}
";

/// All nodes of [`YAML`].
pub(crate) const ALL: [&str; 5] = ["base", "adapter", "fused", "q8", "q4"];

/// The `XDG_STATE_HOME` of every command.
pub(crate) const STATE_HOME: &str = env!("CARGO_TARGET_TMPDIR");

/// A project in a temporary folder.
pub(crate) struct Space {
    _folder: TempDir,
    root: PathBuf,
    variables: Vec<(String, String)>,
}

/// A command that has ended: its exit status and its output.
#[must_use = "say what is expected of the command"]
pub(crate) struct Run<'a> {
    space: &'a Space,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Space {
    /// Makes an empty folder.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The path of a temporary folder may be a link (it is on macOS), and messages show the real path.
        let root = folder.path().canonicalize().unwrap();
        Self { _folder: folder, root, variables: Vec::new() }
    }

    /// Makes a pipeline file, a pico model in `model` and an adapter for it in `lora`. Nothing is built.
    pub(crate) fn pico() -> Self {
        Self::of(PICO)
    }

    /// The same, with a model of another size.
    pub(crate) fn of(size: Size) -> Self {
        let space = Self::empty();
        write_model(&space.path("model"), size);
        write_adapter(&space.path("lora"), size.hidden, size.layers);
        space.write("pipeline.yaml", YAML);
        // The sources are as old as a user's usually are, so they are hashed once and then remembered.
        for file in space.files("").keys() {
            space.set_modified(file, SystemTime::now() - Duration::from_secs(3600));
        }
        space
    }

    /// The same, built.
    pub(crate) fn built() -> Self {
        let space = Self::pico();
        space.build().ran(ALL);
        space
    }

    /// Returns what somebody else has after `git clone`: the sources, the pipeline file and the lock.
    pub(crate) fn cloned(&self) -> Self {
        let clone = Self::empty();
        for (path, bytes) in self.files("") {
            if !path.starts_with("cache/") && !path.starts_with("artifacts/") {
                clone.write(&path, bytes);
            }
        }
        clone
    }

    /// Returns what the link at `path` points at.
    pub(crate) fn link(&self, path: &str) -> String {
        fs::read_link(self.path(path)).unwrap().to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8(self.bytes(path)).unwrap()
    }

    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file, replacing the old one.
    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), bytes).unwrap();
        self
    }

    /// Changes the last byte of a file in place, even if the file is read-only. Whatever is hard-linked to it
    /// changes too.
    pub(crate) fn scribble(&self, path: &str) -> &Self {
        let mut bytes = self.bytes(path);
        *bytes.last_mut().unwrap() ^= 1;
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o644)).unwrap();
        self.write(path, bytes)
    }

    /// Replaces `from`, which must be in the pipeline file exactly once.
    pub(crate) fn edit(&self, from: &str, to: &str) -> &Self {
        self.edit_file("pipeline.yaml", from, to)
    }

    pub(crate) fn edit_file(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = self.read(path);
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {path}:\n{text}");
        self.write(path, text.replace(from, to))
    }

    /// Sets the modification time of a file, or of each file in a folder, to now.
    pub(crate) fn touch(&self, path: &str) -> &Self {
        for file in self.files(path).keys() {
            self.set_modified(file, SystemTime::now());
        }
        self
    }

    /// Makes everything an hour old, and runs a build that has nothing to do. The next build may answer from
    /// what this one recorded.
    pub(crate) fn settle(&self) -> &Self {
        let mut stack = vec![self.root.clone()];
        while let Some(path) = stack.pop() {
            if path.is_symlink() {
                continue;
            }
            stack.extend(fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
            File::open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        }
        let _ = self.run(&["build"]).exits(0);
        assert!(self.names("cache").contains(&"witness".to_owned()), "the build left no witness");
        self
    }

    pub(crate) fn set_modified(&self, path: &str, time: SystemTime) {
        File::open(self.path(path)).unwrap().set_modified(time).unwrap();
    }

    /// Removes a file or a folder, as `rm -r` does.
    pub(crate) fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .unwrap();
        self
    }

    /// Returns the files at or below `path`, with their contents. Links are not followed.
    pub(crate) fn files(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut stack = vec![self.path(path)];
        while let Some(path) = stack.pop() {
            if path.is_symlink() {
                continue;
            }
            match fs::read_dir(&path) {
                Ok(entries) => stack.extend(entries.map(|entry| entry.unwrap().path())),
                Err(_) => {
                    let name = path.strip_prefix(&self.root).unwrap().to_str().unwrap();
                    files.insert(name.to_owned(), fs::read(&path).unwrap_or_default());
                }
            }
        }
        files
    }

    /// Returns the names in the folder at `path`, sorted, without `.gitignore`. A folder that does not exist has
    /// none.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".gitignore");
        names.sort();
        names
    }

    /// Returns the path at which the content of a file is stored: `cache/objects/ab/cdef…`.
    pub(crate) fn object(&self, path: &str) -> String {
        let digest = artifact::Digest::of(&self.bytes(path)).to_string();
        format!("cache/objects/{}/{}", &digest[..2], &digest[2..])
    }

    /// Returns a command that runs `pipeline` in the folder.
    pub(crate) fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_pipeline"))
    }

    /// Returns a command that runs another program in the folder.
    pub(crate) fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear().env("NO_COLOR", "1");
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // The secret of this machine must not be that of the person who runs the tests.
        command.env("XDG_STATE_HOME", STATE_HOME);
        // Nor must their workers be used. A test with a home of its own has none.
        if !self.variables.iter().any(|(name, _)| name == "HOME") {
            command.env("XDG_CONFIG_HOME", format!("{STATE_HOME}/no-config"));
        }
        command.envs(self.variables.iter().cloned());
        command
    }

    /// Sets an environment variable for all later commands.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Runs `pipeline` with these arguments.
    pub(crate) fn run(&self, args: &[&str]) -> Run<'_> {
        self.finish(self.command().args(args).output().unwrap())
    }

    /// Takes the output of a command, however it was started.
    pub(crate) fn finish(&self, output: Output) -> Run<'_> {
        let text = |bytes| self.redact(&String::from_utf8(bytes).unwrap());
        Run { space: self, status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Builds all nodes, with JSON lines on standard output.
    pub(crate) fn build(&self) -> Run<'_> {
        self.run(&["build", "--json"])
    }

    /// Builds with other arguments.
    pub(crate) fn build_with(&self, args: &[&str]) -> Run<'_> {
        self.run(&[&["build", "--json"], args].concat())
    }

    /// Checks that nothing unfinished is left in the cache.
    pub(crate) fn is_tidy(&self) -> &Self {
        assert_eq!(self.names("cache/tmp"), [""; 0], "left in cache/tmp");
        self
    }

    fn redact(&self, text: &str) -> String {
        let text = text.replace(self.root.to_str().unwrap(), "[DIR]");
        redact_times(&redact_digests(&text))
    }
}

impl<'a> Run<'a> {
    /// Checks that the command ended with this exit code.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.transcript());
        self
    }

    /// Returns the exit code, or `None` if a signal ended the command.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks that the build succeeded and ran these nodes and no others.
    pub(crate) fn ran<const N: usize>(self, nodes: [&str; N]) -> &'a Space {
        self.ran_and_linked(nodes, [])
    }

    /// Checks that the build succeeded, took these nodes from the cache and ran none.
    pub(crate) fn linked<const N: usize>(self, nodes: [&str; N]) -> &'a Space {
        self.ran_and_linked([], nodes)
    }

    /// Checks that the build succeeded, ran exactly the nodes in `ran` and took exactly those in `linked`
    /// from the cache.
    pub(crate) fn ran_and_linked<const N: usize, const M: usize>(
        self,
        ran: [&str; N],
        linked: [&str; M],
    ) -> &'a Space {
        let this = self.exits(0);
        assert_eq!(this.nodes("built"), sorted(ran), "these ran\n{}", this.transcript());
        assert_eq!(this.nodes("linked"), sorted(linked), "these were linked\n{}", this.transcript());
        this.space.is_tidy()
    }

    /// Returns the JSON lines of standard output, which must have nothing else.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Returns the JSON events of one kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.json().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// Returns the nodes of all events of one kind, sorted.
    pub(crate) fn nodes(&self, kind: &str) -> Vec<String> {
        let events = self.events(kind);
        sorted(events.iter().map(|event| event["node"].as_str().unwrap()))
    }

    /// Returns all that a user sees: the exit code and the output.
    pub(crate) fn transcript(&self) -> String {
        let code = self.status.code().map_or_else(|| self.status.to_string(), |code| format!("exit {code}"));
        let part =
            |name: &str, text: &str| if text.is_empty() { String::new() } else { format!("{name}:\n{text}") };
        format!("{code}\n{}{}", part("stdout", &self.stdout), part("stderr", &self.stderr))
    }

    /// Returns the space in which the command ran.
    pub(crate) fn space(&self) -> &'a Space {
        self.space
    }
}

pub(crate) fn sorted<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
    words.sort();
    words
}

/// Redacts digests: whole ones (64 digits), short ones (12) and the names of objects (2 and 62).
fn redact_digests(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        let hex = word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        out += &rest[..start];
        let is_digest =
            hex && matches!((word.len(), out.ends_with("objects/")), (12 | 62 | 64, _) | (2, true));
        out += if is_digest { "[DIGEST]" } else { word };
        rest = &rest[end..];
    }
    out + rest
}

/// Redacts the number in `0.12 s`.
fn redact_times(text: &str) -> String {
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let words = text.split_inclusive(' ').collect::<Vec<_>>();
    let mut out = String::new();
    for (index, word) in words.iter().enumerate() {
        let before_unit = words.get(index + 1).is_some_and(|next| matches!(next.trim_end(), "s" | "s,"));
        out += if before_unit && is_number(word.trim_end()) { "[TIME] " } else { word };
    }
    out
}

/// Whether two paths are the same file under two names.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
    id(a) == id(b)
}
