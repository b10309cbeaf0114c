//! Checks of the structure that the compiler does not make: which crate may use which, which room of a crate
//! may use which, and where each package is used.
//!
//! A crate can only use the crates that its `Cargo.toml` names, so the table of crates is compared with these
//! files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and the crates of this repository that it may depend on. A crate depends only on crates
/// further down this list.
const CRATES: &[(&str, &[&str])] = &[
    ("pipeline", &["artifact", "cpu", "engine", "mlx", "models", "protocol", "report", "text", "weights"]),
    ("engine", &["artifact", "protocol", "report", "text", "weights"]),
    ("cpu", &["models", "weights"]),
    ("mlx", &["models", "protocol", "weights"]),
    ("models", &["artifact", "protocol", "weights"]),
    ("report", &["artifact", "protocol", "text", "weights"]),
    ("protocol", &["artifact", "weights"]),
    ("weights", &["artifact", "text"]),
    ("text", &[]),
    ("artifact", &[]),
];

/// The rooms of a crate that are ordered among themselves: crate, room, and the rooms of the same crate that
/// it may use, which stand further up. A room may always use itself.
const ROOMS: &[(&str, &str, &[&str])] = &[
    ("weights", "tensor", &[]),
    ("weights", "kernels", &[]),
    ("weights", "survival", &["kernels"]),
    ("weights", "probe", &["kernels", "tensor"]),
    ("weights", "arch", &[]),
    ("weights", "checkpoint", &["arch", "kernels", "survival", "tensor"]),
    ("weights", "adapter", &["arch", "checkpoint", "kernels", "tensor"]),
    ("weights", "rewrite", &["adapter", "arch", "checkpoint", "kernels", "probe", "survival", "tensor"]),
    ("cpu", "math", &[]),
    ("cpu", "pool", &[]),
    ("cpu", "simd", &[]),
    ("cpu", "tensor", &[]),
    ("cpu", "format", &["simd"]),
    ("cpu", "view", &["format", "simd", "tensor"]),
    ("cpu", "product", &["format", "simd", "view"]),
    ("cpu", "memory", &["format"]),
    ("cpu", "matrix", &["format", "memory", "simd", "view"]),
    ("cpu", "linear", &["format", "matrix", "pool", "product", "simd", "tensor", "view"]),
    ("cpu", "elementwise", &["math", "simd"]),
    ("cpu", "cache", &["simd"]),
    ("cpu", "attention", &["cache", "elementwise", "math", "pool", "simd", "tensor"]),
    ("cpu", "experts", &["tensor"]),
    ("cpu", "rope", &["math"]),
    ("cpu", "shapes", &["tensor"]),
    ("cpu", "recurrence", &["pool", "shapes", "simd", "tensor"]),
    ("models", "runtime", &[]),
    ("models", "rope_scaling", &["runtime"]),
    ("models", "adapter", &["runtime"]),
    ("models", "observer", &["runtime"]),
    ("models", "tensors", &["adapter", "observer", "runtime"]),
    ("models", "layers", &["adapter", "observer", "runtime", "tensors"]),
    ("models", "decoder", &["layers", "runtime", "tensors"]),
    ("models", "config", &["decoder"]),
    ("models", "families", &["config", "decoder", "layers", "rope_scaling", "runtime"]),
    ("engine", "machine", &[]),
    ("engine", "paths", &[]),
    ("engine", "origin", &[]),
    ("engine", "own_program", &[]),
    ("engine", "process", &["own_program"]),
    ("engine", "sign", &["own_program"]),
    ("engine", "lockfile", &["origin"]),
    ("engine", "hub", &["origin", "paths"]),
    ("engine", "store", &["paths"]),
    ("engine", "git_head", &["store"]),
    ("engine", "attestation", &["sign", "store"]),
    ("engine", "share", &["attestation", "machine", "sign", "store"]),
    ("engine", "stage", &["machine", "origin", "paths", "process"]),
    ("engine", "manifest", &["origin", "sign", "stage"]),
    ("engine", "executor", &["stage"]),
    ("engine", "graph", &["manifest", "stage"]),
    ("engine", "sources", &["graph", "hub", "lockfile", "manifest", "origin", "paths", "stage"]),
    ("engine", "recipe", &["origin", "stage"]),
    ("engine", "request", &["machine", "recipe", "stage"]),
    ("engine", "plan", &["graph", "recipe", "request", "share", "sources", "stage", "store"]),
    ("engine", "forecast", &["graph", "machine", "paths", "plan", "recipe", "stage", "store"]),
    ("engine", "measurements", &["machine", "recipe", "share", "sign", "stage", "store"]),
    ("engine", "inputs", &["git_head", "graph", "manifest", "paths", "plan", "sources", "stage", "store"]),
    ("engine", "verify", &["graph", "inputs", "measurements", "plan", "stage", "store"]),
    ("engine", "event", &["recipe", "stage", "verify"]),
    (
        "engine",
        "schedule",
        &[
            "event",
            "executor",
            "graph",
            "hub",
            "inputs",
            "lockfile",
            "manifest",
            "measurements",
            "origin",
            "plan",
            "recipe",
            "request",
            "share",
            "sign",
            "sources",
            "stage",
            "store",
            "verify",
        ],
    ),
    (
        "engine",
        "project",
        &[
            "event",
            "executor",
            "forecast",
            "graph",
            "hub",
            "inputs",
            "lockfile",
            "machine",
            "manifest",
            "measurements",
            "paths",
            "plan",
            "recipe",
            "request",
            "schedule",
            "share",
            "sign",
            "sources",
            "stage",
            "store",
            "verify",
        ],
    ),
];

/// Packages that are used in one place only, and the files that may use them. A file is given by its path in
/// the repository, a folder by a path that ends with `/`.
const DOORS: &[(&str, &[&str])] = &[
    ("serde_saphyr", &["crates/text/src/yaml/mod.rs"]),
    ("strsim", &["crates/text/src/nearest.rs"]),
    ("blake3::", &["crates/artifact/src/digest.rs"]),
    ("safetensors::", &["crates/weights/src/tensor/"]),
    ("rayon", &["crates/weights/src/rewrite/run.rs"]),
    ("fancy_regex", &["crates/weights/src/adapter/pattern.rs", "crates/report/src/suite/scorer.rs"]),
    ("mlx_rs", &["crates/mlx/src/"]),
    ("mlx_sys", &["crates/mlx/src/modes.rs", "crates/mlx/src/packed.rs"]),
    ("memmap2", &["crates/cpu/src/memory.rs"]),
    ("libm::", &["crates/cpu/src/", "crates/models/src/", "crates/report/src/text_eval.rs"]),
    ("tokenizers", &["crates/models/src/"]),
    ("minijinja", &["crates/models/src/"]),
    ("glob::", &["crates/engine/src/manifest/run.rs", "crates/engine/src/stage/run/output.rs"]),
    ("petgraph", &["crates/engine/src/graph.rs"]),
    ("postcard", &["crates/engine/src/manifest/", "crates/engine/src/store/"]),
    ("ureq", &["crates/engine/src/hub/"]),
    (
        "ring::",
        &[
            "crates/engine/src/hub/",
            "crates/engine/src/sign/",
            "crates/engine/src/store/machine_secret.rs",
            "crates/weights/src/kernels/rounding.rs",
        ],
    ),
    ("base64", &["crates/engine/src/sign/"]),
    ("chrono", &["crates/engine/src/attestation/", "crates/engine/src/share/statement.rs"]),
    ("unicode_normalization", &["crates/artifact/src/fold.rs"]),
    (
        "rustix",
        &[
            "crates/engine/src/error.rs",
            "crates/engine/src/executor/foreground.rs",
            "crates/engine/src/machine.rs",
            "crates/engine/src/process/",
            "crates/engine/src/project/text_file.rs",
            "crates/engine/src/store/",
            "src/environment.rs",
        ],
    ),
    ("libc::", &["crates/cpu/src/peak_memory.rs", "src/environment.rs"]),
    ("reflink_copy", &["crates/engine/src/store/artifacts_dir.rs", "crates/engine/src/store/repair.rs"]),
    ("object_store", &["crates/engine/src/store/remote/"]),
    ("tokio", &["crates/engine/src/store/remote/"]),
    ("futures_util", &["crates/engine/src/store/remote/"]),
    ("rustls", &["crates/engine/src/store/remote/"]),
    ("zstd::", &["crates/engine/src/share/packing.rs"]),
    ("clap", &["src/"]),
    ("indicatif", &["src/progress.rs"]),
];

/// The most lines that a file may have.
const LONGEST_FILE: usize = 600;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The folder of the crate `name`.
fn crate_folder(name: &str) -> PathBuf {
    if name == "pipeline" { repository().to_owned() } else { repository().join("crates").join(name) }
}

/// A source file: its path in the repository, and its text without tests and comments.
struct Source {
    path: String,
    code: String,
}

/// Returns the source files of the crate `name`.
fn sources(name: &str) -> Vec<Source> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let path = path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
        Source { path, code: lines.collect::<Vec<_>>().join("\n") }
    };
    rust_files(&crate_folder(name).join("src")).into_iter().map(read).collect()
}

/// Returns the crates of this repository that `Cargo.toml` of the crate `name` depends on, tests left out.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(crate_folder(name).join("Cargo.toml")).unwrap();
    let sections = manifest.split("\n[").filter(|section| {
        let head = section.lines().next().unwrap_or_default();
        head.ends_with("dependencies]") && !head.contains("dev-") && !head.contains("workspace.")
    });
    let names = sections.flat_map(str::lines).filter_map(|line| line.split(['.', ' ', '=']).next());
    let ours = |name: &&str| CRATES.iter().any(|(known, _)| known == name);
    names.filter(ours).map(str::to_owned).collect()
}

#[test]
fn crates_use_only_what_they_may() {
    let folders = fs::read_dir(repository().join("crates")).unwrap();
    let there: BTreeSet<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<_> = CRATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, &there | &BTreeSet::from(["pipeline".to_owned()]), "the table lists other crates");
    for (index, (name, allowed)) in CRATES.iter().enumerate() {
        let allowed: BTreeSet<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(dependencies(name), allowed, "the dependencies of `{name}`");
        let above = |used: &String| CRATES.iter().position(|(name, _)| name == used).unwrap() <= index;
        assert!(!allowed.iter().any(above), "`{name}` uses a crate above itself");
    }
}

/// Returns the rooms that `code` names after `crate::`, also in `use crate::{one, other};`.
fn rooms_after_crate(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    let paths = code.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
        Some(list) => list.split(';').next().unwrap().split(',').map(|path| word(path.trim())).collect(),
        None => vec![word(rest)],
    });
    paths.filter(|room: &String| !room.is_empty()).collect()
}

#[test]
fn rooms_after_crate_are_found_in_lists_too() {
    let code = "use crate::{share, sign::Key, Error};\nuse crate::plan::Plan;\nlet x = crate::store::of();";
    assert_eq!(rooms_after_crate(code), ["plan", "share", "sign", "store"].map(str::to_owned).into());
}

#[test]
fn a_room_uses_only_rooms_above_it_in_the_table() {
    for (index, (of, room, allowed)) in ROOMS.iter().enumerate() {
        let before = |used: &&str| ROOMS[..index].iter().any(|(other, name, _)| (other, name) == (of, used));
        assert!(allowed.iter().all(before), "{of}::{room} uses a room further down");
    }
}

#[test]
fn rooms_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for name in ["weights", "engine"] {
        for Source { path, code } in sources(name) {
            let room = path.split("/src/").nth(1).unwrap().split('/').next().unwrap().trim_end_matches(".rs");
            // All rooms of a crate may use the crate's errors.
            if matches!(room, "lib" | "error") {
                continue;
            }
            let row = ROOMS.iter().find(|(of, known, _)| (*of, *known) == (name, room));
            let allowed = row.unwrap_or_else(|| panic!("no row for {name}::{room}")).2;
            for used in rooms_after_crate(&code) {
                if used != room && used != "error" && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{path} uses crate::{used}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_are_used_in_one_place() {
    let mut wrong = Vec::new();
    for Source { path, code } in CRATES.iter().flat_map(|(name, _)| sources(name)) {
        let words: Vec<_> = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).collect();
        for (package, doors) in DOORS {
            let used = words.iter().any(|word| word.starts_with(package));
            if used && !doors.iter().any(|door| path.starts_with(door)) {
                wrong.push(format!("{path} names {package}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    for path in CRATES.iter().flat_map(|(name, _)| rust_files(&crate_folder(name).join("src"))) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it is", path.display());
        assert!(text.lines().count() <= LONGEST_FILE, "{} is too long: split it by noun", path.display());
    }
}
