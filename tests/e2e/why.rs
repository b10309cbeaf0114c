//! What `why`, `status` and `build -n` say: what changed, old and new, in the words of the pipeline file.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::space::{STATE_HOME, Space};
use artifact::Digest;
use engine::store::{LocalState, MachineSecret};

fn why(space: &Space, node: &str) -> String {
    space.run(&["why", node]).exits(0).stdout
}

#[test]
fn never_built_and_up_to_date() {
    let space = Space::pico();
    insta::assert_snapshot!(why(&space, "base"), @r"
    base: must run
      it was never built here
    ");
    drop(space.build());
    insta::assert_snapshot!(why(&space, "q8"), @"q8: up to date");
}

#[test]
fn a_parameter_old_and_new() {
    let space = Space::built();
    space.edit("bits: 8", "group_size: 32, bits: 6");
    insta::assert_snapshot!(why(&space, "q8"), @r"
    q8: must run
      parameter bits: 8 -> 6
      parameter group_size: 64 -> 32
    ");
    space.edit("adapter: adapter}", "adapter: adapter, dtype: float32}");
    insta::assert_snapshot!(why(&space, "fused"), @r#"
    fused: must run
      parameter dtype: unset -> float32
    "#);
}

#[test]
fn a_file_of_the_source_by_name() {
    let space = Space::built();
    space.scribble("lora/adapters.safetensors").write("lora/README.md", "new").remove("model/LICENSE");
    insta::assert_snapshot!(why(&space, "adapter"), @r"
    adapter: must run
      file README.md: new, [DIGEST]
      file adapters.safetensors: [DIGEST] -> [DIGEST]
    ");
    insta::assert_snapshot!(why(&space, "base"), @r"
    base: must run
      file LICENSE: gone, was [DIGEST]
    ");
}

#[test]
fn a_node_that_waits_and_the_root_cause() {
    let space = Space::built();
    space.scribble("lora/adapters.safetensors").edit("bits: 4", "bits: 5");
    insta::assert_snapshot!(why(&space, "q4"), @r"
    q4: waits for fused
      parameter bits: 4 -> 5
    adapter: must run
      file adapters.safetensors: [DIGEST] -> [DIGEST]
    ");
}

#[test]
fn an_input_by_role_and_node() {
    let space = Space::built();
    space.edit("adapter: adapter}", "adapter: adapter, dtype: bfloat16}");
    // Once `fused` is built, it is known what changes for `q4`.
    space.build_with(&["fused"]).ran(["fused"]);
    insta::assert_snapshot!(why(&space, "q4"), @r"
    q4: must run
      input model (fused): [DIGEST] -> [DIGEST]
    ");
}

#[test]
fn another_stage_under_the_same_name() {
    let space = Space::built();
    space.edit(
        "{stage: quantize, model: fused, bits: 8}",
        "{stage: fuse, model: base, adapter: adapter, dtype: float32}",
    );
    insta::assert_snapshot!(why(&space, "q8"), @r"
    q8: must run
      stage: quantize -> fuse
      input adapter (adapter): new, [DIGEST]
      input model (base): [DIGEST] -> [DIGEST]
    ");
}

#[test]
fn a_changed_source_node() {
    let space = Space::built();
    let text = space.read("pipeline.yaml") + "  twin: {stage: quantize, model: fused, bits: 5}\n";
    space.write("pipeline.yaml", text).build().ran(["twin"]);
    space.edit("q8: {stage: quantize, model: fused", "q8: {stage: quantize, model: twin");
    insta::assert_snapshot!(why(&space, "q8"), @r"
    q8: must run
      input model (twin): [DIGEST] -> [DIGEST]
    ");
}

#[test]
fn newer_code_of_a_stage() {
    // An older program leaves this: the record of `q8` has another version, and the remembered state points
    // at that record.
    let space = Space::built();
    let record = |path: &str| serde_json::from_str::<Value>(&space.read(path)).unwrap();
    let paths = space.files("cache/actions").into_keys();
    let path =
        paths.into_iter().find(|path| record(path)["recipe"]["stage"]["parameters"]["bits"] == 8).unwrap();
    let mut old = record(&path);
    old["recipe"]["version"] = json!(0);
    let key = Digest::of_json(&old["recipe"]);
    space.write(&format!("cache/actions/{key}.json"), old.to_string()).remove(&path);
    let secret = MachineSecret::at(PathBuf::from(STATE_HOME).join("pipeline/machine-secret"));
    let mut state = LocalState::load(&space.path("cache/memo"), &secret);
    state.nodes.set("q8", key, &serde_json::from_value(old["artifact"].clone()).unwrap(), None);
    space.write("cache/memo", state.changed(&secret).unwrap());
    insta::assert_snapshot!(why(&space, "q8"), @r"
    q8: must run
      the stage's code: version 0 -> 4
    ");
    space.build().ran(["q8"]);
}

#[test]
fn a_record_that_is_gone() {
    let space = Space::built();
    space.remove("cache/actions").remove("cache/memo");
    insta::assert_snapshot!(space.run(&["status"]).stdout, @r"
    base     must run (it was never built here)
    adapter  must run (it was never built here)
    fused    waits for base, adapter (it was never built here)
    q8       waits for fused (it was never built here)
    q4       waits for fused (it was never built here)
    2 to run, 3 waiting for an input
    ");
}

#[test]
fn a_renamed_node_was_made_before() {
    let space = Space::built();
    space.edit("q8:", "eight:");
    insta::assert_snapshot!(why(&space, "eight"), @"eight: made before; it is linked from the cache");
}

#[test]
fn the_three_print_the_same_verdicts() {
    let space = Space::built();
    space.scribble("lora/adapters.safetensors").edit("bits: 4", "bits: 5");
    let status = space.run(&["status"]).exits(0);
    insta::assert_snapshot!(status.stdout, @r"
    base     up to date
    adapter  must run (file adapters.safetensors: [DIGEST] -> [DIGEST])
    fused    waits for adapter
    q8       waits for fused
    q4       waits for fused (parameter bits: 4 -> 5)
    1 to run, 3 waiting for an input
    ");
    // `build -n` also says what the build takes.
    let dry = space.run(&["build", "-n"]).exits(0);
    assert_eq!(dry.stdout.split_once("disk: ").unwrap().0, status.stdout);

    let decisions = space.run(&["status", "--json"]).exits(0).json();
    let dry = space.run(&["build", "-n", "--json"]).exits(0).json();
    assert_eq!(dry[..dry.len() - 1], decisions);
    assert!(dry.last().unwrap()["forecast"].is_object());
    for decision in &decisions {
        let node = decision["node"].as_str().unwrap();
        assert_eq!(space.run(&["why", node, "--json"]).exits(0).json(), std::slice::from_ref(decision));
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&decisions[4]).unwrap(), @r#"
    {
      "node": "q4",
      "stage": "quantize",
      "verdict": "waits",
      "changes": [
        {
          "change": "parameter",
          "name": "bits",
          "old": 4,
          "new": 5
        }
      ],
      "waits_for": [
        "fused"
      ],
      "edited": null,
      "failure": null,
      "key": null,
      "worker": null,
      "artifact": null
    }
    "#);
}

#[test]
fn nothing_to_do() {
    insta::assert_snapshot!(Space::built().run(&["status"]).exits(0).stdout, @r"
    base     up to date
    adapter  up to date
    fused    up to date
    q8       up to date
    q4       up to date
    nothing to do: 5 nodes up to date
    ");
}
