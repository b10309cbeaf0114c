//! `pipeline verify`: what was built is made again on the side and compared; what is recorded stays
//! unchanged.

use serde_json::Value;

use crate::space::Space;

/// Replaces the weights of `node` with others that differ in their last byte: the stored content, the record
/// that names it, and the folder in `artifacts/`, so that every digest fits. `cache/memo` is removed, so that
/// no state is remembered.
pub(crate) fn forge(space: &Space, node: &str) {
    let path = format!("artifacts/{node}/model.safetensors");
    let mut bytes = space.bytes(&path);
    let old = artifact::Digest::of(&bytes).to_string();
    *bytes.last_mut().unwrap() ^= 1;
    let new = artifact::Digest::of(&bytes).to_string();
    space.write(&format!("cache/objects/{}/{}", &new[..2], &new[2..]), bytes);
    for (record, content) in space.files("cache/actions") {
        let text = String::from_utf8(content).unwrap();
        if text.contains(&format!(r#""digest":"{old}""#)) {
            space.write(&record, text.replacen(&old, &new, 1));
        }
    }
    space.remove("cache/memo").remove(&format!("artifacts/{node}"));
    let _ = space.run(&["build", node]).exits(0);
}

#[test]
fn what_is_sound_is_made_again_and_nothing_changes() {
    let space = Space::built();
    let before = (space.files("cache"), space.files("artifacts"), space.read("pipeline.lock"));
    let run = space.run(&["verify"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    5 nodes verified, 0 failed
    stderr:
    base: verifying
    adapter: verifying
    fused: verifying
    q8: verifying
    q4: verifying
    ");
    assert_eq!((space.files("cache"), space.files("artifacts"), space.read("pipeline.lock")), before);
    space.is_tidy().build().ran([]);
}

#[test]
fn a_consistent_forgery_is_found_and_named() {
    let space = Space::built();
    forge(&space, "q4");
    // Neither the folder `artifacts/` nor the digests in the store reveal it.
    let _ = space.run(&["build"]).exits(0).space().run(&["verify", "--store"]).exits(0);
    let before = (space.files("cache"), space.files("artifacts"));
    let run = space.run(&["verify"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    q4: model.safetensors differs: tensor `model.norm.weight` differs from element 63 on (byte 127)
    5 nodes verified, 1 failed
    stderr:
    base: verifying
    adapter: verifying
    fused: verifying
    q8: verifying
    q4: verifying
    ");
    let run = space.run(&["verify", "q4", "--json"]).exits(1);
    let [finding, summary] = &run.json()[..] else { panic!("{}", run.transcript()) };
    assert_eq!((&finding["finding"], &summary["failed"]), (&Value::from("differs"), &Value::from(1)));
    assert_eq!(finding["differences"][0]["file"], "model.safetensors");
    assert_eq!((space.files("cache"), space.files("artifacts")), before);
    space.is_tidy();
}

#[test]
fn one_node_is_made_again_from_the_store_where_the_shelf_is_empty() {
    let space = Space::built();
    let run = space.remove("artifacts").run(&["verify", "q8"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    1 node verified, 0 failed
    stderr:
    q8: verifying
    ");
    assert!(!space.path("artifacts").exists());
    space.is_tidy();
}

#[test]
fn what_is_not_built_cannot_be_verified() {
    let space = Space::built();
    let run = space.edit("bits: 8", "bits: 6").run(&["verify", "q8", "fused"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    q8: not built; `pipeline build q8` makes it
    2 nodes verified, 1 failed
    stderr:
    fused: verifying
    q8: verifying
    ");
    let run = space.run(&["verify", "q5"]).exits(2);
    assert!(run.stderr.contains("there is no node `q5`"), "{}", run.transcript());
}
