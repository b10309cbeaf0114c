//! `pipeline cache stats`, and the space that the cache takes on the disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::pico::SLOW;
use crate::space::{Space, same_file};

fn stats(space: &Space) -> Value {
    space.run(&["cache", "stats", "--json"]).exits(0).json().remove(0)
}

#[test]
fn builds_are_counted_unless_there_was_nothing_to_do() {
    let space = Space::built();
    space.build().ran([]);
    space.edit("bits: 4", "bits: 6").build().ran(["q4"]);
    space.edit("bits: 6", "bits: 4").build().linked(["q4"]);
    let run = space.run(&["cache", "stats"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    18 objects, 215.0 kB, named by 6 records
    480 B saved: what it would take in addition if each record had its files for itself
    builds: 1 from this cache, 0 from the remote, 6 run
    ");
    let line = stats(&space);
    let sizes: usize = space.files("cache/objects").values().map(Vec::len).sum();
    assert_eq!((&line["bytes"], &line["records"]), (&json!(sizes), &json!(6)));
    let builds = &line["builds"];
    assert_eq!(
        (&builds["local_hits"], &builds["misses"], &builds["remote_hits"]),
        (&json!(1), &json!(6), &json!(0))
    );
    space.write("cache/stats", "garbage");
    assert_eq!(stats(&space)["builds"]["misses"], 0);
}

#[test]
fn what_is_saved_is_what_other_records_have_already() {
    let space = Space::built();
    let before = stats(&space);
    let q8: usize = space
        .files("artifacts")
        .iter()
        .filter(|(path, _)| path.contains("/q8-"))
        .map(|(_, bytes)| bytes.len())
        .sum();
    // The same result under another key. The key depends on the origin of the weights; the stored content
    // does not.
    let (record, content) = record_of(&space, 8);
    let other = record.replace(&record["cache/actions/".len()..][..8], "01234567");
    space.write(&other, content);
    let after = stats(&space);
    let saved = |line: &Value| line["saved_bytes"].as_u64().unwrap();
    assert_eq!(saved(&after) - saved(&before), q8 as u64);
    assert_eq!((&after["bytes"], &after["records"]), (&before["bytes"], &json!(6)));
}

fn record_of(space: &Space, bits: u64) -> (String, Vec<u8>) {
    let is_it = |content: &[u8]| {
        let action: Value = serde_json::from_slice(content).unwrap();
        action["recipe"]["stage"]["parameters"]["bits"] == bits
    };
    space.files("cache/actions").into_iter().find(|(_, content)| is_it(content)).unwrap()
}

#[test]
fn what_is_built_lies_on_the_disk_once() {
    let space = Space::of(SLOW);
    drop(space.build().exits(0));
    let weights = "artifacts/fused/model.safetensors";
    if !same_file(&space.path(weights), &space.path(&space.object(weights))) {
        // The file system made a clone. It shares its blocks, but each file is reported to have them.
        return;
    }
    let (mut seen, mut taken, mut block) = (HashSet::new(), 0, 0);
    let mut stack: Vec<PathBuf> = ["cache", "artifacts"].map(|folder| space.path(folder)).into();
    while let Some(path) = stack.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if seen.insert(metadata.ino()) {
            taken += metadata.blocks() * 512;
            block = block.max(metadata.blksize());
        }
    }
    let outputs: usize = space.files("artifacts").values().map(Vec::len).sum();
    // Each inode may have a block that is not full: the last of a file, a folder, a record, `cache/memo`. The
    // file system may need another block for its own list of blocks.
    let rounding = 2 * block * seen.len() as u64;
    assert!(outputs > 15_000_000, "{outputs}");
    assert!(rounding < outputs as u64 / 20, "{rounding} is no small constant");
    assert!(
        taken <= outputs as u64 + rounding,
        "{taken} on the disk for {outputs} of outputs, {} inodes",
        seen.len()
    );
}
