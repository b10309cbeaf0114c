//! What is left of the example's fine-tuning, compared with figures that numpy computed:
//! `golden/survival.py`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use weights::survival::{Figures, Survival};
use weights::tensor::TensorFiles;

/// The relative difference that is allowed, because numpy sums floats in another order.
const NEAR: f64 = 1e-9;

/// The nodes of the golden file, and `at-once`, which fuses and requantizes in one step. The base is
/// quantized to 4 bits in groups of 64.
const NODES: &str = "\
version: 1
nodes:
  base: {stage: base, source: base-4bit}
  adapter: {stage: adapter, source: adapter}
  fused: {stage: fuse, model: base, adapter: adapter, dtype: float16}
  fused-bf16: {stage: fuse, model: base, adapter: adapter, dtype: bfloat16}
  8bit: {stage: quantize, model: fused, bits: 8}
  6bit: {stage: quantize, model: fused, bits: 6}
  4bit: {stage: quantize, model: fused, bits: 4}
  3bit-32: {stage: quantize, model: fused, bits: 3, group_size: 32}
  4bit-bf16: {stage: quantize, model: fused-bf16, bits: 4}
  4bit-of-8bit: {stage: quantize, model: 8bit, bits: 4}
  mxfp4: {stage: quantize, model: fused, mode: mxfp4}
  mxfp8: {stage: quantize, model: fused, mode: mxfp8}
  nvfp4: {stage: quantize, model: fused, mode: nvfp4}
  at-once: {stage: fuse, model: base, adapter: adapter, requantize: true}
  4bit-keep: {stage: quantize, model: fused, bits: 4, rounding: keep}
  5bit-keep-bf16: {stage: quantize, model: fused-bf16, bits: 5, rounding: keep}
  6bit-keep-bf16: {stage: quantize, model: fused-bf16, bits: 6, rounding: keep}
  kept-at-once: {stage: fuse, model: base, adapter: adapter, requantize: true, rounding: keep}
";

/// A folder with the example's base and adapter, and these nodes.
fn project(nodes: &str) -> TempDir {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny");
    let folder = tempfile::tempdir().unwrap();
    for source in ["base-4bit", "adapter"] {
        fs::create_dir(folder.path().join(source)).unwrap();
        for entry in fs::read_dir(tiny.join(source)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(source).join(entry.file_name())).unwrap();
        }
    }
    fs::write(folder.path().join("pipeline.yaml"), nodes).unwrap();
    folder
}

/// Builds, and returns what was written to standard error.
fn build(folder: &TempDir, arguments: &[&str], threads: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.arg("-C").arg(folder.path()).arg("build").args(arguments).env("RAYON_NUM_THREADS", threads);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    stderr
}

fn bytes(folder: &TempDir, node: &str) -> Vec<u8> {
    fs::read(folder.path().join("artifacts").join(node).join("survival.json")).unwrap()
}

fn weights(folder: &TempDir, node: &str) -> Vec<u8> {
    fs::read(folder.path().join("artifacts").join(node).join("model.safetensors")).unwrap()
}

fn survival(folder: &TempDir, node: &str) -> Survival {
    serde_json::from_slice(&bytes(folder, node)).unwrap()
}

fn compare(what: &str, ours: &Figures, theirs: &Value, near: f64) {
    let ours = serde_json::to_value(ours).unwrap();
    for (key, theirs) in theirs.as_object().unwrap() {
        // How a weight was rounded is a word.
        let (Some(ours), Some(theirs)) = (ours[key].as_f64(), theirs.as_f64()) else { continue };
        assert!((ours - theirs).abs() <= near * theirs.abs(), "{what} {key}: {ours}, by numpy {theirs}");
    }
}

#[test]
fn the_figures_are_those_of_numpy() {
    let folder = project(NODES);
    let said = build(&folder, &[], "2");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/survival.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (node, theirs) in golden.as_object().unwrap() {
        let ours = survival(&folder, node);
        compare(node, &ours.overall, &theirs["overall"], NEAR);
        let tensors = theirs["tensors"].as_object().unwrap();
        assert_eq!(ours.tensors.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>(), "{node}");
        for (name, figures) in &ours.tensors {
            compare(&format!("{node} {name}"), figures, &tensors[name], NEAR);
        }
    }
    let left = |node| survival(&folder, node).overall.survival;
    assert!((left("4bit") - 0.2).abs() < 0.01 && (left("8bit") - 1.0).abs() < 0.01);
    // Fusing and quantizing in one step gives the same file.
    assert!(bytes(&folder, "at-once") == bytes(&folder, "4bit"), "at once something else comes out");
    assert!(bytes(&folder, "kept-at-once") == bytes(&folder, "4bit-keep"), "kept at once, something else");
    let warning = "4bit: warning: of the fine-tuning, 20 % survived quantizing: the base lies on the same grid, 4 bits in \
                   groups of 64, each weight in the middle of what rounds to it; the update is 0.12 of a step (root mean \
                   square), less than the half that takes a weight to the next; rounding returned ";
    assert!(said.contains(warning), "{said}");
    assert!(!said.contains("\n8bit: warning") && survival(&folder, "8bit").cause.is_none(), "{said}");
}

/// The example's adapter leaves the embedding and some projections alone. On the grid of the base they come back
/// bit for bit, and all scales and biases do.
#[test]
fn what_was_not_trained_returns() {
    let folder = project(NODES);
    build(&folder, &["4bit-keep"], "2");
    let open = |path: &str| TensorFiles::open(&folder.path().join(path)).unwrap();
    let (base, kept) = (open("base-4bit/model.safetensors"), open("artifacts/4bit-keep/model.safetensors"));
    let is_same = |name: &str| base.read(name).unwrap() == kept.read(name).unwrap();
    let trained = survival(&folder, "4bit-keep").tensors;
    assert_eq!(trained.len(), 24);
    for name in base.tensors().keys() {
        assert!(is_same(name) != trained.contains_key(name), "{name}");
    }
}

/// The number of threads does not change a bit. MLX's BLAS may round the last place of a merged weight
/// differently.
#[test]
fn threads_do_not_matter_and_backends_hardly() {
    let nodes: String = NODES
        .lines()
        .filter(|line| !line.contains("fp") && !line.contains("bf16"))
        .map(|line| format!("{line}\n"))
        .collect();
    let folder = project(&nodes);
    let nodes = ["4bit", "8bit", "4bit-keep", "kept-at-once"];
    let made = || nodes.map(|node| (bytes(&folder, node), weights(&folder, node)));
    build(&folder, &nodes, "1");
    let one = made();
    build(&folder, &["--force", "4bit", "8bit", "4bit-keep", "kept-at-once"], "8");
    assert!(made() == one, "eight threads make another file");
    if cfg!(feature = "mlx") {
        let cpu = survival(&folder, "4bit").overall;
        build(&folder, &["--backend", "mlx", "4bit"], "2");
        compare("mlx", &survival(&folder, "4bit").overall, &serde_json::to_value(cpu).unwrap(), 1e-4);
    }
}
