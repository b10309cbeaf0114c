//! Nodes that run a command of the user: what it sees, what is taken in, and how it may fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::faults::signal;
use crate::pico::{PICO, write_adapter, write_model};
use crate::remote::Team;
use crate::space::{Run, Space};

/// A project with one `files` node and one `run` node, with this shell script and these fields more.
fn project(script: &str, fields: &str) -> Space {
    let space = Space::empty();
    space.write("data/a.txt", "one\n").write("data/sub/b.txt", "two\n");
    let script = serde_json::to_string(script).unwrap();
    let node = format!("stage: run, inputs: {{data: data}}, command: [sh, -c, {script}], {fields}");
    space.write(
        "pipeline.yaml",
        format!("version: 1\nnodes:\n  data: {{stage: files, source: data}}\n  made: {{{node}}}\n"),
    );
    space
}

/// Builds a project of [`project`] that must fail, and returns what is said of the failure.
fn failure(script: &str, fields: &str) -> String {
    let space = project(script, fields);
    let run = space.run(&["build"]).exits(1);
    space.is_tidy();
    said(&run)
}

fn said(run: &Run<'_>) -> String {
    let place = run.stderr.find("made: failed: ").unwrap_or_else(|| panic!("{}", run.transcript()));
    run.stderr[place..].to_owned()
}

#[test]
fn a_command_gets_its_inputs_and_what_it_leaves_is_the_artifact() {
    let space =
        project("cat {data}/a.txt {data}/sub/b.txt > {out}/both; echo {{}} {out}; ls", "makes: files");
    let run = space.run(&["build", "-v"]).exits(0);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 0
    stdout:
    ran 2 nodes
    stderr:
    data: running (it was never built here)
    data: checked, 8 B where it lies, [DIGEST]
    made: running (it was never built here)
    made | {} out
    made | inputs
    made | out
    made | project
    made | tmp
    made: built in [TIME] s, 8 B, [DIGEST]
    ");
    assert_eq!(space.read("artifacts/made/both"), "one\ntwo\n");
    assert_eq!(space.names("cache/logs").len(), 1);
    space.build().ran([]);
    // What the command reads counts, and so does the command. Nothing else does.
    space.touch("data").build().ran([]);
    space.write("data/a.txt", "three\n").build().ran(["data", "made"]);
    space.edit("echo {{}}", "echo  {{}}").build().ran(["made"]);
    space.write("data/a.txt", "one\n").edit("echo  {{}}", "echo {{}}").build().ran_and_linked([], ["made"]);
}

#[test]
fn a_file_of_the_project_is_part_of_the_key_if_the_command_names_it() {
    let space = project("sh {file:scripts/copy.sh} {data} {out}", "makes: files");
    let missing = space.run(&["build"]).exits(2);
    assert!(
        missing.stderr.contains("the source `scripts/copy.sh` of node `made` does not exist"),
        "{}",
        missing.transcript()
    );
    space.write("scripts/copy.sh", "cp $1/a.txt $2/copy").build().ran(["data", "made"]);
    space.write("scripts/copy.sh", "cp $1/a.txt $2/other").build().ran(["made"]);
    let why = space.write("scripts/copy.sh", "cp $1/a.txt $2/third").run(&["why", "made"]).exits(0);
    assert!(why.stdout.contains("input file:scripts/copy.sh: [DIGEST] -> [DIGEST]"), "{}", why.stdout);
    let space = project("true", "makes: files");
    space.write("train.py", "").edit("[sh, -c, \"true\"]", "[cat, train.py]");
    let run = space.run(&["build"]).exits(1);
    assert!(
        said(&run).contains("which the command sees only if it names it: `{file:train.py}`"),
        "{}",
        said(&run)
    );
    let space = project("cat {file:../secret}", "makes: files");
    assert!(space.run(&["build"]).exits(2).stderr.contains("must have the path of a file below"));
    let space = project("cat {file:link}", "makes: files");
    std::os::unix::fs::symlink("/etc/passwd", space.path("link")).unwrap();
    assert!(space.run(&["build"]).exits(2).stderr.contains("leads out of the folder of the pipeline file"));
}

#[test]
fn only_outputs_that_match_are_kept() {
    let script = "mkdir {out}/a {out}/b; touch {out}/a/x.bin {out}/b/y.bin {out}/a/x.txt {out}/.hidden";
    let space = project(script, "makes: files, outputs: ['a/*.bin']");
    space.build().ran(["data", "made"]);
    let made = space.link("artifacts/made");
    assert_eq!(space.files(&format!("artifacts/{made}")).len(), 1);
    space.edit(", outputs: ['a/*.bin']", "").build().ran(["made"]);
    let made = space.link("artifacts/made");
    assert_eq!(space.files(&format!("artifacts/{made}")).len(), 3, "a hidden file is left out");
    space.edit("makes: files", "makes: files, outputs: ['c/*']");
    let run = space.run(&["build"]).exits(1);
    assert!(
        said(&run).contains("no file in {out} matches `c/*` of `outputs`: {out} has `.hidden`, `a/x.bin`"),
        "{}",
        said(&run)
    );
}

#[test]
fn what_a_command_makes_is_checked() {
    assert!(
        failure("echo hello > {out}/README", "makes: model")
            .contains("what the command made, `README`, is not a model")
    );
    assert!(
        failure("echo hello > {out}/README", "makes: adapter")
            .contains("what the command made, `README`, is not an adapter")
    );
    assert!(
        failure("true", "makes: files")
            .contains("the command left no file in {out}; what it makes goes there, and it does not name it")
    );
    assert!(failure("rmdir {out}", "makes: files").contains("the command left no folder {out}"));
    assert!(failure("mkfifo {out}/pipe", "makes: files").contains("`pipe`, which is not a regular file"));
    let link = failure("ln -s /etc/passwd {out}/users", "makes: files");
    assert!(
        link.contains("the command made `users` a link out of {out}, to /etc/passwd; copy the file"),
        "{link}"
    );
    let name = failure("touch {out}/$(printf 'a\\377')", "makes: files");
    assert!(name.contains("whose name is not UTF-8"), "{name}");
    // A link to an input, or a second name of it, becomes a copy.
    let space = project(
        "ln -s $PWD/{data}/a.txt {out}/link; cp -lL {data}/a.txt {out}/hard || cp {data}/a.txt {out}/hard",
        "makes: files",
    );
    space.build().ran(["data", "made"]);
    assert_eq!(space.read("artifacts/made/link"), "one\n");
    assert!(
        !fs::metadata(space.path("data/a.txt")).unwrap().permissions().readonly(),
        "the source stays as it is"
    );
}

#[test]
fn commands_that_fail_say_how() {
    let failed = failure("echo starting; echo no such layer >&2; exit 3", "makes: files");
    insta::assert_snapshot!(failed, @r"
    made: failed: `sh` failed with exit code 3
      | starting
      | no such layer
      all of its output: cache/logs/[DIGEST]
    ");
    assert!(
        failure("kill -9 $$", "makes: files")
            .contains("`sh` was ended by signal 9 (SIGKILL); it wrote nothing")
    );
    let binary = failure("printf '\\000\\033[2J\\377\\n'; exit 1", "makes: files");
    assert!(binary.contains("  | \\u{0}\u{fffd}\n"), "{binary:?}");
    let space = project("true", "makes: files")
        .edit("[sh, -c,", "[no-such-trainer, -c,")
        .run(&["build", "-n"])
        .exits(2)
        .stderr;
    assert!(
        space.contains("the program `no-such-trainer` is not there; install it, or put its folder into PATH"),
        "{space}"
    );
    let loud = failure("yes | head -c 3000000; exit 1", "makes: files");
    assert!(loud.len() < 1000, "{loud}");
}

#[test]
fn what_a_command_leaves_running_is_ended() {
    let pids =
        |space: &Space| -> Vec<String> { space.read("pids").split_whitespace().map(str::to_owned).collect() };
    let is_gone = |pid: &String| !Path::new("/proc").join(pid).exists();
    // One in the background, and one that leaves the process group.
    let forks = "sleep 600 & echo $! >> $PIDS; setsid sh -c 'echo $$ >> $PIDS; exec sleep 600' & sleep 0.3; touch {out}/x";
    let mut space = project(forks, "makes: files, env: [PIDS]");
    let file = space.path("pids").to_str().unwrap().to_owned();
    space.set_variable("PIDS", &file);
    space.build().ran(["data", "made"]);
    if cfg!(target_os = "linux") {
        assert_eq!(pids(&space).len(), 2);
        assert!(pids(&space).iter().all(is_gone));
    }
    // One that hangs, and does not listen.
    let hangs = "trap '' TERM; echo $$ >> $PIDS; sleep 600 & echo $! >> $PIDS; echo waiting; wait; wait";
    let mut space = project(hangs, "makes: files, timeout: 1s, env: [PIDS]");
    let file = space.path("pids").to_str().unwrap().to_owned();
    space.set_variable("PIDS", &file);
    let start = Instant::now();
    let run = space.run(&["build"]).exits(1);
    assert!(
        said(&run).contains("`sh` was ended after [TIME] s, its `timeout`\n  | waiting"),
        "{}",
        said(&run)
    );
    assert!(start.elapsed() < Duration::from_secs(30));
    space.is_tidy();
    if cfg!(target_os = "linux") {
        assert!(pids(&space).iter().all(is_gone));
    }
    // Ctrl-C, and a build that is killed.
    for name in ["INT", "KILL"] {
        fs::remove_file(space.path("pids")).unwrap();
        space.write("pipeline.yaml", space.read("pipeline.yaml").replace("timeout: 1s, ", ""));
        let mut build =
            space.command().arg("build").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until(|| space.path("pids").exists() && pids(&space).len() == 2);
        signal(&build, name);
        assert!(!build.wait().unwrap().success());
        if cfg!(target_os = "linux") {
            wait_until(|| pids(&space).iter().all(is_gone));
        }
    }
    let _ = space.edit("trap '' TERM; ", "touch {out}/x; exit; ").run(&["build"]).exits(0);
    space.is_tidy();
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "it takes too long");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_command_that_changes_its_inputs_or_writes_into_the_cache_fails() {
    let changes = [
        ("echo x >> {data}/a.txt", "the command changed `a.txt` of its input `data`"),
        ("rm {data}/a.txt", "the command removed `a.txt` in its input `data`"),
        ("touch {data}/new", "the command made `new` in its input `data`"),
        (
            "touch $(dirname $(readlink -f {data}/a.txt))/new",
            "the command made [DIR]/data/new in its input `data`",
        ),
        ("sed -i s/one/two/ {data}/a.txt", "the command replaced `a.txt` in its input `data`"),
        ("echo x > ../../../notes", "somebody else wrote into the cache: [DIR]/cache/notes"),
        (
            "mkdir -p ../../../objects/ab; echo x > ../../../objects/ab/cd",
            "somebody else wrote into the cache: cache/objects/[DIGEST]/cd",
        ),
    ];
    for (script, problem) in changes {
        let problem = problem.replace("[DIR]/cache", "cache");
        let said = failure(&format!("{script}; touch {{out}}/x"), "makes: files");
        assert!(said.contains(&problem), "{script}: {said}");
    }
    // An input that the cache keeps: what was altered is not used, and is made again.
    let space = project("cp -r {data}/* {out}", "makes: files");
    space.write(
        "pipeline.yaml",
        space.read("pipeline.yaml")
            + "  bad: {stage: run, makes: files, inputs: {made: made}, \
        command: [sh, -c, 'f=$(readlink -f {made}/a.txt); chmod 644 $f; echo x >> $f; cp $f {out}']}\n",
    );
    let run = space.run(&["build"]).exits(1);
    assert!(
        run.stderr.contains("bad: failed: the command changed `a.txt` of its input `made`"),
        "{}",
        run.transcript()
    );
    let _ = space.run(&["build", "made"]).exits(0);
    assert_eq!(space.read("artifacts/made/a.txt"), "one\n");
    let _ = space.run(&["verify", "--store"]).exits(0);
}

#[test]
fn a_command_gets_no_variable_that_it_was_not_given() {
    let mut space = project("env | sort > {out}/env", "makes: files, env: [HF_HOME], key_env: [SEED]");
    for (name, value) in
        [("AWS_SECRET_ACCESS_KEY", "hush"), ("HF_TOKEN", "hush"), ("HF_HOME", "/models"), ("SEED", "7")]
    {
        space.set_variable(name, value);
    }
    space.build().ran(["data", "made"]);
    let environment = space.read("artifacts/made/env");
    assert!(
        !environment.contains("hush")
            && environment.contains("HF_HOME=/models\n")
            && environment.contains("SEED=7\n")
    );
    let names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let known =
        ["HF_HOME", "HOME", "OLDPWD", "PATH", "PWD", "PYTHONUNBUFFERED", "SEED", "SHLVL", "TMPDIR", "_"];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    space.build().ran([]);
    space.set_variable("HF_HOME", "/elsewhere");
    space.build().ran([]);
    space.set_variable("SEED", "8");
    let why = space.run(&["why", "made"]).exits(0);
    assert!(why.stdout.contains("  parameter key_env.SEED: 7 -> 8\n"), "{}", why.stdout);
    space.build().ran(["made"]);
}

/// A model that a command converts, an adapter that it trains, and ours after it.
fn trained() -> Space {
    let space = Space::empty();
    write_model(&space.path("model"), PICO);
    write_adapter(&space.path("lora"), PICO.hidden, PICO.layers);
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  raw: {stage: files, source: model}\n  lora: {stage: files, source: lora}\n  \
         base: {stage: run, makes: model, inputs: {raw: raw}, command: [sh, -c, 'cp -L {raw}/* {out}']}\n  \
         train:\n    stage: run\n    makes: files\n    deterministic: false\n    inputs: {lora: lora, base: base}\n    command:\n    \
         - sh\n    - -c\n    - 'for step in 1 2; do mkdir -p {out}/checkpoints/$step; cp -L {lora}/* {out}/checkpoints/$step; echo $step > {out}/checkpoints/$step/note; done; date +%N > {out}/when'\n  \
         \"fused-{step}\": {stage: fuse, model: base, adapter: {node: train, path: \"checkpoints/{step}\"}, matrix: {step: [1, 2]}}\n  \
         q4: {stage: quantize, model: fused-2, bits: 4}\n",
    );
    space
}

#[test]
fn what_commands_make_is_fused_and_quantized() {
    let space = trained();
    space.build().ran_and_linked(["raw", "lora", "base", "train", "fused-1", "fused-2", "q4"], []);
    // Both checkpoints have the same weights.
    assert_eq!(
        space.bytes("artifacts/fused-1/model.safetensors"),
        space.bytes("artifacts/fused-2/model.safetensors")
    );
    // Only what is in the folder counts for the node that reads it.
    space.build_with(&["train", "--force"]).ran(["train"]);
    space.build().ran([]);
    let wrong = space.edit("matrix: {step: [1, 2]}", "matrix: {step: [2, 20]}").run(&["build"]).exits(2);
    assert!(wrong.stderr.contains("node `fused-20`: its input `train` has nothing at `checkpoints/20`; did you mean `checkpoints/2`?"), "{}", wrong.transcript());
}

#[test]
fn what_is_not_deterministic_is_taken_from_the_lock() {
    let space = trained();
    space.build().ran_and_linked(["raw", "lora", "base", "train", "fused-1", "fused-2", "q4"], []);
    let verified = space.run(&["verify"]).exits(0);
    assert!(
        verified.stdout.contains("train: cannot be made again, because it is not deterministic"),
        "{}",
        verified.transcript()
    );
    let verified = space.run(&["verify", "--rerun"]).exits(1);
    assert!(
        verified.stdout.contains("train: when differs: from byte 0 on")
            || verified.stdout.contains("train: when differs: from byte"),
        "{}",
        verified.transcript()
    );
    let _ = space.build_with(&["--locked"]).exits(0);
    // Without the artifact, it is not made anew.
    let clone = space.cloned();
    let run = clone.run(&["build", "--locked", "-k"]).exits(1);
    assert!(
        run.stderr.contains("train: failed: `deterministic: false`: it would come out differently"),
        "{}",
        run.transcript()
    );
    // Another one is not taken either.
    let _ = clone.run(&["build", "train"]).exits(0);
    clone.write("pipeline.lock", space.read("pipeline.lock"));
    let run = clone.run(&["build", "--locked"]).exits(1);
    assert!(run.stderr.contains("train: failed: `deterministic: false`"), "{}", run.transcript());
}

#[test]
fn a_pool_limits_how_many_commands_run_at_once() {
    let space = Space::empty();
    let script = "mkdir $LOCK || exit 1; sleep 0.2; rmdir $LOCK; touch {out}/x";
    let node =
        |pool: &str| format!("stage: run, makes: files, env: [LOCK], command: [sh, -c, \"{script}\"{pool}");
    let write = |size: usize| {
        space.write("pipeline.yaml", format!(
            "version: 1\npools: {{gpu: {size}}}\nnodes:\n  \"r{{n}}\": {{{}, '{{n}}'], pool: gpu, matrix: {{n: [1, 2, 3]}}}}\n", node("")
        ));
    };
    write(1);
    let mut command = space.command();
    command.env("LOCK", space.path("lock")).args(["build", "--json", "-j4"]);
    space.finish(command.output().unwrap()).ran(["r1", "r2", "r3"]);
}

#[test]
fn a_full_disk_fails_the_command_and_nothing_else() {
    let space = project("head -c 200000000 /dev/zero > {out}/big", "makes: files");
    let folder = space.path("small");
    fs::create_dir(&folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(&folder).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    space.write("pipeline.yaml", format!("cache: {{dir: small/cache}}\n{}", space.read("pipeline.yaml")));
    let run = space.run(&["build"]).exits(1);
    let sound = space.run(&["verify", "--store"]).exits(0);
    let said = (said(&run), sound.stdout.clone(), space.names("small/cache/tmp"));
    drop(Command::new("umount").arg(&folder).output());
    assert!(said.0.contains("`sh` failed with exit code 1"), "{}", said.0);
    assert!(said.0.contains("No space left on device"), "{}", said.0);
    assert_eq!(said.2, [""; 0]);
}

#[test]
fn no_command_runs_if_none_may() {
    let space = project("touch {out}/x", "makes: files");
    let run = space.run(&["build", "--no-commands"]).exits(1);
    assert!(
        said(&run).contains("neither the cache nor the remote has it, and its command may not run"),
        "{}",
        said(&run)
    );
    space.build().ran(["made"]);
    let _ = space.run(&["build", "--no-commands"]).exits(0);
    space.remove("artifacts").build_with(&["--no-commands"]).linked(["data", "made"]);
}

#[test]
fn what_a_command_made_is_shared_and_never_made_anew() {
    let bucket = Bucket::all().into_iter().next().unwrap();
    let team = Team::on(bucket);
    let first = team.join(trained(), 0);
    let built = first.build().exits(0);
    assert_eq!(built.nodes("built").len(), 7);
    // A colleague takes the training from the team, also where the lock must hold.
    let second = team.second(&first);
    let run = second.build_with(&["--locked"]).exits(0);
    assert_eq!(run.nodes("built"), [""; 0], "{}", run.transcript());
    assert_eq!(second.read("artifacts/train/when"), first.read("artifacts/train/when"));
    // One who trained alone before gets what the lock names.
    let third = team.second(&first);
    third.build_with(&["train", "--no-remote"]).ran(["raw", "lora", "base", "train"]);
    third.write("pipeline.lock", first.read("pipeline.lock"));
    let run = third.build_with(&["--locked"]).exits(0);
    assert!(run.nodes("fetched").contains(&"train".to_owned()), "{}", run.transcript());
    assert_eq!(third.read("artifacts/train/when"), first.read("artifacts/train/when"));
    // In the record is what is said of the tool; in the artifact it is not.
    first.edit(
        "makes: files\n    deterministic",
        "makes: files\n    tool: [sh, -c, 'echo trainer 1.2']\n    deterministic",
    );
    first.build().ran([]);
    first.build_with(&["train", "--force"]).ran(["train"]);
    let inspected = first.run(&["inspect", "train"]).exits(0);
    assert!(inspected.stdout.contains("tool: trainer 1.2\n"), "{}", inspected.stdout);
}

#[test]
fn a_training_that_is_damaged_is_not_made_again_by_itself() {
    let space = project("date +%N > {out}/weights", "makes: files, deterministic: false");
    space.build().ran(["data", "made"]);
    let made = space.read("artifacts/made/weights");
    space.scribble(&space.object("artifacts/made/weights"));
    let run = space.run(&["build"]).exits(1);
    assert!(said(&run).contains("so it is not made again by itself: `pipeline pull made`"), "{}", said(&run));
    space.build_with(&["made", "--force"]).ran(["made"]);
    assert_ne!(space.read("artifacts/made/weights"), made);
}

#[test]
fn a_script_of_the_project_is_not_read_past_the_key() {
    // A program in the project is part of the key; one that is named by its whole path gets a warning.
    let space = project("true", "makes: files");
    space
        .write("copy.sh", "#!/bin/sh\ncp $1/a.txt $2\n")
        .edit("[sh, -c, \"true\"]", "[./copy.sh, \"{data}\", \"{out}\"]");
    let run = space.run(&["build"]).exits(2);
    assert!(
        run.stderr.contains("the program `./copy.sh` is not executable; `chmod +x`"),
        "{}",
        run.transcript()
    );
    fs::set_permissions(space.path("copy.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    space.edit("./copy.sh", "scripts/copy.sh");
    fs::create_dir(space.path("scripts")).unwrap();
    fs::rename(space.path("copy.sh"), space.path("scripts/copy.sh")).unwrap();
    space.build().ran(["data", "made"]);
    space.write("scripts/copy.sh", "#!/bin/sh\ncp $1/a.txt $2/other\n").build().ran(["made"]);
    let whole = space.path("scripts/copy.sh");
    space.edit("scripts/copy.sh", whole.to_str().unwrap());
    space.edit("[/", "[sh, /");
    let run = space.run(&["build"]).exits(0);
    assert!(
        run.stderr.contains(
            "made: warning: `[DIR]/scripts/copy.sh` is a file of the project that is not part of the key"
        ),
        "{}",
        run.transcript()
    );
    // A module beside the script is seen if it is among `files`.
    let space = project("sh {file:main.sh} {out}", "makes: files, files: [lib/more.sh]");
    space
        .write("main.sh", "cp $(dirname $0)/lib/more.sh $1\n")
        .write("lib/more.sh", "1\n")
        .build()
        .ran(["data", "made"]);
    space.write("lib/more.sh", "2\n").build().ran(["made"]);
    assert_eq!(space.read("artifacts/made/more.sh"), "2\n");
}

#[test]
fn a_command_finds_only_what_it_may() {
    // A program in an input, hidden files of an artifact, a pipe in the place of a script.
    let space = Space::empty();
    space.write("tools/run.sh", "#!/bin/sh\nls -A $1 > out/list\n");
    fs::set_permissions(space.path("tools/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  tools: {stage: files, source: tools}\n  \
         made: {stage: run, makes: files, outputs: ['*'], command: [sh, -c, 'touch out/.hidden out/seen']}\n  \
         list: {stage: run, makes: files, inputs: {t: tools, made: made}, command: ['{t}/run.sh', '{made}']}\n",
    );
    space.build().ran(["tools", "made", "list"]);
    assert_eq!(space.read("artifacts/list/list"), ".hidden\nseen\n");
    let space = project("cat {file:script.sh}", "makes: files");
    assert!(Command::new("mkfifo").arg(space.path("script.sh")).status().unwrap().success());
    let run = space.run(&["build", "-n"]).exits(2);
    assert!(run.stderr.contains("`{file:script.sh}` is not a regular file"), "{}", run.transcript());
    // What `tool` does is no part of the artifact, and there is no terminal to wait for.
    let space = project(
        "exec 2>&1; read x < /dev/tty; touch {out}/x",
        "makes: files, tool: [sh, -c, 'touch out/stale; echo v1']",
    );
    space.build().ran(["data", "made"]);
    assert_eq!(space.files(&format!("artifacts/{}", space.link("artifacts/made"))).len(), 1);
    // The supervisor may be killed, and the command ends all the same.
    let mut space =
        project("sleep 0.2; kill -9 $PPID; sleep 1; touch $ALIVE; sleep 1", "makes: files, env: [ALIVE]");
    let alive = space.path("alive").to_str().unwrap().to_owned();
    space.set_variable("ALIVE", &alive);
    let run = space.run(&["build"]).exits(1);
    assert!(said(&run).contains("it was killed, perhaps for lack of memory"), "{}", said(&run));
    thread::sleep(Duration::from_millis(1500));
    assert!(!space.path("alive").exists(), "the command runs on");
}

#[test]
fn folders_that_a_user_may_not_change_are_removed_all_the_same() {
    // Root may change all folders, so somebody else runs this.
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let space = project(
        "mkdir tmp/ro out/ro out/.none; echo 1 > tmp/ro/f; echo 1 > out/ro/f; chmod a-w tmp/ro out/ro; chmod 0 out/.none",
        "makes: files",
    );
    let may = Command::new("setpriv").args(nobody).arg("true").status().is_ok_and(|status| status.success());
    let mut command = space.command();
    if may {
        assert!(
            Command::new("chown").args(["-R", "65534:65534"]).arg(space.path("")).status().unwrap().success()
        );
        command = space.command_of("setpriv");
        let state = space.path("state");
        command
            .args(nobody)
            .arg(env!("CARGO_BIN_EXE_pipeline"))
            .env("XDG_STATE_HOME", state)
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", space.path(""));
    }
    let run = space.finish(command.args(["build", "--json"]).output().unwrap());
    run.ran(["data", "made"]);
    assert_eq!(space.read("artifacts/made/ro/f"), "1\n");
}
