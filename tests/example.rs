//! The example, built as a user builds it: the models give the same answers as in mlx-lm, and a second
//! machine gets everything from the remote.
//! The golden answers come from mlx-lm: `golden/answers.py` asks it every question of both suites.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use report::Results;

/// The suite, the config, and how many of its answers may differ. In the held-out suite, a few answers of two
/// configs depend on margins as small as 0.001, so another BLAS or processor may decide them differently. All
/// other answers must be exactly mlx-lm's.
const CLOSE_CALLS: [(&str, &str, usize); 2] = [("heldout", "base", 2), ("heldout", "4bit", 4)];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn pipeline(folder: &Path, arguments: &[&str]) -> String {
    pipeline_with(folder, arguments, &[])
}

fn pipeline_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.arg("-C").arg(folder).args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
}

fn results(folder: &Path, node: &str) -> Results {
    let path = folder.join("artifacts").join(node).join("results.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Counts the answers of each config that are not mlx-lm's, and checks that there are not too many.
fn compare(results: &Results, golden: &Value) {
    for (config, ours) in &results.configs {
        let theirs = golden[&results.suite][config].as_array().unwrap();
        assert_eq!(ours.answers.len(), theirs.len());
        let differing =
            ours.answers.iter().zip(theirs).filter(|(ours, theirs)| ours.text != **theirs).count();
        let close = CLOSE_CALLS.iter().find(|(suite, name, _)| (*suite, *name) == (&results.suite, config));
        let allowed = close.map_or(0, |(_, _, count)| *count);
        assert!(differing <= allowed, "{} {config}: {differing} answers are not mlx-lm's", results.suite);
    }
}

fn correct(results: &Results) -> Vec<usize> {
    results.configs.values().map(|config| config.correct).collect()
}

#[test]
fn the_experiment_comes_out_as_with_mlx_lm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(&root.join("examples/tiny"), &folder.path().join("examples/tiny"));
    let text = fs::read_to_string(root.join("pipeline.yaml")).unwrap();
    let benchmark = text.split("  benchmark:").nth(1).unwrap().replace("discrimination.yaml", "heldout.yaml");
    // The held-out suite has no texts to compare with a reference.
    let benchmark = benchmark.split("    reference:").next().unwrap();
    fs::write(folder.path().join("pipeline.yaml"), format!("{text}  heldout:{benchmark}")).unwrap();

    assert_eq!(
        pipeline(folder.path(), &["build", "-j", "2"]),
        "ran 9 nodes, measured 287 queries and 70 texts\n"
    );
    let golden: Value =
        serde_json::from_slice(&fs::read(root.join("tests/golden/answers.json")).unwrap()).unwrap();
    let (five, heldout) = (results(folder.path(), "benchmark"), results(folder.path(), "heldout"));
    compare(&five, &golden);
    compare(&heldout, &golden);
    assert_eq!(correct(&five), [3, 5, 5, 5, 5, 3, 5]);
    // The fine-tuning is intact in the unfused adapter, in float16, and in 8 and 6 bits. Plain rounding to 4
    // bits, the base's own grid, loses it; `rounding: keep` does not, in as many bytes.
    assert_eq!(correct(&heldout)[1..5], [36; 4]);
    assert!(correct(&heldout)[0] < 30 && correct(&heldout)[5] < 34);
    assert_eq!(correct(&heldout)[6], 36);
    let bits = |config: &str| heldout.configs[config].bits_per_weight;
    assert!((bits("4bit") - bits("4bit-keep")).abs() < 1e-9);

    assert_eq!(pipeline(folder.path(), &["build"]), "nothing to do: 9 nodes up to date\n");
    assert!(pipeline(folder.path(), &["report", "benchmark"]).contains("4bit"));
    // If the benchmark is measured again, the answers and so the lock are the same, though the timings are
    // not.
    let lock = fs::read(folder.path().join("pipeline.lock")).unwrap();
    let forced = pipeline(folder.path(), &["build", "--force", "benchmark"]);
    assert_eq!(forced, "ran 1 node, 7 up to date, measured 35 queries and 70 texts\n");
    assert_eq!(fs::read(folder.path().join("pipeline.lock")).unwrap(), lock);
    assert_eq!(pipeline(folder.path(), &["build", "--locked"]), "nothing to do: 9 nodes up to date\n");
    a_second_machine_runs_nothing(folder.path());
}

/// A second clone with an empty cache gets everything from the remote: the weights, the answers and the
/// timings, which are those of a machine of its class.
fn a_second_machine_runs_nothing(first: &Path) {
    let (remote, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", remote.path().display());
    let key = engine::sign::SecretKey::generate().unwrap().to_text();
    let variables = [("PIPELINE_REMOTE", url.as_str()), ("PIPELINE_SIGNING_KEY", key.as_str())];
    assert_eq!(pipeline_with(first, &["push"], &variables), "9 nodes in the remote\n");
    for part in ["examples", "pipeline.yaml", "pipeline.lock"] {
        let (from, to) = (first.join(part), second.path().join(part));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(from, to).map(drop).unwrap() }
    }
    // The report is fetched alone, without weights.
    let said = pipeline_with(second.path(), &["build", "benchmark"], &variables);
    assert_eq!(said, "ran 0 nodes, 2 from the cache, 1 from the remote, 5 up to date\n");
    assert!(!second.path().join("artifacts/fused-f16").exists());
    let said = pipeline_with(second.path(), &["build", "--locked"], &variables);
    assert_eq!(said, "ran 0 nodes, 6 from the remote, 3 up to date\n");
    for node in ["fused-f16", "8bit", "6bit", "4bit", "4bit-keep", "benchmark", "heldout"] {
        let files = |root: &Path| {
            let entries = fs::read_dir(root.join("artifacts").join(node)).unwrap().map(Result::unwrap);
            let mut files: Vec<_> =
                entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect();
            files.sort();
            files
        };
        assert!(files(first) == files(second.path()), "{node} is not the same");
    }
}

#[test]
fn the_mlx_backend_makes_models_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    copy(&root.join("examples/tiny"), &folder.path().join("examples/tiny"));
    fs::copy(root.join("pipeline.yaml"), folder.path().join("pipeline.yaml")).unwrap();
    assert_eq!(pipeline(folder.path(), &["build", "8bit"]), "ran 4 nodes\n");
    let weights = || fs::read(folder.path().join("artifacts/8bit/model.safetensors")).unwrap();
    let cpu = weights();
    assert_eq!(
        pipeline(folder.path(), &["build", "--backend", "mlx", "8bit"]),
        "ran 2 nodes, 2 up to date\n"
    );
    // On its CPU device MLX makes the same codes; on a GPU it may round differently.
    assert!(cpu == weights() || cfg!(target_os = "macos"));
}
