//! Whole nodes compared with mlx-lm 0.32.2 itself: every tensor's name, type, shape and bytes, and
//! `config.json`.
//! `reference.py` runs mlx-lm once, in `.mlx-lm/`, and describes the models and adapters named here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests play the user, who writes files as they like")]

mod compare;
mod templates;
mod tool_calls;
mod types;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use compare::{Tolerance, differing_config, differing_tensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// One node, and the model and adapter it is made from.
struct Case {
    name: &'static str,
    model: &'static str,
    adapter: Option<&'static str>,
    /// The node as in pipeline.yaml, without `model` and `adapter`.
    node: &'static str,
    tolerance: Tolerance,
}

/// How many differences a failure shows.
const SHOWN: usize = 20;

use Tolerance::{Exact, Relative};

/// Makes a test of each case, and the list of cases that mlx-lm is given.
macro_rules! cases {
    ($($name:ident: $model:literal $(+ $adapter:literal)?, $node:literal, $tolerance:expr;)*) => {
        const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            model: $model,
            adapter: cases!(@adapter $($adapter)?),
            node: $node,
            tolerance: $tolerance,
        }),*];
        $(#[test]
        fn $name() {
            check(CASES.iter().find(|case| case.name == stringify!($name)).unwrap());
        })*
    };
    (@adapter) => { None };
    (@adapter $adapter:literal) => { Some($adapter) };
}

cases! {
    quantizes_in_2_bits: "llama-float16", "stage: quantize, bits: 2, group_size: 64", Exact;
    quantizes_in_3_bits: "llama-float32", "stage: quantize, bits: 3, group_size: 32", Exact;
    quantizes_in_4_bits: "llama-float16", "stage: quantize, bits: 4, group_size: 64", Exact;
    quantizes_in_5_bits: "llama-bfloat16", "stage: quantize, bits: 5, group_size: 128", Exact;
    quantizes_in_6_bits: "llama-float32", "stage: quantize, bits: 6, group_size: 128", Exact;
    quantizes_in_8_bits: "llama-float16", "stage: quantize, bits: 8, group_size: 32", Exact;
    quantizes_tied_shards: "qwen2-shards", "stage: quantize, bits: 4, group_size: 32", Exact;
    drops_what_the_model_does_not_use: "llama-leftovers", "stage: quantize, bits: 8, group_size: 64", Exact;
    quantizes_what_the_group_divides: "llama-192", "stage: quantize, bits: 8, group_size: 128", Exact;
    quantizes_in_the_type_of_the_config: "llama-cast", "stage: quantize, bits: 4, group_size: 64", Exact;

    quantizes_to_mxfp4: "llama-float16", "stage: quantize, bits: 4, group_size: 32, mode: mxfp4", Exact;
    quantizes_to_mxfp8: "llama-float32", "stage: quantize, bits: 8, group_size: 32, mode: mxfp8", Exact;
    quantizes_to_nvfp4: "qwen2-shards", "stage: quantize, bits: 4, group_size: 16, mode: nvfp4", Exact;
    quantizes_bfloat16_to_mxfp4: "llama-bfloat16", "stage: quantize, bits: 4, group_size: 32, mode: mxfp4", Exact;

    mixes_2_and_6_bits: "llama-16-layers", "stage: quantize, bits: 4, group_size: 64, recipe: mixed_2_6", Exact;
    mixes_3_and_4_bits: "llama-16-layers", "stage: quantize, bits: 4, group_size: 32, recipe: mixed_3_4", Exact;
    mixes_3_and_6_bits: "llama-16-layers", "stage: quantize, bits: 4, group_size: 64, recipe: mixed_3_6", Exact;
    mixes_4_and_6_bits: "llama-16-layers", "stage: quantize, bits: 4, group_size: 64, recipe: mixed_4_6", Exact;

    quantizes_experts: "qwen3-moe", "stage: quantize, bits: 8, group_size: 32", Exact;
    quantizes_experts_but_not_the_router: "qwen3-moe", "stage: quantize, bits: 4, group_size: 64", Exact;
    quantizes_experts_to_mxfp4: "qwen3-moe", "stage: quantize, bits: 4, group_size: 32, mode: mxfp4", Exact;
    quantizes_stacked_experts: "qwen3-moe-stacked", "stage: quantize, bits: 6, group_size: 64", Exact;
    quantizes_experts_of_mixtral: "mixtral", "stage: quantize, bits: 4, group_size: 64", Exact;

    fuses_onto_bfloat16: "llama-bfloat16" + "llama-lora", "stage: fuse", Exact;
    fuses_onto_float16: "qwen2-float16" + "qwen2-lora", "stage: fuse, dtype: float16", Exact;
    fuses_onto_float32: "llama-float32" + "llama-lora", "stage: fuse", Exact;
    fuses_factors_of_float16: "qwen2-float16" + "qwen2-lora-float16", "stage: fuse", Exact;
    fuses_onto_4_bits: "qwen2-4bit" + "qwen2-lora", "stage: fuse, dtype: float16", Exact;
    fuses_onto_mixed_packings: "qwen2-overrides" + "qwen2-lora-float16", "stage: fuse", Exact;
    fuses_one_layer_of_mxfp4: "llama-mxfp4" + "llama-lora-one-layer", "stage: fuse, dtype: bfloat16", Exact;
    fuses_onto_mxfp8: "llama-mxfp8" + "llama-lora", "stage: fuse, dtype: bfloat16", Exact;
    fuses_onto_nvfp4: "llama-nvfp4" + "llama-lora", "stage: fuse", Exact;

    requantizes_4_bits: "qwen2-4bit" + "qwen2-lora", "stage: fuse, requantize: true", Exact;
    requantizes_mixed_packings: "qwen2-overrides" + "qwen2-lora", "stage: fuse, requantize: true", Exact;
    requantizes_mxfp4: "llama-mxfp4" + "llama-lora", "stage: fuse, requantize: true", Exact;
    requantizes_mxfp8: "llama-mxfp8" + "llama-lora-one-layer", "stage: fuse, requantize: true", Exact;
    requantizes_nvfp4: "llama-nvfp4" + "llama-lora", "stage: fuse, requantize: true", Exact;

    fuses_onto_stacked_experts: "qwen3-moe-stacked" + "moe-lora", "stage: fuse", Exact;
    fuses_onto_single_experts: "qwen3-moe" + "moe-lora", "stage: fuse", Exact;
    fuses_onto_experts_in_4_bits: "qwen3-moe-4bit" + "moe-lora", "stage: fuse, dtype: bfloat16", Exact;
    requantizes_experts: "qwen3-moe-4bit" + "moe-lora", "stage: fuse, requantize: true", Exact;

    fuses_dora: "llama-float32" + "llama-dora", "stage: fuse", Relative(1e-6);
    takes_over_a_full_fine_tune: "llama-float16" + "llama-full", "stage: fuse", Exact;
}

/// The folder that `reference.py` writes, once for all tests. The next test run replaces it.
static REFERENCE: LazyLock<PathBuf> = LazyLock::new(write_reference);

fn write_reference() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = repository.join(".mlx-lm/bin/python");
    assert!(python.exists(), "mlx-lm is not set up: run make setup");
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlx_lm");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root).unwrap();
    let cases: Vec<_> = CASES.iter().map(Case::to_json).collect();
    let mut child = Command::new(python)
        .arg(repository.join("tests/mlx_lm/reference.py"))
        .arg(&root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "reference.py failed:\n{}", String::from_utf8_lossy(&done.stderr));
    root
}

impl Case {
    fn to_json(&self) -> Value {
        json!({"name": self.name, "model": self.model, "adapter": self.adapter, "node": self.node})
    }

    /// Returns the pipeline file that makes the node `ours` from the reference's model and adapter.
    fn yaml(&self, reference: &Path) -> String {
        let reference = reference.display();
        let mut yaml = format!(
            "version: 1\nnodes:\n  model: {{stage: base, source: {reference}/models/{}}}\n",
            self.model
        );
        let mut adapter = "";
        if let Some(name) = self.adapter {
            writeln!(yaml, "  adapter: {{stage: adapter, source: {reference}/adapters/{name}}}").unwrap();
            adapter = ", adapter: adapter";
        }
        writeln!(yaml, "  ours: {{{}, model: model{adapter}}}", self.node).unwrap();
        yaml
    }
}

/// Builds the case's node and compares the folder it makes with mlx-lm's.
fn check(case: &Case) {
    let root = &*REFERENCE;
    let folder = build(&case.yaml(root));
    let ours = folder.path().join("artifacts/ours");
    let expected = root.join("expected").join(case.name);
    let mut differences = differing_tensors(&ours, &expected, case.tolerance);
    differences.extend(differing_config(&ours, &expected));
    let count = differences.len();
    differences.truncate(SHOWN);
    let adapter = case.adapter.map_or_else(String::new, |adapter| format!(" + {adapter}"));
    assert!(
        count == 0,
        "{}: {{{}}} of {}{adapter} differs from mlx-lm's in {count} places:\n  {}",
        case.name,
        case.node,
        case.model,
        differences.join("\n  ")
    );
}

fn build(yaml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    let done = command.arg("-C").arg(folder.path()).args(["build", "ours"]).output().unwrap();
    assert!(done.status.success(), "{yaml}\n{}", String::from_utf8_lossy(&done.stderr));
    folder
}

/// Loads a model with mlx-lm, and prints the bits of each quantized module and how many logits of a word are finite.
const LOAD: &str = "
import json, sys
from pathlib import Path
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
model, _ = load_model(Path(sys.argv[1]))
modules = tree_flatten(model.leaf_modules(), is_leaf=lambda module: hasattr(module, 'parameters'))
bits = {name: module.bits for name, module in modules if hasattr(module, 'bits')}
logits = model(mx.array([[1, 2, 3]]))
print(json.dumps({'bits': bits, 'finite': bool(mx.isfinite(logits).all())}))
";

/// What `bits: auto` chose is what mlx-lm reads from `config.json`.
#[test]
fn mlx_lm_loads_what_auto_chose() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny");
    let tiny = tiny.display();
    let folder = build(&format!(
        "version: 1\nnodes:\n  base: {{stage: base, source: {tiny}/base-4bit}}\n  adapter: {{stage: adapter, source: {tiny}/adapter}}\n  \
         fused: {{stage: fuse, model: base, adapter: adapter, dtype: float16}}\n  \
         ours: {{stage: quantize, model: fused, bits: auto, target_bits: 6.5}}\n"
    ));
    let model = folder.path().join("artifacts/ours");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".mlx-lm/bin/python");
    let done = Command::new(python).args(["-c", LOAD]).arg(&model).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let loaded: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(loaded["finite"], true);
    let config: Value = serde_json::from_slice(&std::fs::read(model.join("config.json")).unwrap()).unwrap();
    let loaded = loaded["bits"].as_object().unwrap();
    let chosen: BTreeSet<_> = loaded.values().map(Value::as_u64).collect();
    assert!(chosen.len() > 1, "all modules have the same bits: {loaded:?}");
    for (module, bits) in loaded {
        assert_eq!(config["quantization"][module]["bits"], *bits, "{module}");
    }
}
