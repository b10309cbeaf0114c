//! Errors in what the user wrote or has: the whole message, the exit code, and that nothing is damaged. Exit
//! code 2 is for the pipeline file and the command line, 1 for a node that fails.

use crate::pico::{Size, write_adapter};
use crate::space::{Run, Space, sorted};

/// Runs a command that fails with `code`, and returns its transcript. Checks that the artifacts and the
/// stored objects are unchanged and that nothing unfinished is left.
fn refusal(space: &Space, args: &[&str], code: i32) -> String {
    let (artifacts, objects) = (space.files("artifacts"), space.files("cache/objects"));
    let run = space.run(args).exits(code);
    assert_eq!(space.files("artifacts"), artifacts, "an artifact was touched");
    let after = space.files("cache/objects");
    assert!(objects.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "an object was touched");
    space.is_tidy();
    run.transcript()
}

/// The same for a mistake in the pipeline file, with which nothing may run at all.
fn mistake(space: &Space) -> String {
    let before = space.files("");
    let said = refusal(space, &["build"], 2);
    assert_eq!(space.files(""), before, "something was written");
    said
}

fn edited(from: &str, to: &str) -> String {
    let space = Space::built();
    space.edit(from, to);
    mistake(&space)
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(edited("bits: 4", "bit: 4"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:39: unknown key `bit` in node `q4`; did you mean `bits`?
      7 |   q4: {stage: quantize, model: fused, bit: 4}
        |                                       ^
    ");
}

#[test]
fn a_shared_cache_at_no_address() {
    insta::assert_snapshot!(edited("version: 1\n", "version: 1\ncache: {remote: \"https://x/y\"}\n"), @r#"
    exit 2
    stderr:
    error: pipeline.yaml:2:17: `remote` must begin with one of file://, s3://, gs://, az://, azure://, abfs://, abfss://; `https://x/y` does not
      2 | cache: {remote: "https://x/y"}
        |                 ^
    "#);
}

#[test]
fn a_trusted_key_that_is_none() {
    insta::assert_snapshot!(edited("version: 1\n", "version: 1\ncache:\n  trusted_keys:\n    ana: \"ed25519:AAAA\"\n"), @r#"
    exit 2
    stderr:
    error: pipeline.yaml:4:10: the value of `ana` is no public key: after `ed25519:` come 32 bytes in base64, which are 44 characters
      4 |     ana: "ed25519:AAAA"
        |          ^
    "#);
}

#[test]
fn unknown_node() {
    insta::assert_snapshot!(edited("model: fused, bits: 4", "model: fuse, bits: 4"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:32: node `q4` needs `fuse`, which is not a node; did you mean `fused`?
      7 |   q4: {stage: quantize, model: fuse, bits: 4}
        |                                ^
    ");
}

#[test]
fn cycle() {
    insta::assert_snapshot!(edited("{stage: base, source: model}", "{stage: quantize, model: q4, bits: 4}"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:3:3: dependency cycle: base -> q4 -> fused -> base
      3 |   base: {stage: quantize, model: q4, bits: 4}
        |   ^
    ");
}

#[test]
fn wrong_kind() {
    insta::assert_snapshot!(edited("model: fused, bits: 4", "model: adapter, bits: 4"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:32: `model` must be a model, but node `adapter` is an adapter
      7 |   q4: {stage: quantize, model: adapter, bits: 4}
        |                                ^
    ");
}

#[test]
fn bits_that_mlx_lacks() {
    insta::assert_snapshot!(edited("bits: 4", "bits: 7"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:45: `bits` must be one of 2, 3, 4, 5, 6, 8, not 7: MLX has no other
      7 |   q4: {stage: quantize, model: fused, bits: 7}
        |                                             ^
    ");
}

#[test]
fn unknown_stage() {
    insta::assert_snapshot!(edited("{stage: fuse", "{stage: merge"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:5:18: `stage` must be one of base, adapter, files, fuse, quantize, probe, benchmark, run, not `merge`
      5 |   fused: {stage: merge, model: base, adapter: adapter}
        |                  ^
    ");
}

#[test]
fn missing_parameter() {
    insta::assert_snapshot!(edited(", bits: 4", ""), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:7: node `q4` needs `bits`
      7 |   q4: {stage: quantize, model: fused}
        |       ^
    ");
}

#[test]
fn duplicate_node() {
    insta::assert_snapshot!(edited("  q4:", "  q8:"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:3: the key `q8` is written twice
      7 |   q8: {stage: quantize, model: fused, bits: 4}
        |   ^
    ");
}

#[test]
fn no_yaml() {
    insta::assert_snapshot!(edited("nodes:", "nodes: ["), @r"
    exit 2
    stderr:
    error: pipeline.yaml:4:3: while parsing a flow mapping, did not find expected ',' or '}'
      4 |   adapter: {stage: adapter, source: lora}
        |   ^
    ");
}

#[test]
fn missing_source() {
    insta::assert_snapshot!(edited("source: model", "source: modell"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:3:31: the source `modell` of node `base` does not exist
      3 |   base: {stage: base, source: modell}
        |                               ^
    ");
}

#[test]
fn a_name_that_leads_out_of_artifacts() {
    insta::assert_snapshot!(edited("  q4:", "  ../q4:"), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:3: `../q4` cannot name a node: use letters, digits, `-`, `_`, `+` and `.`, and begin with a letter or a digit
      7 |   ../q4: {stage: quantize, model: fused, bits: 4}
        |   ^
    ");
}

#[test]
fn a_group_size_that_divides_no_row_is_found_before_anything_runs() {
    let space = Space::pico();
    crate::pico::write_model(&space.path("model"), Size { hidden: 48, layers: 1 });
    write_adapter(&space.path("lora"), 48, 1);
    // 32 divides the 96 columns of `down_proj`, so that group size is allowed. 128 divides neither these nor
    // the 48 columns of the others.
    space.edit("bits: 8", "bits: 8, group_size: 32").edit("bits: 4", "bits: 4, group_size: 128");
    insta::assert_snapshot!(mistake(&space), @r"
    exit 2
    stderr:
    error: pipeline.yaml:7:3: node `q4`: `group_size: 128` divides no row of the model's weights
      7 |   q4: {stage: quantize, model: fused, bits: 4, group_size: 128}
        |   ^
    ");
}

#[test]
fn unknown_target() {
    let space = Space::built();
    insta::assert_snapshot!(refusal(&space, &["build", "q88"], 2), @r"
    exit 2
    stderr:
    error: there is no node `q88`; did you mean `q8`?
    ");
    insta::assert_snapshot!(refusal(&space, &["why", "nothing"], 2), @r"
    exit 2
    stderr:
    error: there is no node `nothing`
    ");
}

#[test]
fn no_pipeline_file() {
    let space = Space::empty();
    insta::assert_snapshot!(refusal(&space, &["build"], 2), @r"
    exit 2
    stderr:
    error: cannot read pipeline.yaml: No such file or directory (os error 2); `pipeline init` writes one, -C and -f name another
    ");
    assert_eq!(space.names("."), [""; 0]);
}

#[test]
fn wrong_usage() {
    insta::assert_snapshot!(refusal(&Space::empty(), &["biuld"], 2), @r"
    exit 2
    stderr:
    error: unrecognized subcommand 'biuld'

      tip: a similar subcommand exists: 'build'

    Usage: pipeline [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refusal(&Space::built(), &["build", "-j0"], 2), @r"
    exit 2
    stderr:
    error: invalid value '0' for '--jobs <N>': 0 is not in 1..=65535

    For more information, try '--help'.
    ");
}

/// Runs a build in which only `node` fails, and checks that nothing else is changed.
fn failure<'a>(space: &'a Space, node: &str) -> Run<'a> {
    let before: Vec<_> = ["q8", "q4"].map(|node| space.files(&format!("artifacts/{node}"))).into();
    let run = space.run(&["build", "-j1", "-k"]).exits(1);
    let failed: Vec<_> = run.stderr.lines().filter(|line| line.contains(": failed: ")).collect();
    assert!(failed.len() == 1 && failed[0].starts_with(&format!("{node}: ")), "{}", run.transcript());
    let after: Vec<_> = ["q8", "q4"].map(|node| space.files(&format!("artifacts/{node}"))).into();
    assert_eq!(after, before);
    space.is_tidy();
    run
}

#[test]
fn adapter_of_another_model() {
    let space = Space::pico();
    write_adapter(&space.path("lora"), 32, 2);
    space.edit("q8: {stage: quantize, model: fused", "q8: {stage: quantize, model: base");
    let run = space.run(&["build", "-k"]).exits(1);
    let failed = run.stderr.find("fused: failed").unwrap();
    let (message, _) = run.stderr[failed..].split_once("\nq").unwrap();
    insta::assert_snapshot!(message, @r"
    fused: failed: the adapter does not fit this model: 4 of 4 updates have no place; it goes up to layer 1, but `model.layers` of the model ends at 0
      `model.layers.0.self_attn.q_proj` updates [32, 32], but `model.layers.0.self_attn.q_proj.weight` is [64, 64]
      `model.layers.0.self_attn.v_proj` updates [32, 32], but `model.layers.0.self_attn.v_proj.weight` is [64, 64]
      `model.layers.1.self_attn.q_proj` updates `model.layers.1.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      `model.layers.1.self_attn.v_proj` updates `model.layers.1.self_attn.v_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.v_proj.weight`
    ");
    let run = space.build_with(&["-k"]).exits(1);
    assert_eq!((run.nodes("failed"), run.nodes("skipped")), (sorted(["fused"]), sorted(["q4"])));
    assert!(space.path("artifacts/q8/model.safetensors").exists(), "{}", run.transcript());
    space.is_tidy();
}

/// Returns the error of a build whose base has these bytes as weights.
fn with_weights(bytes: impl AsRef<[u8]>) -> String {
    let space = Space::built();
    space.write("model/model.safetensors", bytes);
    said_of(&failure(&space, "base"))
}

fn said_of(run: &Run<'_>) -> String {
    let lines =
        run.stderr.lines().filter(|line| !line.contains(": skipped") && !line.starts_with("base: running ("));
    lines.collect::<Vec<_>>().join("\n")
}

/// A safetensors file with this header and `data` zero bytes after it.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn truncated_weights() {
    let whole = Space::pico().bytes("model/model.safetensors");
    insta::assert_snapshot!(with_weights(&whole[..whole.len() - 100]), @"base: failed: [DIR]/model/model.safetensors is damaged: its tensors end at byte 87704, but the file has 87604: it is truncated");
    insta::assert_snapshot!(with_weights([1, 2, 3]), @"base: failed: [DIR]/model/model.safetensors is damaged: it is shorter than a header");
}

#[test]
fn a_header_longer_than_the_file() {
    insta::assert_snapshot!(with_weights((1_u64 << 20).to_le_bytes()), @"base: failed: [DIR]/model/model.safetensors is damaged: its header claims 1048576 bytes, but the file has 8");
    insta::assert_snapshot!(with_weights(u64::MAX.to_le_bytes()), @"base: failed: [DIR]/model/model.safetensors is damaged: its header claims 18446744073709551615 bytes; the limit is 100000000");
}

#[test]
fn overlapping_tensors() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    insta::assert_snapshot!(with_weights(safetensors(header, 6)), @"base: failed: [DIR]/model/model.safetensors is damaged: its header is not valid: invalid offset for tensor `b`");
}

#[test]
fn tensors_outside_the_file() {
    let header = r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#;
    insta::assert_snapshot!(with_weights(safetensors(header, 4)), @"base: failed: [DIR]/model/model.safetensors is damaged: its tensors end at byte 70, but the file has 65: it is truncated");
}

#[test]
fn absurd_shapes() {
    let header =
        r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}}"#;
    insta::assert_snapshot!(with_weights(safetensors(header, 8)), @"base: failed: [DIR]/model/model.safetensors is damaged: its header is not valid: overflow computing buffer size from shape and/or element type");
}

#[test]
fn a_header_that_is_no_json() {
    insta::assert_snapshot!(with_weights(safetensors("{]", 8)), @"base: failed: [DIR]/model/model.safetensors is damaged: its header is not valid: key must be a string at line 1 column 2");
}

#[test]
fn a_missing_shard() {
    let space = Space::built();
    let index = r#"{"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}"#;
    space.write("model/model.safetensors.index.json", index);
    space.remove("model/model.safetensors");
    insta::assert_snapshot!(said_of(&failure(&space, "base")), @"base: failed: the shard [DIR]/model/model-00002-of-00002.safetensors is missing; model.safetensors.index.json names it, and 0 of 1 shards are there: the download is not finished");
}

#[test]
fn a_shard_outside_the_folder() {
    let space = Space::built();
    space.write("model/model.safetensors.index.json", r#"{"weight_map": {"a": "../../secret.safetensors"}}"#);
    insta::assert_snapshot!(said_of(&failure(&space, "base")), @"base: failed: [DIR]/model/model.safetensors.index.json: `../../secret.safetensors` is not the name of a file beside it");
}

#[test]
fn a_configuration_that_is_no_json() {
    let space = Space::built();
    space.write("model/config.json", "{\"model_type\": qwen2}");
    insta::assert_snapshot!(said_of(&failure(&space, "base")), @"base: failed: [DIR]/model/config.json is not a JSON object: expected value at line 1 column 16");
}

#[test]
fn a_missing_tokenizer() {
    let space = Space::built();
    space.remove("model/tokenizer.json");
    insta::assert_snapshot!(said_of(&failure(&space, "base")), @"base: failed: a base needs its tokenizer: cannot read [DIR]/model/tokenizer.json: No such file or directory (os error 2)");
}

#[test]
fn a_cache_that_cannot_be_written() {
    // A file takes the place of the cache, because permissions do not stop root.
    let space = Space::pico();
    space.write("cache", "not a folder");
    insta::assert_snapshot!(refusal(&space, &["build"], 1), @r"
    exit 1
    stderr:
    error: the cache cache is not a folder; `cache: {dir: …}` names another
    ");
    space.remove("cache").build().ran(crate::space::ALL);
}

#[test]
fn a_folder_of_the_users_in_the_place_of_an_artifact() {
    let space = Space::pico();
    space.write("artifacts/q4/notes.txt", "mine");
    let run = space.run(&["build", "-j1"]).exits(1);
    insta::assert_snapshot!(run.stderr.lines().last().unwrap(), @"q4: failed: artifacts/q4 is not a link of ours; move it away, it is the name of a node");
    assert_eq!(space.read("artifacts/q4/notes.txt"), "mine");
    space.is_tidy().remove("artifacts/q4").build().linked(["q4"]);
}
