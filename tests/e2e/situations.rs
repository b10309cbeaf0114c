//! Ordinary situations of ordinary people: a disk that is not mounted, a file that is not what it seems, a path
//! with `~`, few open files, a name that another disk takes for another name.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::space::{ALL, Space, sorted};

/// A project with a second base and what is made of it; everything is built, then the second base is gone.
fn with_an_unplugged_disk() -> Space {
    let space = Space::pico();
    fs::create_dir(space.path("disk")).unwrap();
    let copied = Command::new("cp").args(["-r", "model", "disk/other"]).current_dir(space.path("")).status();
    assert!(copied.unwrap().success());
    let text = space.read("pipeline.yaml");
    space.write(
        "pipeline.yaml",
        text + "  other: {stage: base, source: disk/other}\n  other8: {stage: quantize, model: other, bits: 8}\n",
    );
    drop(space.build().exits(0));
    fs::rename(space.path("disk"), space.path("unplugged")).unwrap();
    space
}

#[test]
fn a_verb_needs_only_what_it_needs() {
    let space = with_an_unplugged_disk();
    for verb in [
        &["build", "q8"][..],
        &["build", "-n", "q8"],
        &["why", "q8"],
        &["why", "other8"],
        &["status"],
        &["graph"],
        &["inspect", "q8"],
        &["gc", "-n"],
        &["cache", "stats"],
        &["diff"],
        &["verify", "q8"],
        &["verify", "--store"],
        &["verify", "--attestation", "q8"],
    ] {
        let run = space.run(verb);
        assert!(matches!(run.code(), Some(0 | 1)), "{verb:?}: {}", run.transcript());
        assert!(!run.stderr.contains("error"), "{verb:?}: {}", run.transcript());
    }
    assert!(space.run(&["status"]).exits(0).stdout.contains("the source disk/other is not there"));
    // What was made of it is still good. What must be made of it needs it.
    space.build_with(&["other8"]).ran([]);
    space.edit("model: other, bits: 8", "model: other, bits: 4");
    let run = space.run(&["build", "other8"]).exits(2);
    assert!(
        run.stderr.contains("the source `disk/other` of node `other` does not exist"),
        "{}",
        run.transcript()
    );
    let run = space.run(&["build", "other"]).exits(2);
    assert!(run.stderr.contains("pipeline.yaml:8:"), "{}", run.transcript());
    fs::rename(space.path("unplugged"), space.path("disk")).unwrap();
    space.build().ran(["other8"]);
}

#[test]
fn a_source_must_not_meet_what_is_written() {
    let space = Space::pico();
    let before = space.files("");
    for source in [".", "..", "cache", "artifacts/q8", "cache/objects", "link"] {
        let _ = fs::remove_file(space.path("link"));
        symlink(".", space.path("link")).unwrap();
        let text = space.read("pipeline.yaml");
        space.edit("source: model", &format!("source: {source}"));
        let run = space.run(&["build"]).exits(2);
        assert!(run.stderr.starts_with("error: pipeline.yaml:3:31: "), "{source}: {}", run.transcript());
        assert!(run.stderr.contains("where results are written"), "{source}: {}", run.transcript());
        space.write("pipeline.yaml", text);
        assert_eq!(space.files(""), before, "{source}: something was written");
    }
}

#[test]
fn a_path_means_what_a_person_expects() {
    let mut space = Space::pico();
    fs::create_dir(space.path("home")).unwrap();
    fs::rename(space.path("model"), space.path("home/base")).unwrap();
    let home = space.path("home");
    space.set_variable("HOME", home.to_str().unwrap());
    space.set_variable("LORAS", space.path("lora").to_str().unwrap());
    space.edit("version: 1\n", "version: 1\ncache: {dir: \"~/kept\"}\n");
    space.edit("source: model", "source: \"~/base\"").edit("source: lora", "source: \"${LORAS}\"");
    drop(space.run(&["build", "--json"]).exits(0));
    assert_eq!(space.names(""), sorted(["artifacts", "home", "lora", "pipeline.lock", "pipeline.yaml"]));
    assert!(space.names("home/kept").contains(&"objects".to_owned()));
    space.edit("${LORAS}", "$NOWHERE/lora");
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("`NOWHERE`, which is not set"), "{}", run.transcript());
    assert!(run.stderr.contains("pipeline.yaml:5:"), "{}", run.transcript());
}

#[test]
fn each_pipeline_file_has_its_own_lock() {
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    space.write(
        "small.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  small: {stage: quantize, model: base, bits: 3}\n",
    );
    drop(space.run(&["-f", "small.yaml", "build"]).exits(0));
    assert_eq!(space.read("pipeline.lock"), lock);
    assert_eq!(space.read("small.lock").matches("\n\"").count(), 2);
    drop(space.run(&["build", "--locked"]).exits(0));
    space.write("small.yaml", space.read("small.yaml").replace("bits: 3", "bits: 2"));
    let run = space.run(&["-f", "small.yaml", "build", "--locked"]).exits(1);
    assert!(run.stderr.contains("so small.lock is older"), "{}", run.transcript());
}

#[test]
fn a_lock_that_cannot_be_read_ends_the_command() {
    let space = Space::built();
    let lock = [b"# caf\xe9\n".as_slice(), &space.bytes("pipeline.lock")].concat();
    space.write("pipeline.lock", &lock);
    for verb in [&["build"][..], &["build", "--locked"], &["status"], &["gc"], &["diff"]] {
        let run = space.run(verb).exits(1);
        assert!(run.stderr.contains("line 1 is not UTF-8"), "{verb:?}: {}", run.transcript());
        assert_eq!(space.bytes("pipeline.lock"), lock, "{verb:?}");
    }
    space.remove("pipeline.lock");
    fs::create_dir(space.path("pipeline.lock")).unwrap();
    drop(space.run(&["build"]).exits(1));
    fs::remove_dir(space.path("pipeline.lock")).unwrap();
    symlink("/dev/zero", space.path("pipeline.lock")).unwrap();
    drop(space.run(&["status"]).exits(1));
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    symlink("nowhere", space.path("pipeline.lock")).unwrap();
    drop(space.run(&["status"]).exits(1));
}

#[test]
fn links_do_not_lead_out_of_a_source() {
    for (target, problem) in [
        ("/proc/self/environ", "is a link out of the source"),
        ("../pipeline.yaml", "is a link out of the source"),
        ("/dev/zero", "is a link out of the source"),
        ("..", "is a link out of the source"),
        (".", "is a link to a folder above it"),
    ] {
        let mut space = Space::pico();
        space.set_variable("PIPELINE_SIGNING_KEY", "");
        symlink(target, space.path("model/vocab.txt")).unwrap();
        let run = space.run(&["build"]).exits(1);
        assert_eq!(run.stderr.matches("model/vocab.txt").count(), 1, "{}", run.transcript());
        assert!(run.stderr.contains(problem), "{target}: {}", run.transcript());
        assert_eq!(space.names("cache/objects"), [""; 0], "something was stored");
    }
    let space = Space::pico();
    assert!(Command::new("mkfifo").arg(space.path("model/pipe")).status().unwrap().success());
    let run = space.run(&["status"]).exits(1);
    assert!(run.stderr.contains("model/pipe is not a regular file"), "{}", run.transcript());
}

#[test]
fn a_file_that_is_not_weights_says_so_before_anything_runs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n";
    for (name, bytes, what) in [
        ("model/model.safetensors", pointer, "git lfs pull"),
        ("model/tokenizer.json", pointer, "git lfs pull"),
        ("lora/adapters.safetensors", pointer, "git lfs pull"),
        ("model/model.safetensors", "<!doctype html><html>", "web page"),
        ("model/model.safetensors", "", "is empty"),
        ("model/model.safetensors", "\u{1f}\u{8b}", "damaged"),
        ("model/model.safetensors", "GGUF\u{3}\0\0\0", "a GGUF file"),
        ("model/model.safetensors", "PK\u{3}\u{4}", "a pickle"),
    ] {
        let space = Space::pico();
        space.write(name, bytes);
        let run = space.run(&["build", "-j1"]);
        assert_ne!(run.code(), Some(0), "{name}");
        assert!(
            run.stderr.contains(what) && run.stderr.contains(name),
            "{name} {what}: {}",
            run.transcript()
        );
        assert!(!run.stderr.contains("fused: running"), "{}", run.transcript());
    }
    let space = Space::pico();
    space.edit("source: model", "source: lora2").edit("source: lora}", "source: model}");
    fs::rename(space.path("lora"), space.path("lora2")).unwrap();
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("lora2 is a LoRA adapter, not a model"), "{}", run.transcript());
}

#[test]
fn names_that_are_one_on_another_disk_are_refused() {
    let space = Space::pico();
    space.edit("  q8:", "  Q4:");
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("`q4` and `Q4` are alike"), "{}", run.transcript());
    let space = Space::pico();
    space.write("model/readme.md", "mine").write("model/Merges.txt", "").write("model/merges.txt", "");
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("`Merges.txt` and `merges.txt` are one file"), "{}", run.transcript());
    space.remove("model/Merges.txt").build().ran(ALL);
    assert_eq!(space.read("artifacts/q8/README.md").matches("mine").count(), 1);
    assert!(!space.names("artifacts/q8").contains(&"readme.md".to_owned()));
}

#[test]
fn a_file_of_the_future_is_hashed_once() {
    let space = Space::pico();
    space.set_modified("model/model.safetensors", SystemTime::now() + Duration::from_secs(3600));
    drop(space.build().exits(0));
    let traced = Command::new("strace").arg("-V").output();
    if traced.is_err() {
        println!("skipped: there is no strace to count how often the file is opened");
        return;
    }
    let mut command = space.command_of("strace");
    command.args(["-f", "-e", "trace=openat", "-o", "trace", env!("CARGO_BIN_EXE_pipeline"), "status"]);
    assert!(command.output().unwrap().status.success());
    let trace = space.read("trace");
    let opened = trace.lines().filter(|line| line.contains("model/model.safetensors")).count();
    assert!(opened <= 1, "opened {opened} times");
}

#[test]
fn every_name_leads_somewhere_if_the_artifacts_are_on_another_disk() {
    let space = Space::pico();
    let elsewhere = Space::empty();
    fs::create_dir_all(elsewhere.path("mnt/big")).unwrap();
    symlink(elsewhere.path("mnt/big"), space.path("artifacts")).unwrap();
    space.build().ran(ALL);
    for name in ALL {
        assert!(space.path("artifacts").join(name).exists(), "{name}");
    }
    space.build().ran([]);
}

#[test]
fn the_exit_code_does_not_depend_on_who_reads() {
    let space = Space::pico();
    space.write("lora/adapters.safetensors", b"damaged");
    for (verb, code) in [
        (&["build"][..], 1),
        (&["build", "--json"], 1),
        (&["status", "--exit-code"], 3),
        (&["status", "--exit-code", "--json"], 3),
        (&["build", "-n", "--exit-code"], 3),
        (&["verify"], 1),
        (&["graph"], 0),
        (&["completions", "bash"], 0),
        (&["schema"], 0),
    ] {
        let mut child =
            space.command().args(verb).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{verb:?}");
    }
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let mut command = space.command();
        let output = command.args(["graph"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write to standard output"), "{said}");
    }
}

#[test]
fn no_control_character_reaches_a_terminal() {
    let space = Space::pico();
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}.txt";
    space.write(&format!("model/{evil}"), "x");
    let is_harmless = |text: &str| !text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    drop(space.build().exits(0));
    space.write(&format!("model/{evil}"), "y");
    for verb in [&["why", "base"][..], &["build"], &["status", "--json"], &["verify", "--json"]] {
        let run = space.run(verb);
        assert!(is_harmless(&run.stdout) && is_harmless(&run.stderr), "{verb:?}: {}", run.transcript());
    }
    assert!(space.run(&["build"]).exits(0).stdout.contains("nothing to do"));
    symlink("/etc", space.path(&format!("model/link{evil}"))).unwrap();
    let run = space.run(&["status"]).exits(1);
    assert!(is_harmless(&run.stderr) && run.stderr.contains("\\u{1b}"), "{}", run.transcript());
}

#[test]
fn nothing_is_quoted_from_files_outside_the_project() {
    let outside = Space::empty();
    outside.write("secret", "key: hush\nother hush: [\n");
    let benchmark = "  b: {stage: benchmark, suite: SUITE, configs: {q8: q8}}\n";
    let space = Space::pico();
    let text = space.read("pipeline.yaml");
    symlink(outside.path("secret"), space.path("link.yaml")).unwrap();
    for suite in ["link.yaml", outside.path("secret").to_str().unwrap()] {
        space.write("pipeline.yaml", format!("{text}{}", benchmark.replace("SUITE", suite)));
        let run = space.run(&["build"]).exits(2);
        assert!(!run.stderr.contains("hush"), "{}", run.transcript());
    }
    space.write("pipeline.yaml", format!("{text}{}", benchmark.replace("SUITE", "/proc/self/environ")));
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("part of the system"), "{}", run.transcript());
    space.remove("pipeline.yaml");
    symlink(outside.path("secret"), space.path("pipeline.yaml")).unwrap();
    let run = space.run(&["build"]).exits(2);
    assert!(!run.stderr.contains("hush") && run.stderr.contains("pipeline.yaml:"), "{}", run.transcript());
}

#[test]
fn many_shards_are_read_with_few_open_files() {
    let space = Space::pico();
    let text = r#"
import json, struct, sys
from pathlib import Path
folder = Path("model"); (folder / "model.safetensors").unlink(); names = {}
for i in range(130):
    file = f"model-{i+1:05}-of-00130.safetensors"; name = f"model.layers.{i}.mlp.up_proj.weight"
    header = json.dumps({name: {"dtype": "F16", "shape": [64, 64], "data_offsets": [0, 8192]}}).encode()
    header += b" " * (-len(header) % 8)
    (folder / file).write_bytes(struct.pack("<Q", len(header)) + header + b"\x00\x3c" * 4096); names[name] = file
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
"#;
    let made = Command::new("python3").args(["-c", text]).current_dir(space.path("")).status().unwrap();
    assert!(made.success());
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  q2: {stage: quantize, model: base, bits: 2}\n  \
         q3: {stage: quantize, model: base, bits: 3}\n  q6: {stage: quantize, model: base, bits: 6}\n",
    );
    let mut command = space.command_of("sh");
    command.args(["-c", "ulimit -n 128; exec \"$0\" build -j 4", env!("CARGO_BIN_EXE_pipeline")]);
    drop(space.finish(command.output().unwrap()).exits(0));
}

/// Gives `artifacts/` its own copy of a file, as a file system with clones does.
fn unshare(space: &Space, path: &str) {
    let bytes = space.bytes(path);
    let path = space.path(path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
}

#[test]
fn a_damaged_content_is_put_right() {
    for (args, copied) in
        [(&["build"][..], true), (&["build"], false), (&["verify", "--store", "--repair"], true)]
    {
        let space = Space::built();
        let object = space.object("artifacts/q8/model.safetensors");
        let right = space.bytes(&object);
        if copied {
            unshare(&space, "artifacts/q8/model.safetensors");
            drop(space.run(&["build"]).exits(0));
        }
        let modified = fs::metadata(space.path(&object)).unwrap().modified().unwrap();
        space.scribble(&object).set_modified(&object, modified);
        let run = space.run(&["verify", "--store"]).exits(1);
        assert!(run.stdout.contains("1 damaged; `pipeline build` puts them right"), "{}", run.transcript());
        let run = space.run(args).exits(0);
        let said = run.stdout.clone() + &run.stderr;
        assert!(said.contains("put right from") || (!copied && said.contains("made again")), "{said}");
        assert_eq!(space.bytes(&object), right);
        assert!(space.run(&["verify", "--store"]).exits(0).stdout.ends_with(" 0 damaged\n"));
        space.is_tidy().build().ran([]);
    }
}

#[test]
fn a_lock_that_cannot_be_written_on_a_full_disk() {
    let space = Space::pico();
    fs::create_dir(space.path("project")).unwrap();
    let text = space.read("pipeline.yaml").replace("source: ", "source: ../");
    space.write("full.yaml", text.replace("version: 1\n", "version: 1\ncache: {dir: ../cache}\n"));
    // The project is on a small disk that is full. The cache and the artifacts are elsewhere.
    let script = "mount -t tmpfs -o size=64k none project && cd project && cp ../full.yaml pipeline.yaml \
        && ln -s ../artifacts artifacts && mkdir -p ../artifacts && touch pipeline.lock; cat /dev/zero > fill; \
        \"$0\" build; echo exit $?; ls -s; rm fill; \"$0\" build; echo exit $?; wc -l pipeline.lock";
    let mut command = space.command_of("unshare");
    let output = command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_pipeline")]).output().unwrap();
    let run = space.finish(output);
    if run.stderr.contains("unshare") || run.stderr.contains("mount:") {
        println!("skipped: no disk may be mounted here");
        return;
    }
    assert!(run.stdout.contains("exit 1\n") && run.stdout.contains("exit 0\n"), "{}", run.transcript());
    assert!(run.stderr.contains("pipeline.lock could not be written"), "{}", run.transcript());
    assert!(run.stderr.contains("hint: free some space"), "{}", run.transcript());
    assert!(
        !run.stdout.contains("partial") && run.stdout.contains("6 pipeline.lock"),
        "{}",
        run.transcript()
    );
}

#[test]
fn the_small_things() {
    let space = Space::built();
    let run = space.run(&["gc", "--max-size", "0"]).exits(0);
    assert!(run.stdout.contains("more than --max-size"), "{}", run.transcript());
    space.write(
        "pipeline.yaml",
        format!("version: 1\nnodes:\n  {}: {{stage: base, source: model}}\n", "n".repeat(245)),
    );
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("at most 200 bytes"), "{}", run.transcript());
    space.write(
        "pipeline.yaml",
        format!("version: 1\nnodes: {{m: {{stage: base, source: model, x{}: 1}}}}\n", "x".repeat(9999)),
    );
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.lines().all(|line| line.chars().count() < 700), "{}", run.transcript());
    let name = "n".repeat(200);
    space.write("pipeline.yaml", format!("version: 1\nnodes:\n  {name}: {{stage: base, source: model}}\n  q: {{stage: quantize, model: {name}, bits: 8}}\n"));
    drop(space.run(&["build"]).exits(0));
}

#[test]
fn a_record_that_cannot_be_used_is_a_miss() {
    let (team, first) = crate::remote::Team::with_first(crate::bucket::Bucket::folder());
    for names in [&["n".repeat(300)][..], &["Config.json".to_owned()]] {
        crate::checkout::restate(&team, |statement| {
            for name in names {
                let mut file = statement["subject"][0].clone();
                file["name"] = serde_json::json!(name);
                statement["subject"].as_array_mut().unwrap().push(file);
            }
        });
        let second = team.second(&first);
        let run = second.build_with(&["--read-only", "q4"]).exits(0);
        assert_eq!(run.nodes("fetched"), [""; 0], "{}", run.transcript());
        assert!(run.stdout.contains("is not used"), "{}", run.transcript());
    }
}

#[test]
fn what_is_only_fetched_needs_no_source() {
    let (team, first) = crate::remote::Team::with_first(crate::bucket::Bucket::folder());
    let second = team.second(&first);
    second.remove("model").remove("lora");
    for verb in [&["status"][..], &["why", "q4"], &["pull", "q8"], &["build", "-n", "q4"]] {
        drop(second.run(verb).exits(0));
    }
    let run = second.build_with(&["q4"]).exits(0);
    assert_eq!(
        (run.nodes("built"), run.nodes("fetched")),
        (vec![], vec!["q4".to_owned()]),
        "{}",
        run.transcript()
    );
    assert!(run.stdout.contains("its source `model` is not there"), "{}", run.transcript());
    assert_eq!(second.read("pipeline.lock"), first.read("pipeline.lock"));
    // Without the lock, nothing is known of the source.
    second.remove("pipeline.lock");
    assert!(
        second
            .run(&["build", "q4"])
            .exits(2)
            .stderr
            .contains("the source `model` of node `base` does not exist")
    );
    drop(second.run(&["status"]).exits(0));
}

#[test]
fn damage_is_not_sent() {
    let (team, first) = crate::remote::Team::with_first(crate::bucket::Bucket::folder());
    let object = first.object("artifacts/q4/model.safetensors");
    // As on a file system with clones, the artifact is intact, so nothing else looks at the stored content.
    unshare(&first, "artifacts/q4/model.safetensors");
    drop(first.run(&["build"]).exits(0));
    first.scribble(&object);
    // The list of chunks is made anew, from the damaged file, so each chunk fits its digest.
    first.remove("cache/chunks");
    let bucket = crate::bucket::Bucket::like(&team.bucket);
    let run = first.run(&["push", "q4", "--remote", &bucket.url()]).exits(1);
    assert!(run.stderr.contains("was altered since it was stored"), "{}", run.transcript());
    assert!(run.stderr.contains("`pipeline verify --store --repair`"), "{}", run.transcript());
    let damaged = first.bytes(&object);
    let sent = bucket.names_in("chunks/").iter().any(|name| damaged.starts_with(&bucket.read(name)[..]));
    assert!(!sent && bucket.names_in("actions/").len() == 3, "{:?}", bucket.names());
}

#[test]
fn the_end_of_a_worker_is_told_for_what_it_was() {
    let mut space = Space::pico();
    space.write("suite.yaml", "name: s\nqueries: [{prompt: p, contains: x}]\n");
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", text + "  b: {stage: benchmark, suite: suite.yaml, configs: {q8: q8}}\n");
    for (script, told) in [
        (
            "echo 'libmlx.so: cannot open shared object file' >&2; exit 127",
            "a library that it needs could not be loaded: libmlx.so",
        ),
        ("kill -9 $$", "as the system does when the memory runs out"),
        ("exit 137", "as the system does when the memory runs out"),
        ("printf '\\033[2Jgone' >&2; exit 1", "it gave no reason: \\u{1b}[2Jgone"),
        ("echo '{\"evaluated\": null}'; sleep 9", "is pipeline-cpu of the same version?"),
        ("env >&2; env | grep -q hush && exit 7; exit 8", "exit status: 8"),
    ] {
        space.write("worker", format!("#!/bin/sh\nread line\n{script}\n"));
        let worker = space.path("worker");
        fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        space.set_variable("PIPELINE_WORKER", worker.to_str().unwrap());
        space.set_variable("HF_TOKEN", "hush");
        space.set_variable("AWS_SECRET_ACCESS_KEY", "hush");
        let run = space.run(&["build", "b"]).exits(1);
        assert!(run.stderr.contains(told), "{script}: {}", run.transcript());
    }
}
