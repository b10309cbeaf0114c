//! What a build leaves on disk and says, and what its options do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use crate::pico::write_adapter;
use crate::space::{ALL, Space, same_file, sorted};
use weights::tensor::TensorFiles;

#[test]
fn what_lies_on_disk() {
    let space = Space::built();
    assert_eq!(space.names("."), ["artifacts", "cache", "lora", "model", "pipeline.lock", "pipeline.yaml"]);
    assert_eq!(
        space.names("cache"),
        ["CACHEDIR.TAG", "actions", "gc.lock", "memo", "objects", "stats", "tmp"]
    );
    // A source is not copied: the artifact is a link to it.
    assert_eq!(fs::read_link(space.path("artifacts/base")).unwrap(), Path::new("../model"));
    assert_eq!(fs::read_link(space.path("artifacts/adapter")).unwrap(), Path::new("../lora"));
    for node in ["fused", "q8", "q4"] {
        let target = fs::read_link(space.path(&format!("artifacts/{node}"))).unwrap();
        let (name, digest) = target.to_str().unwrap().split_once('-').unwrap();
        assert_eq!((name, digest.len()), (node, 12));
        let mut files = vec!["LICENSE", "README.md", "config.json", "tokenizer.json"];
        files.extend(["model.safetensors", "model.safetensors.index.json"]);
        files.extend((node != "fused").then_some("survival.json"));
        files.sort_unstable();
        assert_eq!(space.names(&format!("artifacts/{node}")), files);
        for file in files {
            let file = format!("artifacts/{node}/{file}");
            let (path, object) = (space.path(&file), space.path(&space.object(&file)));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o222, 0, "{file} is writable");
            assert_eq!(fs::read(&path).unwrap(), fs::read(&object).unwrap());
            // It is not a second copy but a hard link, or a clone that shares its blocks.
            let is_clone = fs::metadata(&path).unwrap().nlink() == 1;
            assert!(is_clone || same_file(&path, &object), "{file} is a copy");
        }
    }
    space.is_tidy();
}

#[test]
fn the_lock_has_a_sorted_line_for_each_node() {
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    let names: Vec<_> = lock.lines().skip(1).map(|line| line.split('"').nth(1).unwrap()).collect();
    assert_eq!(names, ["adapter", "base", "fused", "q4", "q8"]);
    assert!(lock.starts_with("# "), "{lock}");
}

#[test]
fn a_quantized_model_is_whole() {
    let space = Space::built();
    for file in ["LICENSE", "tokenizer.json"] {
        assert_eq!(space.bytes(&format!("artifacts/q4/{file}")), space.bytes(&format!("model/{file}")));
    }
    let config: Value = serde_json::from_str(&space.read("artifacts/q4/config.json")).unwrap();
    let expected = serde_json::json!({"bits": 4, "group_size": 64, "mode": "affine"});
    assert_eq!((&config["quantization"], &config["quantization_config"]), (&expected, &expected));
    assert_eq!(config["hidden_size"], 64);
    let tensors = TensorFiles::open_model(&space.path("artifacts/q4")).unwrap();
    let shape =
        |name: &str| tensors.get(&format!("model.layers.0.{name}")).map(|tensor| tensor.shape.clone());
    assert_eq!(shape("mlp.down_proj.weight"), Some(vec![64, 128 * 4 / 32]));
    assert_eq!(shape("mlp.down_proj.scales"), Some(vec![64, 128 / 64]));
    assert_eq!(shape("input_layernorm.weight"), Some(vec![64]));
    assert_eq!(shape("input_layernorm.scales"), None);
}

#[test]
fn a_build_says_what_it_does_on_standard_error_and_what_it_did_on_standard_output() {
    let space = Space::pico();
    let run = space.run(&["build", "-j1"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    ran 5 nodes
    stderr:
    base: running (it was never built here)
    base: checked, 88.1 kB where it lies, [DIGEST]
    adapter: running (it was never built here)
    adapter: checked, 2.6 kB where it lies, [DIGEST]
    fused: running (it was never built here)
    fused: built in [TIME] s, 89.2 kB, [DIGEST]
    q8: running (it was never built here)
    q8: built in [TIME] s, 52.8 kB, [DIGEST]
    q4: running (it was never built here)
    q4: built in [TIME] s, 31.3 kB, [DIGEST]
    ");
}

#[test]
fn a_dry_run_runs_nothing_and_agrees_with_the_build() {
    let space = Space::pico();
    let before = space.files("");
    let dry = space.run(&["build", "-n"]).exits(0);
    let (plan, takes) = dry.stdout.split_once("disk: ").unwrap();
    insta::assert_snapshot!(plan, @r"
    base     must run (it was never built here)
    adapter  must run (it was never built here)
    fused    waits for base, adapter (it was never built here)
    q8       waits for fused (it was never built here)
    q4       waits for fused (it was never built here)
    2 to run, 3 waiting for an input
    ");
    assert!(
        takes.starts_with("171.0 kB to write, 171.0 kB at the peak; ")
            && takes.contains("\nmemory: about 300.0 MB of "),
        "{takes}"
    );
    assert_eq!(space.files(""), before, "a dry run writes nothing");
    space.run(&["build", "-n", "--exit-code"]).exits(3).space().build().ran(ALL);
    let built = space.files("");
    let dry = space.edit("bits: 8", "bits: 6").run(&["build", "-n", "--json"]).exits(0);
    let decisions = dry.json().into_iter().filter(|line| line["forecast"].is_null());
    let stale = decisions.filter(|decision| decision["verdict"] != "fresh");
    assert_eq!(stale.map(|decision| decision["node"].clone()).collect::<Vec<_>>(), ["q8"]);
    space.edit("bits: 6", "bits: 8");
    assert_eq!(without_memo(space.files("")), without_memo(built), "a dry run writes nothing but the memory");
    space.edit("bits: 8", "bits: 6").build().ran(["q8"]);
}

fn without_memo(mut files: std::collections::BTreeMap<String, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    files.remove("cache/memo");
    files.into_iter().collect()
}

#[test]
fn the_exit_code_tells_whether_anything_is_stale() {
    let space = Space::built();
    let verbs = [&["build", "-n", "--exit-code"][..], &["status", "--exit-code"]];
    verbs.iter().for_each(|verb| drop(space.run(verb).exits(0)));
    space.edit("bits: 8", "bits: 6");
    verbs.iter().for_each(|verb| drop(space.run(verb).exits(3)));
    // Only the targets count.
    drop(space.run(&["status", "--exit-code", "q4"]).exits(0));
    drop(space.run(&["status"]).exits(0));
}

#[test]
fn json_lines_and_nothing_else_go_to_standard_output() {
    let space = Space::pico();
    let run = space.build().exits(0);
    assert_eq!(run.stderr, "");
    let last = run.json().pop().unwrap();
    let ran: Vec<_> = last["ran"].as_array().unwrap().iter().map(|node| node.as_str().unwrap()).collect();
    assert_eq!((last["event"].as_str(), sorted(ran)), (Some("finished"), sorted(ALL)));
    assert_eq!((run.nodes("started"), run.nodes("built")), (sorted(ALL), sorted(ALL)));
    for verb in [
        &["status", "--json"][..],
        &["build", "-n", "--json"],
        &["why", "q8", "--json"],
        &["verify", "--store", "--json"],
    ] {
        let run = space.run(verb).exits(0);
        assert!(!run.json().is_empty() && run.stderr.is_empty(), "{}", run.transcript());
    }
}

#[test]
fn another_folder_and_another_file() {
    let space = Space::pico();
    let mut command = space.command();
    command.current_dir("/").args(["-C", space.path("").to_str().unwrap(), "build", "--json"]);
    space.finish(command.output().unwrap()).ran(ALL);
    // Paths in a pipeline file are relative to the file, and so are its artifacts and its cache.
    let text = space
        .read("pipeline.yaml")
        .replace("source: model", "source: ../model")
        .replace("source: lora", "source: ../lora");
    space.write("other/eight.yaml", text);
    space.run(&["-f", "other/eight.yaml", "build", "--json", "q8"]).exits(0).space().is_tidy();
    assert_eq!(
        space.bytes("other/artifacts/q8/model.safetensors"),
        space.bytes("artifacts/q8/model.safetensors")
    );
    assert_eq!(space.names("other"), ["artifacts", "cache", "eight.lock", "eight.yaml"]);
}

#[test]
fn two_projects_may_use_one_cache() {
    let (one, two) = (Space::pico(), Space::pico());
    let cache = format!("version: 1\ncache: {{dir: {}}}\n", one.path("cache").display());
    one.build().ran(ALL);
    two.edit("version: 1\n", &cache).build().linked(ALL);
    assert_eq!(one.read("pipeline.lock"), two.read("pipeline.lock"));
    assert!(!two.path("cache").exists());
    one.is_tidy();
}

#[test]
fn locked_passes_on_equal_and_names_what_differs() {
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    space
        .build_with(&["--locked"])
        .ran([])
        .remove("cache")
        .remove("artifacts")
        .build_with(&["--locked"])
        .ran(ALL);
    assert_eq!(space.read("pipeline.lock"), lock);

    let forged = with_another_artifact(&lock, "q4");
    space.write("pipeline.lock", &forged);
    let run = space.run(&["build", "--locked"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    ran 0 nodes, 4 up to date, 1 failed
    stderr:
    q4: failed: its artifact is [DIGEST], but pipeline.lock has [DIGEST]
    ");
    assert_eq!(space.read("pipeline.lock"), forged, "--locked leaves the lock as it is");

    let without: Vec<_> = lock.lines().filter(|line| !line.starts_with("\"q8\"")).collect();
    let run = space.write("pipeline.lock", without.join("\n")).run(&["build", "--locked", "q8"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    ran 0 nodes, 3 up to date, 1 failed
    stderr:
    q8: failed: pipeline.lock does not have it; build without --locked and commit the lock
    ");
}

/// Returns a lock in which `node` has another artifact.
fn with_another_artifact(lock: &str, node: &str) -> String {
    let line = lock.lines().find(|line| line.starts_with(&format!("\"{node}\""))).unwrap();
    let (start, _) = line.split_once("artifact: ").unwrap();
    lock.replace(line, &format!("{start}artifact: {}}}", "0".repeat(64)))
}

#[test]
fn locked_fails_the_first_build_that_comes_out_different() {
    // As on another machine, there is no cache yet, so the node that differs runs and then fails.
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    space.write("pipeline.lock", with_another_artifact(&lock, "base")).remove("cache").remove("artifacts");
    let run = space.run(&["build", "--locked", "-j1"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    ran 1 node, 1 failed, 3 skipped, 1 not started (-k goes on)
    stderr:
    base: running (it was never built here)
    base: checked, 88.1 kB where it lies, [DIGEST]
    base: failed: its artifact is [DIGEST], but pipeline.lock has [DIGEST]
    fused: skipped, because base failed
    q4: skipped, because base failed
    q8: skipped, because base failed
    ");
}

#[test]
fn keep_going_does_what_does_not_depend_on_the_failure() {
    let nodes = "  strange: {stage: adapter, source: strange}
  misfit: {stage: fuse, model: base, adapter: strange}
  misfit4: {stage: quantize, model: misfit, bits: 4}
";
    let space = Space::pico();
    write_adapter(&space.path("strange"), 32, 1);
    space.edit("nodes:\n", &format!("nodes:\n{nodes}"));
    // Without -k nothing is started after the failure, and `misfit` is ready before `fused`.
    let run = space.build_with(&["-j1"]).exits(1);
    assert_eq!(
        (run.nodes("failed"), run.nodes("skipped")),
        (vec!["misfit".to_owned()], vec!["misfit4".to_owned()])
    );
    assert_eq!(run.nodes("built"), ["adapter", "base", "strange"]);
    space.is_tidy();
    let run = space.build_with(&["-j1", "-k"]).exits(1);
    assert_eq!(
        (run.nodes("failed"), run.nodes("built")),
        (vec!["misfit".to_owned()], sorted(["fused", "q4", "q8"]))
    );
    space.is_tidy();
    let run = space.run(&["build", "-k"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    ran 0 nodes, 6 up to date, 1 failed, 1 skipped
    stderr:
    misfit: running (it was never built here)
    misfit: failed: the adapter does not fit this model: 2 of 2 updates have no place
      `model.layers.0.self_attn.q_proj` updates [32, 32], but `model.layers.0.self_attn.q_proj.weight` is [64, 64]
      `model.layers.0.self_attn.v_proj` updates [32, 32], but `model.layers.0.self_attn.v_proj.weight` is [64, 64]
    misfit4: skipped, because misfit failed
    ");
}
