//! Temporary nodes: when their files go, when they come back, and what that saves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::pico::{SLOW, write_adapter};
use crate::remote::Team;
use crate::space::{ALL, Space};

/// The pico project with a temporary `fused`.
fn temporary() -> Space {
    let space = Space::pico();
    space.edit("adapter: adapter}", "adapter: adapter, temporary: true}");
    space
}

/// The contents of `fused`, as it would be if it were not temporary.
fn is_fused_here(space: &Space) -> bool {
    let weights = Space::built().object("artifacts/fused/model.safetensors");
    space.path(&weights).exists() || space.path("artifacts/fused").is_symlink()
}

#[test]
fn a_temporary_node_goes_when_nobody_needs_it_any_more() {
    let space = temporary();
    let run = space.build();
    assert_eq!(run.nodes("released"), ["fused"]);
    run.ran(ALL);
    assert!(!is_fused_here(&space));
    assert!(
        space.names("artifacts").iter().all(|name| !name.starts_with("fused")),
        "{:?}",
        space.names("artifacts")
    );
    assert!(space.read("pipeline.lock").contains("fused"));
    // It is not made because it is absent, only because something that must run needs it.
    space.build().ran([]);
    space.settle().build().ran([]);
    let status = space.run(&["status"]).exits(0);
    assert!(status.stdout.contains("nothing to do"), "{}", status.stdout);
    let run = space.edit("bits: 4", "bits: 6").run(&["build", "-n"]).exits(0);
    assert!(
        run.stdout.contains("must run (it is temporary, and something needs its files again)"),
        "{}",
        run.stdout
    );
    space.build().ran(["fused", "q4"]);
    assert!(!is_fused_here(&space));
    let _ = space.run(&["verify"]).exits(0);
    let verified = space.run(&["verify", "q4"]).exits(0);
    assert_eq!(verified.stdout, "1 node verified, 0 failed\n");
    let _ = space.run(&["verify", "--store"]).exits(0);
    let _ = space.run(&["gc"]).exits(0);
    space.build().ran([]);
    // Whoever names it gets it, until the next build that does not.
    space.build_with(&["fused"]).ran(["fused"]);
    assert!(space.path("artifacts/fused/model.safetensors").exists());
    let run = space.build();
    assert_eq!(run.nodes("released"), ["fused"]);
    run.ran([]);
    assert!(!is_fused_here(&space));
    // If a node that reads it fails, it stays for the next attempt.
    let fails = "  bad: {stage: run, makes: files, inputs: {m: fused}, command: [sh, -c, 'ls {m} > {out}/x; exit 1']}\n";
    space.write("pipeline.yaml", space.read("pipeline.yaml") + fails);
    let run = space.build().exits(1);
    assert_eq!((run.nodes("built"), run.nodes("released").len()), (vec!["fused".to_owned()], 0));
    let run = space.edit("; exit 1", "").build();
    assert_eq!(run.nodes("released"), ["fused"]);
    run.ran(["bad"]);
    let wrong = space.edit("temporary: true", "temporary: 1").run(&["build"]).exits(2);
    assert!(
        wrong.stderr.contains("`temporary` must be true or false, not a number"),
        "{}",
        wrong.transcript()
    );
    space.edit("source: model}", "source: model, temporary: true}").edit("temporary: 1", "temporary: true");
    assert!(space.run(&["build"]).exits(2).stderr.contains("unknown key `temporary` in node `base`"));
}

/// Returns how many bytes the files below a folder take, each once.
fn disk_bytes(folder: &Path) -> u64 {
    let (mut stack, mut seen, mut bytes) = (vec![folder.to_owned()], BTreeSet::new(), 0);
    while let Some(path) = stack.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            stack.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if seen.insert(metadata.ino()) {
            bytes += metadata.len();
        }
    }
    bytes
}

/// Builds one node at a time; returns the most bytes that the cache had meanwhile, and those that it has at the end.
fn measured(space: &Space) -> (u64, u64) {
    let mut build =
        space.command().args(["build", "-j1"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(disk_bytes(&space.path("cache")));
        if let Some(status) = build.try_wait().unwrap() {
            break status;
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success());
    (peak, disk_bytes(&space.path("cache")))
}

#[test]
fn few_temporary_files_are_on_the_disk_at_once() {
    // Three fine-tunings of a model of 20 MB, each fused, quantized to 8 bits and forgotten.
    let peak = |temporary: &str| {
        let space = Space::of(SLOW);
        for scale in 1..=3 {
            let folder = space.path(&format!("lora-{scale}"));
            write_adapter(&folder, SLOW.hidden, SLOW.layers);
            let config = format!("lora-{scale}/adapter_config.json");
            let mut read: Value = serde_json::from_str(&space.read(&config)).unwrap();
            read["lora_parameters"]["scale"] = json!(scale);
            space.write(&config, read.to_string());
        }
        let matrix = "matrix: {n: [1, 2, 3]}";
        space.write(
            "pipeline.yaml",
            format!(
                "version: 1\nnodes:\n  base: {{stage: base, source: model}}\n  \
                 \"lora-{{n}}\": {{stage: adapter, source: \"lora-{{n}}\", {matrix}}}\n  \
                 \"fused-{{n}}\": {{stage: fuse, model: base, adapter: \"lora-{{n}}\", {matrix}{temporary}}}\n  \
                 \"q-{{n}}\": {{stage: quantize, model: \"fused-{{n}}\", bits: 8, {matrix}}}\n"
            ),
        );
        measured(&space)
    };
    let ((whole, kept), (least, left)) = (peak(""), peak(", temporary: true"));
    println!("peak {whole}, with temporary nodes {least}; at the end {kept} and {left} bytes");
    let (fused, quantized) = ((kept - left) / 3, left / 3);
    assert!(whole >= 3 * fused + 3 * quantized, "{whole}");
    assert!(
        least <= fused + 3 * quantized + quantized / 2,
        "{least} of {whole}, {fused} for one that is fused"
    );
    assert!(least >= fused, "{least}");
}

#[test]
fn a_temporary_node_of_a_team_is_sent_before_it_goes() {
    let bucket = Bucket::all().into_iter().next().unwrap();
    let team = Team::on(bucket);
    let first = team.join(temporary(), 0);
    let run = first.build();
    assert_eq!(
        (run.nodes("released"), run.nodes("sent").len()),
        (vec!["fused".to_owned()], 5),
        "{}",
        run.transcript()
    );
    run.ran(ALL);
    assert!(!is_fused_here(&first));
    let second = team.second(&first);
    let run = second.build().exits(0);
    assert_eq!((run.nodes("built").len(), run.nodes("fetched")), (0, vec!["q4".to_owned(), "q8".to_owned()]));
    // What is needed again comes from the team, and goes again.
    let run = second.edit("bits: 4", "bits: 6").build().exits(0);
    assert_eq!(run.nodes("fetched"), ["fused"], "{}", run.transcript());
    assert_eq!(
        (run.nodes("built"), run.nodes("released")),
        (vec!["q4".to_owned()], vec!["fused".to_owned()])
    );
    drop(first.run(&["push"]).exits(0));
}

/// Writes a pipeline file of nodes that run shell scripts: name, more fields, script.
fn scripts(space: &Space, nodes: &[(&str, &str, &str)]) {
    let node = |(name, fields, script): &(&str, &str, &str)| {
        let script = serde_json::to_string(script).unwrap();
        format!("  {name}: {{stage: run, makes: files, {fields} command: [sh, -c, {script}]}}\n")
    };
    let nodes: String = nodes.iter().map(node).collect();
    space.write("pipeline.yaml", format!("version: 1\nnodes:\n{nodes}"));
}

#[test]
fn what_a_temporary_node_shares_with_others_stays() {
    let space = Space::empty();
    scripts(
        &space,
        &[
            ("train", "deterministic: false,", "date +%N > out/w"),
            ("pick", "temporary: true, inputs: {t: train},", "cp inputs/t/w out/w"),
            ("use", "inputs: {p: pick},", "cat inputs/p/w > out/u; echo u >> out/u"),
        ],
    );
    let run = space.build().exits(0);
    assert_eq!(run.nodes("released"), ["pick"]);
    // The training is in the cache still, and the build comes to rest.
    space.remove("artifacts").build_with(&["--locked"]).linked(["train", "use"]);
    space.build().ran([]);
    let run = space.build();
    assert_eq!((run.nodes("released").len(), run.nodes("linked").len()), (0, 0), "{}", run.transcript());
}

#[test]
fn a_temporary_node_stays_while_one_that_is_made_again_reads_it() {
    let space = Space::empty();
    let nodes = |version: &'static str| {
        [
            ("t1", "temporary: true,", format!("echo one > out/f; : {version}")),
            (
                "t2",
                "temporary: true, inputs: {a: t1},",
                "sleep 0.3; cat inputs/a/f > out/g; echo two >> out/g".to_owned(),
            ),
            ("c", "inputs: {a: t2},", format!("cat inputs/a/g > out/h; echo c >> out/h; : {version}")),
        ]
    };
    for version in ["1", "2", "3"] {
        let nodes = nodes(version);
        let nodes: Vec<_> =
            nodes.iter().map(|(name, fields, script)| (*name, *fields, script.as_str())).collect();
        scripts(&space, &nodes);
        let run = space.build_with(&["-j1"]).exits(0);
        assert_eq!(run.nodes("released"), ["t1", "t2"], "{}", run.transcript());
        assert_eq!(run.nodes("built"), ["c", "t1", "t2"], "{}", run.transcript());
        space.build().ran([]);
    }
    assert_eq!(space.names("cache/objects").len(), 1, "only what `c` made is left");
}

#[test]
fn the_example_takes_less_with_a_temporary_model() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny");
    let (model, lora) = (tiny.join("base-4bit"), tiny.join("adapter"));
    let measured = ["", ", temporary: true"].map(|temporary| {
        let space = Space::empty();
        space.write(
            "pipeline.yaml",
            format!(
                "version: 1\nnodes:\n  base: {{stage: base, source: {model:?}}}\n  adapter: {{stage: adapter, source: {lora:?}}}\n  \
                 fused-f16: {{stage: fuse, model: base, adapter: adapter, dtype: float16{temporary}}}\n  \
                 \"{{bits}}bit\": {{stage: quantize, model: fused-f16, matrix: {{bits: [8, 6, 4]}}}}\n"
            ),
        );
        measured(&space)
    });
    let [(peak, kept), (least, left)] = measured;
    println!(
        "the example: peak {peak}, with a temporary fused-f16 {least}; at the end {kept} and {left} bytes"
    );
    // All three read it, so it is there until the end, and gone then: two thirds of what the others take.
    assert!(least <= peak + 100_000 && kept - left > 6_500_000, "{least} of {peak}, {left} of {kept}");
}
