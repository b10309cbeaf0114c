//! What a build will take, before it runs; and a cache that keeps itself small.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::space::{ALL, Space};

/// Returns the forecast of `build -n` as JSON.
fn forecast(space: &Space) -> Value {
    let run = space.run(&["build", "-n", "--json"]).exits(0);
    run.json().last().unwrap()["forecast"].clone()
}

/// Returns how many bytes the forecast says that a node writes, and how sure it is.
fn of<'a>(forecast: &'a Value, node: &str) -> (Option<u64>, &'a str) {
    let nodes = forecast["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|one| one["node"] == node).unwrap_or_else(|| panic!("{node}: {forecast}"));
    (node["bytes"].as_u64(), node["size"].as_str().unwrap())
}

/// Returns the size of what a node made, without what is measured.
fn made(space: &Space, node: &str) -> u64 {
    let files = space.files(&format!("artifacts/{}", space.link(&format!("artifacts/{node}"))));
    let files = files.iter().filter(|(path, _)| !path.ends_with("survival.json"));
    files.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[test]
fn what_fuse_and_quantize_write_is_known_to_the_byte() {
    let space = Space::pico();
    space.write("pipeline.yaml", space.read("pipeline.yaml") + "  \
        again: {stage: fuse, model: q4, adapter: adapter, requantize: true}\n  \
        wide: {stage: fuse, model: q8, adapter: adapter, dtype: float32}\n  \
        mixed: {stage: quantize, model: wide, bits: 6, group_size: 32, overrides: [{pattern: '*.mlp.*', bits: 3}]}\n");
    let before = forecast(&space);
    space.build().ran(["base", "adapter", "fused", "q8", "q4", "again", "wide", "mixed"]);
    for node in ["fused", "q8", "q4", "again", "wide", "mixed"] {
        assert_eq!(of(&before, node), (Some(made(&space, node)), "exact"), "{node}");
    }
    assert_eq!(of(&before, "base"), (Some(0), "exact"));
    let sum: u64 =
        ["fused", "q8", "q4", "again", "wide", "mixed"].iter().map(|node| made(&space, node)).sum();
    assert_eq!(before["written_bytes"].as_u64(), Some(sum));
    assert_eq!(before["peak_disk_bytes"].as_u64(), Some(sum));
    assert_eq!(forecast(&space), Value::Null, "nothing is to be done");
    // From what is there, and from what is in the cache only.
    space.edit("model: fused, bits: 4", "model: fused, bits: 2").remove("artifacts");
    let before = forecast(&space);
    assert!(before["seconds"].as_f64().unwrap() > 0.0);
    let _ = space.build().exits(0);
    assert_eq!(of(&before, "q4"), (Some(made(&space, "q4")), "exact"));
}

#[test]
fn what_is_not_known_is_said() {
    let space = Space::pico();
    let command = "command: [sh, -c, 'cp -L {lora}/* {out}']";
    space.edit(
        "adapter: {stage: adapter, source: lora}",
        "lora: {stage: files, source: lora}\n  adapter: {stage: run, makes: adapter, inputs: {lora: lora}, "
            .to_owned()
            .as_str(),
    );
    space.write(
        "pipeline.yaml",
        space
            .read("pipeline.yaml")
            .replace("inputs: {lora: lora}, ", &format!("inputs: {{lora: lora}}, {command}}}")),
    );
    let run = space.run(&["build", "-n"]).exits(0);
    assert!(
        run.stdout.contains("disk: about ") && run.stdout.contains("; the size of adapter is not known\n"),
        "{}",
        run.stdout
    );
    let before = forecast(&space);
    space.build().ran(["lora", "base", "adapter", "fused", "q8", "q4"]);
    assert_eq!(of(&before, "fused"), (Some(made(&space, "fused")), "about"));
    assert_eq!(of(&before, "adapter").1, "unknown");
    let again = forecast(space.edit("cp -L", "cp  -L"));
    assert_eq!(of(&again, "adapter"), (Some(made(&space, "adapter")), "about"), "as its last run here");
}

#[test]
fn a_build_that_does_not_fit_stops_before_it_begins() {
    let space = Space::pico();
    fs::create_dir(space.path("cache")).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160k", "none"])
        .arg(space.path("cache"))
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    let stopped = space.run(&["build"]);
    let anyway = space.run(&["build", "--anyway"]);
    let smaller = space.run(&["build", "fused"]);
    assert!(Command::new("umount").arg(space.path("cache")).status().unwrap().success());
    let stopped = stopped.exits(1);
    assert!(
        stopped.stderr.starts_with("error: the build does not fit: it writes up to "),
        "{}",
        stopped.transcript()
    );
    assert!(
        stopped.stderr.ends_with("`pipeline gc` removes what is not current; --anyway goes on\n"),
        "{}",
        stopped.transcript()
    );
    assert!(!stopped.stderr.contains("running"), "{}", stopped.transcript());
    assert!(anyway.exits(1).stderr.contains("No space left on device"));
    drop(smaller.exits(0));
}

#[test]
fn a_cache_with_a_limit_removes_what_is_not_current() {
    let space = Space::pico();
    space.write("pipeline.yaml", format!("cache: {{max_size: 190KB}}\n{}", space.read("pipeline.yaml")));
    space.build().ran(ALL);
    let size = || space.files("cache/objects").values().map(Vec::len).sum::<usize>();
    let whole = size();
    assert!(whole < 190_000, "{whole}");
    for bits in ["4 -> 6", "6 -> 5"] {
        let (old, new) = bits.split_once(" -> ").unwrap();
        space.edit(&format!("bits: {old}"), &format!("bits: {new}")).build().ran(["q4"]);
    }
    // What was made in between is gone, what is current is not.
    let run = space.edit("bits: 5", "bits: 3").run(&["build"]).exits(0);
    assert!(run.stderr.contains("cache: "), "{}", run.transcript());
    assert!(size() <= 190_000, "{}", size());
    space.build().ran([]);
    let run =
        space.edit("max_size: 190KB", "max_size: 10KB").edit("bits: 3", "bits: 2").run(&["build"]).exits(0);
    assert!(
        run.stderr.contains("and `max_size` is 10.0 kB; what is left is current or in use"),
        "{}",
        run.transcript()
    );
    space.build().ran([]);
}
