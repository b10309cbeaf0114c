//! Adapters of PEFT, fused, compared with what PEFT's own `merge_and_unload` makes of them. The golden files come from
//! `golden/peft_adapters.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests play the user, who writes files as they like")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use weights::tensor::TensorFiles;

/// How far a merged weight may be from PEFT's: torch sums up a product in its own order. The weights are below 1.
const TOLERANCE: f32 = 2e-7;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft").join(name)
}

/// The float32 tensors of a file or of a model, by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(files: &TensorFiles) -> Tensors {
    let value = |name: &str| -> Vec<f32> {
        files.read(name).unwrap().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    files.tensors().iter().map(|(name, tensor)| (name.clone(), (tensor.shape.clone(), value(name)))).collect()
}

/// Fuses the adapter of a case into its model with the program.
fn fused(case: &str, model: &str) -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let (model, adapter) = (golden(model), golden(case).join("adapter"));
    let yaml = format!(
        "version: 1\nnodes:\n  model: {{stage: base, source: {}}}\n  adapter: {{stage: adapter, source: {}}}\n  \
         fused: {{stage: fuse, model: model, adapter: adapter}}\n",
        model.display(),
        adapter.display()
    );
    std::fs::write(folder.path().join("pipeline.yaml"), yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    let done = command.arg("-C").arg(folder.path()).args(["build", "fused"]).output().unwrap();
    assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
    read(&TensorFiles::open_model(&folder.path().join("artifacts/fused")).unwrap())
}

/// Returns transformers' name of a tensor, and whether its matrix is transposed there.
fn in_transformers(name: &str) -> (String, bool) {
    match name.strip_prefix("model.h.") {
        Some(rest) => (format!("transformer.h.{rest}"), rest.ends_with(".weight") && !rest.contains("ln_")),
        None if name.starts_with("model.w") || name.starts_with("model.ln_f") => {
            (name.replacen("model.", "transformer.", 1), false)
        }
        None => (name.to_owned(), false),
    }
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

#[test]
fn what_peft_merges_is_merged_so() {
    let cases: BTreeMap<String, String> =
        serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    for (case, model) in &cases {
        let base = read(&TensorFiles::open_model(&golden(model)).unwrap());
        let merged = read(&TensorFiles::open(&golden(case).join("merged.safetensors")).unwrap());
        let mut met = 0;
        for (name, (shape, values)) in fused(case, model) {
            let (theirs, is_turned) = in_transformers(&name);
            let values = if is_turned { transposed(&values, *shape.last().unwrap()) } else { values };
            let Some((_, expected)) = merged.get(&theirs) else {
                assert!(base[&theirs].1 == values, "{case}: {name} is not what it was");
                continue;
            };
            met += 1;
            let far =
                values.iter().zip(expected).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
            assert!(values.len() == expected.len() && far <= TOLERANCE, "{case}: {name} is off by {far:e}");
        }
        assert_eq!(met, merged.len(), "{case}: PEFT changed tensors that are not there");
    }
    assert_eq!(cases.len(), 8);
}
