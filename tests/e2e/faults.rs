//! Faults that the user does not cause: damaged files, full disks, signals, another build at the same time.
//! After each of them, the next build succeeds.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::pico::{PICO, SLOW};
use crate::space::{ALL, Space, sorted};

/// Starts a build whose output is read through a pipe.
fn start(space: &Space) -> Child {
    let mut command = space.command();
    command.args(["build", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Sends a signal, as a shell does.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Checks that every stored object has the content that its name says, and that nothing unfinished is left.
fn is_sound(space: &Space) {
    let run = space.run(&["verify", "--store"]).exits(0);
    assert!(run.stdout.ends_with(" 0 damaged\n"), "{}", run.transcript());
    space.is_tidy();
}

#[test]
fn an_altered_object_is_found_and_built_again() {
    let space = Space::built();
    let object = space.object("artifacts/fused/model.safetensors");
    let (before, artifacts) = (space.bytes(&object), space.files("artifacts"));
    space.scribble(&object);
    let run = space.run(&["verify", "--store"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stdout:
    cache/objects/[DIGEST]/[DIGEST]: its content is now [DIGEST]
    14 objects, 1 damaged; `pipeline build` puts them right, and so does --repair
    ");
    // A build also notices by itself. The artifact may be a clone that is still intact; without it, the object
    // is needed.
    let space = Space::built();
    space.scribble(&object);
    let run = space.remove("artifacts").run(&["build", "-j1"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    ran 1 node, 4 from the cache
    stderr:
    base: linked from the cache
    adapter: linked from the cache
    fused: warning: cache/objects/[DIGEST]/[DIGEST] was altered: its content is now [DIGEST]; it is built again
    fused: running (its artifact is damaged)
    fused: built in [TIME] s, 89.2 kB, [DIGEST]
    q8: linked from the cache
    q4: linked from the cache
    ");
    assert_eq!((space.bytes(&object), space.files("artifacts")), (before, artifacts));
    is_sound(&space);
    space.build().ran([]);
}

#[test]
fn a_lost_object_is_built_again() {
    let space = Space::built();
    let object = space.object("artifacts/q8/model.safetensors");
    space.remove(&object).remove("artifacts/q8").build().ran(["q8"]);
    is_sound(&space);
}

#[test]
fn a_record_that_is_garbage_is_built_again() {
    let space = Space::built();
    for record in space.files("cache/actions").keys() {
        space.write(record, "{\"artifact\": [");
    }
    space.remove("cache/memo").build().ran(ALL);
    is_sound(&space);
}

/// Builds under a limit that the first large file exceeds: a full disk if one may be mounted, else the
/// shell's limit on the size of a file.
fn build_without_room(space: &Space) -> Output {
    let pipeline = env!("CARGO_BIN_EXE_pipeline");
    let full = "mount -t tmpfs -o size=200k none cache && \"$0\" build --anyway -j1; code=$?; ls cache/tmp; exit $code";
    let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" build -j1";
    let may_mount =
        space.command_of("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "cache"]).output();
    let mut command = match may_mount {
        Ok(output) if output.status.success() => {
            let mut command = space.command_of("unshare");
            command.args(["-rm", "sh", "-c", full]);
            command
        }
        _ => {
            let mut command = space.command_of("sh");
            command.args(["-c", limited]);
            command
        }
    };
    command.arg(pipeline).output().unwrap()
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    let space = Space::of(crate::pico::Size { hidden: 256, ..PICO });
    std::fs::create_dir(space.path("cache")).unwrap();
    let output = build_without_room(&space);
    let run = space.finish(output).exits(1);
    let said = &run.stderr;
    assert!(said.contains("fused: failed: "), "{}", run.transcript());
    assert!(said.contains("model.safetensors"), "which file? {said}");
    assert!(said.contains("hint: free some space and build again"), "what to do? {said}");
    assert!(!run.stdout.contains("run-"), "left in cache/tmp: {}", run.stdout);
    assert_eq!(space.names("artifacts"), ["adapter", "base"]);
    drop(space.is_tidy().build().exits(0));
    is_sound(&space);
    space.build().ran([]);
}

#[test]
fn two_builds_at_once_do_the_work_once() {
    // The two builds meet at another moment every time.
    for _ in 0..5 {
        let space = Space::of(crate::pico::Size { hidden: 256, ..PICO });
        let builds = [start(&space), start(&space)];
        let [one, two] = builds.map(|child| space.finish(child.wait_with_output().unwrap()).exits(0));
        let built = one.nodes("built").into_iter().chain(two.nodes("built")).collect::<Vec<_>>();
        assert_eq!(
            sorted(built.iter().map(String::as_str)),
            sorted(ALL),
            "{}{}",
            one.transcript(),
            two.transcript()
        );
        is_sound(&space);
        space.build().ran([]);
    }
}

#[test]
fn an_interrupted_build_says_so_and_is_completed_by_the_next() {
    let space = Space::of(SLOW);
    let mut child = start(&space);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines
        .by_ref()
        .find(|line| line.contains(r#""event":"progress""#))
        .expect("the build ended without progress");
    signal(&child, "INT");
    let last: Value = serde_json::from_str(&lines.last().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!((&last["event"], &last["interrupted"]), (&"finished".into(), &true.into()));
    is_sound(&space);
    assert!(!space.path("artifacts/fused").exists());
    let run = space.build().exits(0);
    assert_eq!(run.nodes("built"), sorted(["fused", "q8", "q4"]));
    space.build().ran([]);
}

#[test]
fn an_interrupted_build_says_so_in_words() {
    let space = Space::of(SLOW);
    let mut child =
        space.command().arg("build").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.by_ref().find(|line| line.starts_with("fused: running")).expect("`fused` never started");
    signal(&child, "TERM");
    lines.for_each(drop);
    let output = space.finish(child.wait_with_output().unwrap()).exits(130);
    assert_eq!(output.stdout, "ran 2 nodes, interrupted; nothing half-made was kept\n");
}

#[test]
fn a_build_killed_at_any_moment_is_completed_by_the_next() {
    let space = Space::of(crate::pico::Size { hidden: 256, layers: 2 });
    let begin = Instant::now();
    space.build().ran(ALL);
    let whole = begin.elapsed();
    let expected = (space.files("artifacts"), space.read("pipeline.lock"));
    let mut killed = 0;
    for moment in 0..20 {
        space.remove("cache").remove("artifacts").remove("pipeline.lock");
        let mut child = start(&space);
        thread::sleep(whole * moment / 20);
        child.kill().unwrap();
        let mut rest = String::new();
        child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        drop(space.build().exits(0));
        assert_eq!(
            (space.files("artifacts"), space.read("pipeline.lock")),
            expected,
            "killed at {moment}/20, after {rest}"
        );
        is_sound(&space);
    }
    assert!(killed >= 10, "only {killed} of 20 builds were killed before they ended");
}

#[test]
fn what_a_killed_build_left_is_swept_even_if_there_is_nothing_to_do() {
    let space = Space::built();
    // A build leaves this if it is killed between its last node and its end.
    space
        .write("cache/tmp/run-deadab/q8-0123456789ab/config.json", "{}")
        .write("cache/tmp/run-deadab.lock", "");
    space.build().ran([]);
}
