//! A small model of each type of the installed mlx-lm: quantized, fused, and quantized from the layout of the Hugging
//! Face hub. `model_types.py` makes them from the arguments of mlx-lm's models, so a new release of mlx-lm shows its
//! new types here, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tempfile::TempDir;

use weights::arch::{Step, When};

use super::compare::{Tolerance, differing_config, differing_tensors};

/// What mlx-lm cannot do with a type, and the beginning of its reason.
const CANNOT: [(&str, &str); 3] = [
    ("afm7", "quantize: FusedLinear.to_quantized()"),
    ("bitnet", "fuse: mlx-lm has no LoRA for its layers"),
    ("recurrent_gemma", "fuse: 'Model' object has no attribute '_no_grad'"),
];

/// What `model_types.py` reports.
#[derive(Deserialize)]
struct Types {
    types: BTreeMap<String, Vec<String>>,
    left_out: BTreeMap<String, String>,
}

fn write_models(root: &Path) -> Types {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let _ = std::fs::remove_dir_all(root);
    std::fs::create_dir_all(root).unwrap();
    let done = Command::new(repository.join(".mlx-lm/bin/python"))
        .arg(repository.join("tests/mlx_lm/model_types.py"))
        .arg(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "model_types.py failed:\n{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&std::fs::read(root.join("types.json")).unwrap()).unwrap()
}

/// A node, and the folder with what mlx-lm makes.
struct Case {
    node: String,
    expected: PathBuf,
}

/// Returns the pipeline file that makes all of it, and what it is compared with.
fn project(root: &Path, types: &Types) -> (String, Vec<Case>) {
    let mut yaml = "version: 1\nnodes:\n".to_owned();
    let mut cases = Vec::new();
    for kind in types.types.keys() {
        let source = |part: &str| root.join(part).join(kind);
        let mut node = |name: &str, fields: &str| writeln!(yaml, "  {name}-{kind}: {{{fields}}}").unwrap();
        let mut expect = |name: &str, part: &str| {
            let expected = source(part);
            let is_there = expected.join("config.json").exists();
            if is_there {
                cases.push(Case { node: format!("{name}-{kind}"), expected });
            }
            is_there
        };
        if expect("q", "quantized") {
            node("base", &format!("stage: base, source: {}", source("models").display()));
            node("q", &format!("stage: quantize, model: base-{kind}, bits: 4, group_size: 32"));
        }
        if expect("hq", "hubbed") {
            node("hub", &format!("stage: base, source: {}", source("hub").display()));
            node("hq", &format!("stage: quantize, model: hub-{kind}, bits: 4, group_size: 32"));
        }
        if expect("f", "fused") {
            node("base4", &format!("stage: base, source: {}", source("quantized").display()));
            node("a", &format!("stage: adapter, source: {}", source("adapters").display()));
            node("f", &format!("stage: fuse, model: base4-{kind}, adapter: a-{kind}"));
        }
    }
    (yaml, cases)
}

fn build(yaml: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    let done = command.arg("-C").arg(folder.path()).args(["build", "--keep-going"]).output().unwrap();
    (folder, String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn every_model_type_is_made_as_mlx_lm_makes_it() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("model_types");
    let types = write_models(&root);
    let mut wrong = wrong_reports(&types);
    wrong.extend(wrong_rows(&types));
    let (yaml, cases) = project(&root, &types);
    let (folder, log) = build(&yaml);
    for Case { node, expected } in &cases {
        let ours = folder.path().join("artifacts").join(node);
        if !ours.exists() {
            let why: Vec<_> = log.lines().filter(|line| line.starts_with(&format!("{node}:"))).collect();
            wrong.push(format!("{node} was not made: {}", why.join(" ")));
            continue;
        }
        let mut differences = differing_tensors(&ours, expected, Tolerance::Exact);
        differences.extend(differing_config(&ours, expected));
        if let Some(first) = differences.first() {
            wrong.push(format!(
                "{node} differs from mlx-lm's in {} places, the first: {first}",
                differences.len()
            ));
        }
    }
    let _ = std::fs::remove_dir_all(&root);
    assert!(wrong.is_empty(), "{} of {} nodes:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 300, "only {} nodes were compared", cases.len());
}

/// The page that says for each type what works.
const PAGE: &str = "docs/model-types.md";

/// Returns the rows of the table on that page.
fn rows(types: &Types) -> Vec<String> {
    let kinds = types.types.keys().chain(types.left_out.keys()).collect::<BTreeSet<_>>();
    let kinds: BTreeSet<_> = kinds.into_iter().filter(|kind| !kind.contains('+')).collect();
    let row = |kind: &&String| {
        let arch = weights::arch::of_model_type(kind);
        let cannot = |stage: &str| {
            let reasons = types.types.get(*kind).into_iter().flatten();
            if reasons.clone().any(|reason| reason.starts_with(stage)) { "mlx-lm cannot" } else { "yes" }
        };
        let is_left_out = types.left_out.contains_key(*kind);
        let (quantize, fuse) = match (is_left_out, cannot("quantize")) {
            (true, _) => ("refused", "refused"),
            (false, "yes") => ("yes", cannot("fuse")),
            (false, other) => (other, other),
        };
        let layout = match () {
            () if refuses(arch.sanitize) => "refused",
            () if arch.sanitize.is_empty() => "as it is",
            () => "rearranged",
        };
        let runs = models::model_types().contains(&arch.model_type);
        format!("| `{kind}` | {quantize} | {fuse} | {layout} | {} |", if runs { "yes" } else { "no" })
    };
    kinds.iter().map(row).collect()
}

/// Whether a layout is refused in some step.
fn refuses(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Refuse(..) => true,
        // Only models with a setting of their own.
        Step::If(When::Says(_), _) => false,
        Step::If(_, steps) => refuses(steps),
        _ => false,
    })
}

/// Returns the types whose row on the page is another one.
fn wrong_rows(types: &Types) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap_or_default();
    let missing = rows(types).into_iter().filter(|row| !page.lines().any(|line| line == row));
    missing.map(|row| format!("{PAGE} should have this row: {row}")).collect()
}

/// Returns what is not as this version of mlx-lm is known to be.
fn wrong_reports(types: &Types) -> Vec<String> {
    let mut wrong = Vec::new();
    for (kind, cannot) in &types.types {
        if !kind.contains('+') && weights::arch::of_model_type(kind).model_type.is_empty() {
            wrong.push(format!("{kind}: a model type without a record in crates/weights/src/arch"));
        }
        for reason in cannot {
            if !CANNOT.iter().any(|(known, start)| known == kind && reason.starts_with(start)) {
                wrong.push(format!("{kind}: mlx-lm cannot do this, and it is not known: {reason}"));
            }
        }
    }
    let left_out: BTreeSet<_> = types.left_out.keys().collect();
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    wrong
}
