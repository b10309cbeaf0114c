//! The engine as another program calls it, where that differs from how the command line does.
//! Knows nothing of the command line.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::fs;
use std::path::Path;

use engine::event::Silent;
use engine::project::{BuildOptions, PlanOptions, Project, ProjectPath, RemoteChoice};
use engine::{Error, ErrorKind};
use tempfile::TempDir;

/// Makes a project that quantizes a golden model to 8 bits.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama-float16");
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(golden).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    fs::remove_file(model.join("expected.safetensors")).unwrap();
    fs::write(model.join("tokenizer.json"), r#"{"model": {}}"#).unwrap();
    let nodes =
        "base: {stage: base, source: model}\n  8bit: {stage: quantize, model: base, bits: 8, group_size: 32}";
    fs::write(folder.path().join("pipeline.yaml"), format!("version: 1\nnodes:\n  {nodes}\n")).unwrap();
    folder
}

fn open(folder: &TempDir) -> engine::Result<Project> {
    Project::open(&ProjectPath::in_folder(folder.path()))
}

fn with_remote(remote: RemoteChoice) -> BuildOptions<'static> {
    BuildOptions { plan: PlanOptions { remote, ..PlanOptions::default() }, ..BuildOptions::default() }
}

#[test]
fn no_jobs_are_one_job() {
    let folder = folder();
    let options = BuildOptions {
        plan: PlanOptions { jobs: Some(0), ..PlanOptions::default() },
        ..BuildOptions::default()
    };
    let built = open(&folder).unwrap().build(&options, &mut Silent).unwrap();
    assert!(built.is_success());
    assert_eq!(built.summary.done.len(), 2);
}

#[test]
fn a_choice_of_no_remote_ends_the_connection_of_an_earlier_one() {
    let (folder, remote) = (folder(), tempfile::tempdir().unwrap());
    let url = RemoteChoice::Url(format!("file://{}", remote.path().display()));
    let mut project = open(&folder).unwrap();
    project.plan(&with_remote(url).plan).unwrap();
    let built = project.build(&with_remote(RemoteChoice::None), &mut Silent).unwrap();
    assert!(built.is_success());
    assert_eq!(fs::read_dir(remote.path()).unwrap().count(), 0);
}

#[test]
fn a_lock_that_cannot_be_read_is_not_replaced() {
    let folder = folder();
    let lock = folder.path().join("pipeline.lock");
    fs::write(&lock, b"\xff").unwrap();
    let refused = open(&folder).unwrap().build(&BuildOptions::default(), &mut Silent).unwrap_err();
    assert!(matches!(&refused, Error::Io(error) if error.path == lock), "{refused}");
    assert_eq!((refused.kind(), refused.hint()), (ErrorKind::System, None));
    let collected =
        Project::gc(&ProjectPath::in_folder(folder.path()), engine::project::GcOptions::default());
    assert!(collected.is_err());
    assert_eq!(fs::read(lock).unwrap(), b"\xff");
}

#[test]
fn one_project_builds_again_and_again() {
    let folder = folder();
    let mut project = open(&folder).unwrap();
    let ran = |project: &mut Project| {
        project.build(&BuildOptions::default(), &mut Silent).unwrap().summary.ran.len()
    };
    assert_eq!(ran(&mut project), 2);
    assert_eq!(ran(&mut project), 0);
    fs::remove_dir_all(folder.path().join("cache")).unwrap();
    assert_eq!(ran(&mut open(&folder).unwrap()), 2);
}
