//! examples/train with two steps of training in the place of sixty, so that it takes seconds.
//! Knows nothing of who builds it.

use std::fs;
use std::path::Path;

/// Writes `examples/train` and what it needs below `folder`.
pub(crate) fn write(folder: &Path) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["train", "tiny"] {
        copy(&examples.join(name), &folder.join("examples").join(name));
    }
    let edit = |file: &str, edits: &[(&str, &str)]| {
        let path = folder.join("examples/train").join(file);
        let text = fs::read_to_string(&path).unwrap();
        let edited = edits.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{file} has no {from}");
            text.replace(from, to)
        });
        fs::write(path, edited).unwrap();
    };
    edit(
        "lora.yaml",
        &[
            ("iters: 60", "iters: 2"),
            ("save_every: 15", "save_every: 1"),
            ("val_batches: -1", "val_batches: 1"),
        ],
    );
    edit(
        "pipeline.yaml",
        &[
            ("[15, 30, 45, 60]", "[1, 2]"),
            ("--config, 60-4bit-keep", "--config, 2-4bit-keep"),
            ("--least, \"0.9\"", "--least, \"0.1\""),
            // Five questions in the place of 36.
            ("suite: ../tiny/heldout.yaml", "suite: ../tiny/discrimination.yaml"),
        ],
    );
}

/// Copies a folder, without what builds and Python leave in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        let is_left =
            ["artifacts", "cache", "pipeline.lock", ".venv", "__pycache__"].iter().any(|left| name == *left);
        match path.is_dir() {
            _ if is_left => {}
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}
