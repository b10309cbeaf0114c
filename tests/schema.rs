//! The JSON Schema of pipeline.yaml compared with the parser: the same names of nodes, words and keys.
//! Knows nothing of how an editor uses it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use fancy_regex::Regex;
use proptest::prelude::*;
use serde_json::{Value, json};

use engine::manifest::Manifest;
use report::Quantity;
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{Dtype, Mixed, TokenizerOf};

/// A node of each stage that the parser accepts, with its required keys only.
const NODES: [(&str, &str); 8] = [
    ("base", "source: s"),
    ("adapter", "source: s"),
    ("fuse", "model: m, adapter: a"),
    ("quantize", "model: m, bits: 4"),
    ("probe", "model: m, tokens: random"),
    ("benchmark", "suite: s, configs: {c: m}"),
    ("files", "source: s"),
    ("run", "makes: files, command: [x]"),
];

/// A worker of each kind that the parser accepts, with its required keys only.
const WORKERS: [(&str, &str); 3] =
    [("ssh", "hosts: [h]"), ("slurm", "for: [run]"), ("command", "run: ['{line}']")];

/// Returns what `pipeline schema` prints.
fn schema() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeline")).arg("schema").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the parser's message for a pipeline file with these nodes, or `None` if it accepts them.
fn refusal(nodes: &str) -> Option<String> {
    Manifest::parse(&format!("version: 1\nnodes: {nodes}")).err().map(|problem| problem.message)
}

#[test]
fn the_words_are_those_of_the_parser() {
    let schema = schema();
    let stages: BTreeSet<_> = schema["properties"]["nodes"]["additionalProperties"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["$ref"].as_str().unwrap().trim_start_matches("#/$defs/"))
        .collect();
    assert_eq!(stages, NODES.iter().map(|(stage, _)| *stage).collect());
    let words = |stage: &str, key: &str| schema["$defs"][stage]["properties"][key]["enum"].clone();
    assert_eq!(words("fuse", "dtype"), json!(Dtype::WORDS.map(|(word, _)| word)));
    assert_eq!(words("fuse", "tokenizer"), json!(TokenizerOf::WORDS.map(|(word, _)| word)));
    assert_eq!(words("quantize", "mode"), json!(Mode::WORDS.map(|(word, _)| word)));
    assert_eq!(words("quantize", "recipe"), json!(Mixed::WORDS.map(|(word, _)| word)));
    let modes = Mode::WORDS.map(|(_, mode)| mode);
    let bits: BTreeSet<_> = modes.iter().flat_map(|mode| mode.bits()).collect();
    let groups: BTreeSet<_> = modes.iter().flat_map(|mode| mode.group_sizes()).collect();
    let overrides = &schema["$defs"]["quantize"]["properties"]["overrides"]["items"]["properties"];
    for (key, numbers) in [("bits", &bits), ("group_size", &groups)] {
        let own: Vec<_> =
            words("quantize", key).as_array().unwrap().iter().filter(|it| it.is_u64()).cloned().collect();
        assert_eq!(json!(own), json!(numbers));
        assert_eq!(overrides[key]["enum"], json!(numbers));
    }
    assert!(words("quantize", "bits").as_array().unwrap().contains(&json!("auto")));
    for stage in ["fuse", "quantize"] {
        assert_eq!(words(stage, "rounding"), json!(Rounding::WORDS.map(|(word, _)| word)));
    }
    let quantities: BTreeSet<_> = Quantity::WORDS.iter().map(|(word, _)| (*word).to_owned()).collect();
    let keys =
        |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&schema["$defs"]["criteria"]), quantities);
    let gate = keys(&schema["$defs"]["benchmark"]["properties"]["gates"]["additionalProperties"]);
    assert_eq!(gate, &quantities | &BTreeSet::from(["against".to_owned()]));
}

#[test]
fn every_key_is_one_of_the_parser() {
    let schema = schema();
    for (stage, fields) in NODES {
        for key in schema["$defs"][stage]["properties"].as_object().unwrap().keys() {
            // No key accepts this value. The parser may refuse the value, but it must know the key.
            let named = fields.contains(&format!("{key}:")) || key == "stage";
            let more = if named { String::new() } else { format!(", {key}: [[1]]") };
            let refused = refusal(&format!("{{n: {{stage: {stage}, {fields}{more}}}}}"));
            let is_unknown = refused.as_ref().is_some_and(|message| message.contains("unknown key"));
            assert!(!is_unknown, "{stage}.{key}: {refused:?}");
        }
        let refused = refusal(&format!("{{n: {{stage: {stage}, {fields}, zzz: 1}}}}")).unwrap();
        assert!(refused.contains("unknown key `zzz`"), "{stage}: {refused}");
        assert_eq!(schema["$defs"][stage]["additionalProperties"], json!(false), "{stage}");
    }
}

#[test]
fn every_key_of_a_worker_is_one_of_the_parser() {
    let schema = schema();
    let refusal = |worker: &str| {
        let text = format!("version: 1\nworkers: {{w: {worker}}}\nnodes: {{n: {{stage: base, source: s}}}}");
        Manifest::parse(&text).err().map(|problem| problem.message)
    };
    for (kind, fields) in WORKERS {
        assert_eq!(refusal(&format!("{{executor: {kind}, {fields}}}")), None);
        let properties = schema["$defs"][kind]["properties"].as_object().unwrap();
        for key in properties.keys().filter(|key| *key != "executor" && !fields.contains(&format!("{key}:")))
        {
            let refused = refusal(&format!("{{executor: {kind}, {fields}, {key}: [[1]]}}"));
            let is_unknown = refused.as_ref().is_some_and(|message| message.contains("unknown key"));
            assert!(!is_unknown, "{kind}.{key}: {refused:?}");
        }
        let refused = refusal(&format!("{{executor: {kind}, {fields}, zzz: 1}}")).unwrap();
        assert!(refused.contains("unknown key `zzz`"), "{kind}: {refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_is_allowed_where_the_parser_allows_it(name in "[a-c0-9_.+ /\\-ß漢②!é]{0,6}|README\\.md|[ -~]{1,3}") {
        // Braces stand for the parameters of a matrix.
        prop_assume!(!name.contains(['{', '}']));
        static PATTERN: std::sync::OnceLock<Regex> = std::sync::OnceLock::new();
        let pattern = PATTERN.get_or_init(|| {
            Regex::new(schema()["properties"]["nodes"]["propertyNames"]["pattern"].as_str().unwrap()).unwrap()
        });
        let node = format!("{{{}: {{stage: base, source: s}}}}", serde_json::to_string(&name).unwrap());
        prop_assert_eq!(pattern.is_match(&name).unwrap(), refusal(&node).is_none(), "{:?}", name);
    }
}
