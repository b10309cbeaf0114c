//! `pipeline gc`: what it removes, what it keeps, and that no build notices.

use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::space::{Run, Space};

/// Returns the one line that the collector prints for programs.
fn collect(space: &Space, args: &[&str]) -> Value {
    let run: Run<'_> = space.run(&[&["gc", "--json"], args].concat()).exits(0);
    run.json().remove(0)
}

fn removed(line: &Value) -> usize {
    line["records"].as_array().unwrap().len()
}

/// Returns the record of the quantization to this many bits.
fn record(space: &Space, bits: u64) -> Option<String> {
    let is_it = |content: &[u8]| {
        let action: Value = serde_json::from_slice(content).unwrap();
        action["recipe"]["stage"]["parameters"]["bits"] == bits
    };
    space.files("cache/actions").into_iter().find(|(_, content)| is_it(content)).map(|(path, _)| path)
}

/// A project whose `q4` was built with 4, 5 and 6 bits, some days apart. The one with 6 bits is current.
fn with_history() -> Space {
    let space = Space::built();
    space.edit("bits: 4", "bits: 5").build().ran(["q4"]);
    space.edit("bits: 5", "bits: 6").build().ran(["q4"]);
    for (bits, days) in [(4, 20), (5, 10)] {
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 60);
        space.set_modified(&record(&space, bits).unwrap(), time);
    }
    space
}

#[test]
fn what_a_record_names_stays_without_a_limit() {
    let space = with_history();
    let before = (space.files("cache/objects"), space.files("cache/actions"), space.files("artifacts"));
    let run = space.run(&["gc"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    removed 0 records, 0 folders and 0 objects, 0 B
    left: 7 records, 22 objects, 251.6 kB
    not current: 2 records, 67.8 kB; --older-than and --max-size remove such
    ");
    let after = (space.files("cache/objects"), space.files("cache/actions"), space.files("artifacts"));
    assert_eq!(before, after);
    space.build().ran([]);
}

#[test]
fn what_is_current_stays_whatever_the_limits_are() {
    let space = with_history();
    for record in space.files("cache/actions").keys() {
        space.set_modified(record, SystemTime::now() - Duration::from_secs(100 * 24 * 3600));
    }
    let current = space.files("artifacts/q4");
    assert_eq!(removed(&collect(&space, &["--older-than", "1d", "--max-size", "0B"])), 2);
    assert_eq!(space.files("artifacts/q4"), current);
    let run = space.run(&["build"]).exits(0);
    assert_eq!(run.stdout, "nothing to do: 5 nodes up to date\n");
    // Neither the lock, nor `cache/memo`, nor `artifacts/` alone is needed.
    for gone in ["pipeline.lock", "cache/memo", "artifacts"] {
        let line = collect(space.remove(gone), &["--max-size", "0B"]);
        assert_eq!(removed(&line), 0, "without {gone}: {line}");
        space.build().exits(0).space().build().ran([]);
    }
    let _ = space.run(&["verify", "--store"]).exits(0);
}

#[test]
fn what_was_not_used_for_long_goes() {
    let space = with_history();
    let dry = space.run(&["gc", "--older-than", "15d", "--dry-run"]).exits(0);
    let run = space.run(&["gc", "--older-than", "15d"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    [DIGEST]  quantize, 31.3 kB, last used 20 d ago
    removed 1 record, 1 folder and 4 objects, 31.2 kB
    left: 6 records, 18 objects, 220.4 kB
    not current: 1 record, 36.6 kB; --older-than and --max-size remove such
    ");
    assert_eq!(dry.stdout.replace("would remove", "removed"), run.stdout);
    assert_eq!(record(&space, 4), None);
    assert!(record(&space, 5).is_some());
    space.build().ran([]);
    // First back to the record that is still there, then to the one that is not.
    space.edit("bits: 6", "bits: 5").build().linked(["q4"]);
    space.edit("bits: 5", "bits: 4").build().ran(["q4"]);
    let _ = space.run(&["verify"]).exits(0);
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let space = with_history();
    let all = collect(&space, &["--dry-run"])["left"]["bytes"].as_u64().unwrap();
    let limit = format!("{}B", all - 1);
    let before = space.files("cache/objects");
    let dry = collect(&space, &["--max-size", &limit, "--dry-run"]);
    assert_eq!(space.files("cache/objects"), before);
    let mut line = collect(&space, &["--max-size", &limit]);
    line["dry_run"] = true.into();
    assert_eq!((line, removed(&dry)), (dry, 1));
    assert_eq!((record(&space, 4), record(&space, 5).is_some()), (None, true));
    // A record that was linked again in between counts as used since.
    space.edit("bits: 6", "bits: 5").build().linked(["q4"]);
    space.edit("bits: 5", "bits: 6").build().linked(["q4"]);
    space.edit("bits: 6", "bits: 3").build().ran(["q4"]);
    space.set_modified(&record(&space, 6).unwrap(), SystemTime::now() - Duration::from_secs(3600));
    let all = collect(&space, &["--dry-run"])["left"]["bytes"].as_u64().unwrap();
    assert_eq!(removed(&collect(&space, &["--max-size", &format!("{}B", all - 1)])), 1);
    assert_eq!((record(&space, 6), record(&space, 5).is_some()), (None, true));
    space.build().ran([]);
}

#[test]
fn what_nobody_can_reach_goes_when_it_is_old() {
    let space = Space::built();
    let (content, partial) =
        (format!("cache/objects/ab/{}", "cd".repeat(31)), format!("cache/tmp/{}.partial", "ab".repeat(32)));
    let partial = partial.as_str();
    let (folder, own) = ("artifacts/q4-0123456789ab/config.json", "artifacts/own-0123456789ab/notes.txt");
    space.write(&content, "x").write(partial, "x").write(folder, "x").write(own, "x");
    let mut read_only = std::fs::metadata(space.path(folder)).unwrap().permissions();
    read_only.set_readonly(true);
    std::fs::set_permissions(space.path(folder), read_only).unwrap();
    collect(&space, &[]);
    assert!(space.path(&content).exists() && space.path(partial).exists(), "it may be on its way");
    assert!(!space.path(folder).exists() && space.path(own).exists());
    for path in [&content, partial] {
        space.set_modified(path, SystemTime::now() - Duration::from_secs(2 * 24 * 3600));
    }
    collect(&space, &[]);
    assert!(!space.path(&content).exists() && !space.path(partial).exists());
    space.build().ran([]);
}

#[test]
fn builds_and_collections_at_once_never_break() {
    let space = Space::built();
    thread::scope(|scope| {
        let builds = scope.spawn(|| {
            for round in 0..10 {
                // The file is replaced as an editor does it: the collector reads either the old file or the
                // new.
                let text = space.read("pipeline.yaml").replace("bits: 4", "bits: 5");
                let text = if round % 2 == 0 { text } else { text.replace("bits: 5", "bits: 4") };
                space.write("next.yaml", text);
                std::fs::rename(space.path("next.yaml"), space.path("pipeline.yaml")).unwrap();
                let _ = space.run(&["build"]).exits(0);
            }
        });
        while !builds.is_finished() {
            collect(&space, &["--max-size", "0B", "--older-than", "0s"]);
        }
        builds.join().unwrap();
    });
    let _ = space.run(&["verify"]).exits(0);
    let _ = space.run(&["verify", "--store"]).exits(0);
    space.is_tidy().build().ran([]);
}

#[test]
fn a_limit_that_is_none_is_refused() {
    let space = Space::pico();
    let run = space.run(&["gc", "--max-size", "lots"]).exits(2);
    assert!(run.stderr.contains("such as 200GB"), "{}", run.transcript());
}
