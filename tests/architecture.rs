//! The import table of the house: which room may use which, read from the `use` lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may use; a room may always use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("failure", &[]),
    ("digest", &[]),
    ("origin", &[]),
    ("yaml", &[]),
    ("backend", &[]),
    ("report", &[]),
    ("sign", &[]),
    ("artifact", &["digest"]),
    ("output", &["artifact", "digest", "failure"]),
    ("tensor", &["failure", "output"]),
    ("difference", &["artifact", "failure", "tensor"]),
    ("lockfile", &["digest", "origin"]),
    ("adapter", &["backend", "failure", "tensor", "yaml"]),
    ("model", &["adapter", "backend", "report"]),
    ("store", &["artifact", "digest", "failure", "tensor"]),
    ("share", &["artifact", "attestation", "digest", "failure", "sign", "store", "tensor"]),
    ("attestation", &["artifact", "digest", "sign", "store"]),
    ("hub", &["failure", "origin"]),
    ("stage", &["adapter", "artifact", "backend", "failure", "origin", "output", "report", "tensor", "yaml"]),
    ("manifest", &["backend", "origin", "report", "sign", "stage", "yaml"]),
    ("graph", &["manifest", "stage", "yaml"]),
    ("sources", &["digest", "graph", "hub", "lockfile", "manifest", "origin"]),
    ("recipe", &["digest", "origin", "stage"]),
    ("plan", &["artifact", "backend", "digest", "graph", "recipe", "share", "sources", "stage", "store"]),
    (
        "schedule",
        &[
            "artifact",
            "backend",
            "difference",
            "digest",
            "failure",
            "graph",
            "hub",
            "lockfile",
            "origin",
            "output",
            "plan",
            "recipe",
            "share",
            "sources",
            "stage",
            "store",
        ],
    ),
    ("rederive", &["artifact", "difference", "failure", "graph", "output", "plan", "stage", "store"]),
    (
        "cli",
        &[
            "artifact", "backend", "digest", "failure", "graph", "hub", "lockfile", "manifest", "origin",
            "plan", "recipe", "rederive", "report", "schedule", "share", "sign", "sources", "stage", "store",
            "yaml",
        ],
    ),
    ("main", &["cli"]),
];

/// Packages with one door: they are named in these files only.
const DOORS: &[(&str, &[&str])] = &[
    ("serde_saphyr", &["yaml/mod.rs"]),
    ("petgraph", &["graph.rs"]),
    ("blake3::", &["digest.rs"]),
    ("mlx_rs", &["backend/mlx/", "model/"]),
    ("mlx_sys", &["backend/mlx/modes.rs", "model/packed.rs"]),
    ("safetensors::", &["tensor/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/progress.rs"]),
    ("tokenizers", &["model/"]),
    ("minijinja", &["model/"]),
    ("rayon", &["stage/pass/mod.rs"]),
    ("fancy_regex", &["adapter/pattern.rs", "stage/suite/query.rs"]),
    ("hf_hub", &["hub/"]),
    ("ureq", &["hub/"]),
    ("ring", &["hub/", "sign/"]),
    ("base64", &["sign/"]),
    ("reflink_copy", &["store/shelf.rs"]),
    ("object_store", &["store/remote/"]),
    ("tokio", &["store/remote/"]),
    ("futures_util", &["store/remote/"]),
    ("rustls", &["store/remote/"]),
    ("zstd", &["share/packing.rs"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Each source file as (path below `src`, text without its tests and comments).
fn files() -> Vec<(String, String)> {
    let root = source_root();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, lines.collect::<Vec<_>>().join("\n"))
    };
    sources(&root).into_iter().map(read).collect()
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn rooms_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, code) in files() {
        let own = room(&file);
        if matches!(own, "lib" | "bin") {
            continue;
        }
        let allowed =
            MAY_USE.iter().find(|(name, _)| *name == own).unwrap_or_else(|| panic!("no row for {own}")).1;
        for used in code.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if used != own && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_have_one_door() {
    let mut wrong = Vec::new();
    for (file, code) in files() {
        for (package, doors) in DOORS {
            let named = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let named = named.into_iter().any(|word| word.starts_with(package));
            if named && !doors.iter().any(|door| file.starts_with(door)) {
                wrong.push(format!("{file} names {package}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    for path in sources(&source_root()) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it is", path.display());
        assert!(text.lines().count() <= 600, "{} is too long: split it by noun", path.display());
    }
}
