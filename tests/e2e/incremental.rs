//! What a second build does: exactly what the change requires. Content counts; times, names and order do not.

use std::fs;

use crate::space::{ALL, Space, same_file};

#[test]
fn a_second_build_does_nothing() {
    let space = Space::built();
    space.build().ran([]);
    let run = space.run(&["build"]).exits(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("nothing to do: 5 nodes up to date\n", ""));
}

#[test]
fn a_parameter_reruns_its_node_and_going_back_links_it() {
    let space = Space::built();
    space
        .edit("bits: 8", "bits: 6")
        .build()
        .ran(["q8"])
        .edit("bits: 6", "bits: 8")
        .build()
        .linked(["q8"])
        .build()
        .ran([]);
}

#[test]
fn time_is_not_content() {
    Space::built().touch("model").touch("lora").touch("pipeline.yaml").build().ran([]);
}

#[test]
fn a_byte_of_the_adapter_reruns_what_descends_from_it() {
    Space::built().scribble("lora/adapters.safetensors").build().ran(["adapter", "fused", "q8", "q4"]);
}

#[test]
fn a_side_file_of_the_base_travels_to_every_model() {
    let space = Space::built();
    space.write("model/LICENSE", "Ask first.\n").build().ran(["base", "fused", "q8", "q4"]);
    assert_eq!(space.read("artifacts/q4/LICENSE"), "Ask first.\n");
}

#[test]
fn removed_artifacts_are_linked_again() {
    let space = Space::built();
    let before = space.files("artifacts");
    space.remove("artifacts").build().linked(ALL);
    assert_eq!(space.files("artifacts"), before);
}

#[test]
fn a_lost_cache_is_built_anew_to_the_same_bytes() {
    let space = Space::built();
    let (artifacts, lock) = (space.files("artifacts"), space.read("pipeline.lock"));
    space.remove("cache").build().ran(ALL);
    assert_eq!((space.files("artifacts"), space.read("pipeline.lock")), (artifacts, lock));
}

#[test]
fn an_input_that_comes_out_the_same_stops_the_rebuild() {
    // The base is float16, so asking for float16 makes the same model: `fused` runs, and nothing below it.
    let space = Space::built();
    space
        .edit("adapter: adapter}", "adapter: adapter, dtype: float16}")
        .build()
        .ran(["fused"])
        .build()
        .ran([]);
    // Another type makes another model.
    space.edit("dtype: float16", "dtype: bfloat16").build().ran(["fused", "q8", "q4"]);
}

#[test]
fn a_default_written_out_changes_nothing() {
    Space::built()
        .edit("bits: 8}", "bits: 8, group_size: 64}")
        .edit("version: 1\n", "version: 1\ncache: {dir: cache, remote: null}\n")
        .build()
        .ran([]);
}

#[test]
fn the_order_of_the_pipeline_file_changes_nothing() {
    let space = Space::built();
    let text = space.read("pipeline.yaml");
    let (head, nodes) = text.split_at(text.find("  base").unwrap());
    let nodes: Vec<_> = nodes.lines().rev().map(|line| format!("{line}\n")).collect();
    let shuffled = (head.to_owned() + &nodes.concat())
        .replace("stage: fuse, model: base, ", "model: base, stage: fuse, ");
    space.write("pipeline.yaml", shuffled).build().ran([]);
}

#[test]
fn a_renamed_node_is_linked_from_the_cache() {
    let space = Space::built();
    let model = space.bytes("artifacts/q8/model.safetensors");
    space.edit("q8:", "eight:").build().linked(["eight"]);
    assert_eq!(space.bytes("artifacts/eight/model.safetensors"), model);
    assert!(!space.read("pipeline.lock").contains("q8"), "the lock keeps a node that is gone");
}

#[test]
fn two_nodes_of_one_recipe_are_made_once() {
    let space = Space::built();
    let text = space.read("pipeline.yaml") + "  again: {stage: quantize, model: fused, bits: 4}\n";
    space.write("pipeline.yaml", text).build().linked(["again"]);
}

#[test]
fn force_runs_the_targets_only() {
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    space.build_with(&["--force", "q8"]).ran(["q8"]).build_with(&["--force"]).ran(ALL);
    assert_eq!(space.read("pipeline.lock"), lock);
}

#[test]
fn a_target_builds_what_it_is_made_from_and_nothing_else() {
    Space::pico().build_with(&["q4"]).ran(["base", "adapter", "fused", "q4"]).build().ran(["q8"]);
}

#[test]
fn forgetting_what_was_remembered_changes_nothing() {
    let space = Space::built();
    space.remove("cache/memo");
    let status = space.run(&["status"]).exits(0);
    assert!(!status.stdout.contains("never built"), "{}", status.transcript());
    space.build().ran([]);
    // What the nodes were built with is still known.
    let why = space.edit("bits: 8", "bits: 6").run(&["why", "q8"]).exits(0);
    assert_eq!(why.stdout, "q8: must run\n  parameter bits: 8 -> 6\n");
}

#[test]
fn a_damaged_memory_is_ignored() {
    let space = Space::built();
    space.write("cache/memo", [0xff; 100]).build().ran([]).write("cache/memo", "").build().ran([]);
}

#[test]
fn after_a_rest_every_change_is_noticed() {
    let space = Space::built();
    type Edit = fn(&Space);
    let changes: [(&str, Edit); 8] = [
        ("changed in place", |space| _ = space.scribble("artifacts/q8/model.safetensors")),
        ("replaced", |space| {
            space.remove("artifacts/q4/config.json").write("artifacts/q4/config.json", "{}");
        }),
        ("added", |space| _ = space.write("artifacts/q4/notes.txt", "good model")),
        ("no link", |space| _ = space.remove("artifacts/q8")),
        ("no record", |space| _ = space.remove("cache/actions").remove("cache/memo")),
        ("source changed", |space| _ = space.scribble("lora/adapters.safetensors")),
        ("source added", |space| _ = space.write("model/notes.txt", "a base")),
        ("parameter", |space| _ = space.edit("bits: 8", "bits: 6")),
    ];
    for (what, change) in changes {
        change(space.settle());
        let run = space.run(&["build"]).exits(0);
        assert!(!run.stdout.starts_with("nothing to do"), "{what}: {}", run.transcript());
    }
    let run = space.settle().touch("pipeline.yaml").run(&["build"]).exits(0);
    assert!(run.stdout.starts_with("nothing to do"), "{}", run.transcript());
    space.settle().write("cache/witness", [0xff; 100]).build().ran([]);
}

#[test]
fn a_file_changed_without_its_time_is_noticed() {
    let space = Space::built();
    let path = space.path("lora/adapters.safetensors");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    space.scribble("lora/adapters.safetensors");
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    space.build().ran(["adapter", "fused", "q8", "q4"]);
}

#[test]
fn a_replaced_artifact_file_is_put_back() {
    let space = Space::built();
    let config = space.bytes("artifacts/q8/config.json");
    space.remove("artifacts/q8/config.json").write("artifacts/q8/config.json", "{}");
    let run = space.run(&["build"]).exits(0);
    assert_eq!(run.stderr, "q8: `config.json` was changed by hand; put right from the cache\n");
    assert_eq!(space.bytes("artifacts/q8/config.json"), config);
    space.is_tidy().build().ran([]);
}

#[test]
fn an_added_and_a_removed_artifact_file_are_put_right() {
    let space = Space::built();
    let before = space.files("artifacts");
    space.write("artifacts/q8/notes.txt", "good model");
    let run = space.run(&["build"]).exits(0);
    assert_eq!(run.stderr, "q8: `notes.txt` was changed by hand; put right from the cache\n");
    assert_eq!(space.files("artifacts"), before);
    space.remove("artifacts/q8/LICENSE").build().linked(["q8"]);
    assert_eq!(space.files("artifacts"), before);
}

#[test]
fn an_artifact_file_altered_in_place_is_noticed_and_put_right() {
    let space = Space::built();
    let (file, object) = ("artifacts/q8/model.safetensors", space.object("artifacts/q8/model.safetensors"));
    let before = space.bytes(file);
    let linked = same_file(&space.path(file), &space.path(&object));
    space.scribble(file);
    let status = space.run(&["status", "--exit-code"]).exits(3);
    assert!(status.stdout.contains("q8"), "{}", status.transcript());
    // If the file system clones, the cache still has the original. If it links, both are altered.
    let run = space.build();
    if linked {
        let warning = &run.events("warning")[0];
        assert!(warning["message"].as_str().unwrap().contains("was altered"), "{warning}");
        run.ran(["q8"]);
    } else {
        run.linked(["q8"]);
    }
    assert_eq!((space.bytes(file), space.bytes(&object)), (before.clone(), before));
    space.build().ran([]);
}

#[test]
fn the_digests_do_not_depend_on_folder_threads_or_jobs() {
    let lock = Space::built().read("pipeline.lock");
    for (threads, jobs) in [("1", "-j1"), ("8", "-j4")] {
        let space = Space::pico();
        let mut command = space.command();
        command.args(["build", "--json", jobs]).env("RAYON_NUM_THREADS", threads).env("LANG", "tr_TR.UTF-8");
        space.finish(command.output().unwrap()).ran(ALL);
        assert_eq!(space.read("pipeline.lock"), lock);
    }
}
