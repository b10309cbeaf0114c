//! Nodes that are made on other machines, over ssh and by Slurm: the same bytes, whatever fails on the way.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::faults::signal;
use crate::kills::{Dice, seed};
use crate::machines::{COUNT, Hosts, Machines, Queue, programs};
use crate::remote::Team;
use crate::short_train;
use crate::soak::is_soak;
use crate::space::{ALL, Space};

/// A project with commands that take so many tenths of a second, and say that they have run.
fn slow(count: usize, tenths: usize) -> Space {
    let space = Space::empty();
    space.write("data/hello", "hello\n");
    let numbers = (1..=count).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    let wait = format!("for t in $(seq {tenths}); do sleep 0.1; done");
    let script = format!(
        "{wait}; cat {{data}}/hello > {{out}}/made; echo {{i}} >> {{out}}/made; echo {{i}} >> ${COUNT}"
    );
    let node = format!(
        "{{matrix: {{i: [{numbers}]}}, stage: run, makes: files, inputs: {{data: data}}, env: [{COUNT}], \
         command: [sh, -c, {}]}}",
        serde_json::to_string(&script).unwrap()
    );
    let nodes = format!("nodes:\n  data: {{stage: files, source: data}}\n  \"n{{i}}\": {node}\n");
    space.write("pipeline.yaml", format!("version: 1\n{nodes}"));
    space
}

/// Lets a project of the first member use machines. The remote is a folder.
fn placed(space: Space, team: &Team, machines: &dyn Machines, stages: &str) -> Space {
    let space = team.join(space, 0);
    space.edit("version: 1\n", &format!("version: 1\n{}", machines.workers(stages)));
    machines.clone_project(team, &space);
    space
}

/// Returns the files of all artifacts, by path.
fn artifacts(space: &Space) -> BTreeMap<String, Vec<u8>> {
    space.files("artifacts")
}

/// Starts a build, and returns once this many nodes run on machines.
fn start(space: &Space, machines: &dyn Machines, running: usize) -> Child {
    let child = space.command().arg("build").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(machines, running);
    child
}

/// Waits until this many nodes run on machines.
fn wait_for(machines: &dyn Machines, running: usize) {
    let start = Instant::now();
    let is_command = |(_, line): &&(u32, String)| line.starts_with("sh -c");
    while machines.processes().iter().filter(is_command).count() < running {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing runs");
        thread::sleep(Duration::from_millis(50));
    }
}

fn both() -> Vec<Box<dyn Machines>> {
    let hosts = Hosts::start(2).map(|hosts| Box::new(hosts) as Box<dyn Machines>);
    let queue = Queue::start().map(|queue| Box::new(queue) as Box<dyn Machines>);
    hosts.into_iter().chain(queue).collect()
}

#[test]
fn the_same_is_made_here_over_ssh_and_by_slurm() {
    let here = Space::pico();
    here.build().ran(ALL);
    for machines in both() {
        for bucket in Bucket::all() {
            let team = Team::on(bucket);
            let space = placed(Space::pico(), &team, machines.as_ref(), "fuse, quantize");
            let run = space.build().exits(0);
            assert_eq!(run.nodes("made"), ["fused", "q4", "q8"], "{}", run.transcript());
            assert_eq!(run.nodes("built"), ["adapter", "base"]);
            assert_eq!(artifacts(&space), artifacts(&here));
            assert_eq!(space.read("pipeline.lock"), here.read("pipeline.lock"));
            assert_eq!(space.names("cache/jobs"), [""; 0]);
            space.is_tidy().build().ran([]);
            // Somebody else takes it from the remote, as anything else of the team.
            let other = team.second(&space);
            assert_eq!(other.build().exits(0).nodes("fetched"), ["fused", "q4", "q8"]);
            assert!(other.run(&["verify", "--local"]).exits(0).stdout.ends_with("0 failed\n"));
        }
        machines.is_quiet();
    }
}

/// Returns the artifact of each node in a lock. The key of a node that reads times is another in each run.
fn locked(space: &Space, lock: &str) -> BTreeMap<String, String> {
    let text = space.read(lock);
    let lines = text.lines().filter_map(|line| line.split_once(": {key: "));
    lines.map(|(node, rest)| (node.to_owned(), rest.split_once("artifact: ").unwrap().1.to_owned())).collect()
}

#[test]
fn the_training_example_is_the_same_here_over_ssh_and_by_slurm() {
    let lock = "examples/train/pipeline.lock";
    let build = |machines: Option<&dyn Machines>| {
        let team = Team::on(Bucket::folder());
        let mut space = Space::empty();
        short_train::write(&space.path(""));
        space.set_variable("PATH", &programs());
        space.set_variable("PIPELINE_SIGNING_KEY", &team.keys[0].to_text());
        if let Some(machines) = machines {
            let keys = [team.keys[0].public(), team.keys[1].public()];
            let cache = format!(
                "cache: {{remote: \"{}\", trusted_keys: {{me: \"{}\", worker: \"{}\"}}}}\n",
                team.bucket.url(),
                keys[0],
                keys[1]
            );
            let workers = machines.workers("run, fuse, quantize, benchmark");
            let workers = workers.replace("/project", "/project/examples/train");
            space.edit_file(
                "examples/train/pipeline.yaml",
                "version: 1\n",
                &format!("version: 1\n{cache}{workers}"),
            );
            machines.clone_project(&team, &space);
        }
        let run = space.run(&["-C", "examples/train", "build", "--json"]).exits(0);
        let by_workers = run.nodes("made").len();
        assert_eq!(by_workers, if machines.is_some() { 15 } else { 0 }, "{}", run.transcript());
        locked(&space, lock)
    };
    let here = build(None);
    assert_eq!(here.len(), 19);
    for machines in both() {
        assert_eq!(build(Some(machines.as_ref())), here);
        machines.is_quiet();
    }
}

#[test]
fn the_example_is_what_its_lock_says_over_ssh_and_by_slurm() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for machines in both() {
        let team = Team::on(Bucket::folder());
        let space = Space::empty();
        short_train::write(&space.path(""));
        let text = fs::read_to_string(repository.join("pipeline.yaml")).unwrap();
        space.write("pipeline.yaml", &text[text.find("version: 1").unwrap()..]);
        space.write("pipeline.lock", fs::read(repository.join("pipeline.lock")).unwrap());
        let space = placed(space, &team, machines.as_ref(), "fuse, quantize, benchmark");
        let run = space.build_with(&["--locked"]).exits(0);
        assert_eq!(run.nodes("made").len(), 6, "{}", run.transcript());
        machines.is_quiet();
    }
}

#[test]
fn a_measurement_is_that_of_the_class_of_its_worker() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = Space::empty();
    short_train::write(&space.path(""));
    let tiny = "examples/tiny";
    space.write(
        "pipeline.yaml",
        format!(
            "version: 1\nnodes:\n  base: {{stage: base, source: {tiny}/base-4bit}}\n  bench: {{stage: benchmark, \
             suite: {tiny}/discrimination.yaml, configs: {{base: base}}, gates: {{base: {{speed: \">= 0.001\"}}}}}}\n"
        ),
    );
    let space = placed(space, &team, &hosts, "benchmark");
    // A machine with one processor is of another class than this one.
    hosts.restart_on_one_processor();
    let run = space.build().exits(0);
    assert_eq!(run.nodes("made"), ["bench"], "{}", run.transcript());
    let timings: serde_json::Value =
        serde_json::from_str(&space.read("artifacts/bench/timings.json")).unwrap();
    assert_eq!(timings["machine"]["threads"], 1);
    assert!(timings["run"]["asked_by"].as_str().unwrap().contains(" threads"), "{timings}");
    let report = space.read("artifacts/bench/report.md");
    assert!(report.contains("1 threads") && report.contains(", for a build on "), "{report}");
    space.build().ran([]);
    // Who places it in the same way takes it from the remote. Who does not, measures.
    let other = team.second(&space);
    assert_eq!(other.build().exits(0).nodes("fetched"), ["bench"]);
    let local = team.second(&space);
    let run = local.build_with(&["--local"]).exits(0);
    assert!(run.nodes("built").contains(&"bench".to_owned()), "{}", run.transcript());
    // A machine without a GPU does not measure for one.
    space
        .edit("for: [benchmark]", "for: [benchmark], device: mlx-gpu")
        .edit("{base: base}, gates", "{base: base}, device: mlx, gates");
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("gpu`, which this machine does not have"), "{}", run.transcript());
}

#[test]
fn only_what_is_needed_travels_to_a_worker_and_back() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(Space::pico(), &team, &hosts, "fuse, quantize");
    let run = space.build_with(&["q4"]).exits(0);
    assert_eq!(
        (run.nodes("made"), run.nodes("fetched")),
        (vec!["fused".into(), "q4".into()], vec!["q4".into()])
    );
    // The model between them stays where it was made, and the next worker takes it from there.
    let run = space.build_with(&["q8"]).exits(0);
    assert_eq!((run.nodes("made"), run.nodes("fetched")), (vec!["q8".into()], vec!["q8".into()]));
    let why = space.run(&["why", "q8"]).exits(0).stdout;
    assert!(why.contains("up to date"), "{why}");
    space.edit("bits: 4", "bits: 5");
    let why = space.run(&["why", "q4"]).exits(0).stdout;
    assert!(why.contains("must run on the worker hosts"), "{why}");
    // Without workers, it is made here, and the model comes here for that.
    let run = space.build_with(&["q4", "--local"]).exits(0);
    assert_eq!((run.nodes("built"), run.nodes("fetched")), (vec!["q4".into()], vec!["fused".into()]));
}

#[test]
fn secrets_do_not_travel() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let mut space = slow(1, 0);
    space.edit(&format!("env: [{COUNT}]"), &format!("env: [{COUNT}, SESSION]"));
    space.set_variable("SESSION", "s3cr3t-of-the-coordinator");
    let space = placed(space, &team, &hosts, "run");
    space.build().exits(0).events("made");
    let names = team.bucket.names();
    assert!(names.iter().any(|name| name.starts_with("requests/")), "{names:?}");
    for name in names {
        let bytes = team.bucket.read(&name);
        let signed = engine::sign::Envelope::parse(&bytes).map(|envelope| envelope.payload);
        let text = String::from_utf8_lossy(&signed.unwrap_or(bytes)).into_owned();
        assert!(!text.contains("s3cr3t"), "{name}: {text}");
        assert!(!text.contains(space.path("").to_str().unwrap()), "{name} names a folder: {text}");
    }
}

#[test]
fn a_request_is_believed_only_from_a_trusted_key() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(Space::pico(), &team, &hosts, "quantize");
    space.build().exits(0).events("made");
    let name = team.bucket.names_in("requests/").remove(0);
    let key = name.trim_start_matches("requests/").trim_end_matches(".json").to_owned();
    let worker = team.second(&space);
    let exec = |key: &str| worker.run(&["exec", "--key", key]);
    // It is there already.
    assert!(exec(&key).exits(0).stdout.ends_with("is in the remote already\n"));
    // Not one byte of it may be other.
    let sound = team.bucket.read(&name);
    let altered = String::from_utf8(sound.clone()).unwrap().replacen("\"payload\":\"e", "\"payload\":\"f", 1);
    team.bucket.write(&name, altered.as_bytes());
    let said = exec(&key).exits(1).stderr;
    assert!(said.contains("is not believed: it says that"), "{said}");
    // The request for one key is none for another.
    let other = team.bucket.names_in("requests/").remove(1);
    team.bucket.write(&other, &sound);
    let other = other.trim_start_matches("requests/").trim_end_matches(".json");
    let said = exec(other).exits(1).stderr;
    assert!(said.contains("its recipe has another key"), "{said}");
    let said = exec(&"0".repeat(64)).exits(1).stderr;
    assert!(said.contains(" has no request for "), "{said}");
    // A worker that does not know who asks does nothing, and one without a key neither.
    team.bucket.write(&name, &sound);
    let line = format!("member0: \"{}\", ", team.keys[0].public());
    worker.edit(&line, "");
    let said = exec(&key).exits(1).stderr;
    assert!(
        said.contains("who is not trusted; the `trusted_keys` of this machine's project must name"),
        "{said}"
    );
    let keyless = space.cloned();
    keyless.edit(&format!("member1: \"{}\"", team.keys[1].public()), "");
    let said = keyless.run(&["exec", "--key", &key]).exits(1).stderr;
    assert!(said.contains("this machine has no signing key; `pipeline keys init` makes one"), "{said}");
}

#[test]
fn a_worker_that_is_not_trusted_makes_nothing() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(Space::pico(), &team, &hosts, "fuse");
    space.edit(&format!(", member1: \"{}\"", team.keys[1].public()), "");
    let run = space.run(&["build"]).exits(1);
    assert!(
        run.stderr.contains("fused: failed: what its worker answers is not believed"),
        "{}",
        run.transcript()
    );
    assert!(run.stderr.contains("who is not trusted"), "{}", run.transcript());
}

#[test]
fn what_is_wrong_with_a_host_is_said() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(Space::pico(), &team, &hosts, "fuse");
    let said = |from: &str, to: &str| {
        space.edit(from, to);
        let run = space.run(&["build", "fused"]).exits(1);
        space.edit(to, from);
        run.stderr
    };
    let program = format!("program: \"{}\"", env!("CARGO_BIN_EXE_pipeline"));
    let absent = said(&program, "program: no-such-pipeline");
    assert!(absent.contains("`no-such-pipeline` is not found on host1"), "{absent}");
    assert!(absent.contains("cargo install"), "{absent}");
    let folder = said("~/project", "~/nowhere");
    assert!(folder.contains("fused: failed: on host1: ") && folder.contains("nowhere"), "{folder}");
    let known = hosts.folder().join("known_hosts");
    let keys = fs::read_to_string(&known).unwrap();
    fs::write(&known, "").unwrap();
    let unknown = space.run(&["build", "fused"]).exits(1).stderr;
    assert!(unknown.contains("Host key verification failed"), "{unknown}");
    fs::write(&known, keys).unwrap();
    let remote = space.run(&["build", "fused", "--no-remote"]).exits(1).stderr;
    assert!(
        remote.contains("the worker `hosts` gets its work through a remote, and there is none"),
        "{remote}"
    );
    let _ = space.run(&["build", "fused"]).exits(0);
    // What a stage says reaches the one who asked.
    let failing = placed(slow(1, 0), &Team::on(Bucket::folder()), &hosts, "run");
    failing.edit("cat {data}", "echo oh no; exit 3; cat {data}");
    let run = failing.run(&["build"]).exits(1);
    assert!(
        run.stderr.contains("n1: failed: on host1: `sh` failed with exit code 3"),
        "{}",
        run.transcript()
    );
    assert!(run.stderr.contains("oh no"), "{}", run.transcript());
}

#[test]
fn options_of_slurm_are_checked_when_a_job_is_submitted_and_long_sweeps_are_split() {
    let Some(queue) = Queue::start() else { return };
    let team = Team::on(Bucket::folder());
    // The longest array of this cluster has eight jobs.
    let space = placed(slow(11, 0), &team, &queue, "run");
    space.edit("for: [run]", "for: [run], options: [--partition=nope]");
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("invalid partition specified: nope"), "{}", run.transcript());
    space.edit("--partition=nope", "--partition=main");
    let run = space.build().exits(0);
    assert_eq!(run.nodes("made").len(), 11, "{}", run.transcript());
    assert_eq!(queue.runs().len(), 11, "each ran once");
    assert_eq!(queue.submit(&["squeue", "--noheader"]), "");
    let names = fs::read_dir(queue.folder().join("project")).unwrap().flatten();
    let logs = names.filter(|entry| entry.path().extension().is_some_and(|end| end == "log"));
    assert_eq!(logs.count(), 0, "logs are left");
}

#[test]
fn a_command_starts_workers_too() {
    let here = Space::pico();
    here.build().ran(ALL);
    let team = Team::on(Bucket::folder());
    let space = team.join(Space::pico(), 0);
    let worker = team.second(&space);
    let key = team.keys[1].to_text();
    let (folder, program) = (worker.path(""), env!("CARGO_BIN_EXE_pipeline"));
    let command = |run: &str| {
        format!(
            "workers: {{w: {{executor: command, run: [{run}], for: [fuse, quantize], folder: {}, program: {program}}}}}\n",
            folder.display()
        )
    };
    let with = |command: &str| {
        let text = space.read("pipeline.yaml");
        let rest = text.lines().filter(|line| !line.starts_with("workers: ")).collect::<Vec<_>>().join("\n");
        space.write(
            "pipeline.yaml",
            rest.replacen("version: 1\n", &format!("version: 1\n{command}"), 1) + "\n",
        );
    };
    // What says that all is well and has sent nothing has lost its job. Somebody tries a few times, and says so.
    with(&command("sh, -c, 'exit 0 # {line}'"));
    let run = space.run(&["build", "fused"]).exits(1);
    assert_eq!(
        run.stderr.matches("the worker `w` lost `fused`, and it begins again").count(),
        4,
        "{}",
        run.transcript()
    );
    assert!(run.stderr.contains("it was tried 5 times"), "{}", run.transcript());
    with(&command("sh, -c, 'echo out of order >&2; exit 9 # {line}'"));
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(
        run.stderr.contains("its command ended with exit status: 9: out of order"),
        "{}",
        run.transcript()
    );
    // A job that cannot be left is cancelled, and that is said.
    with(&command("sh, -c, 'exec sleep 30 # {line}'"));
    let run = space.run(&["build", "fused", "--detach"]).exits(0);
    assert!(
        run.stderr.contains("`fused` cannot be left to the worker `w`, so it is cancelled"),
        "{}",
        run.transcript()
    );
    with(&command(&format!("env, \"PIPELINE_SIGNING_KEY={key}\", sh, -c, '{{line}}'")));
    let run = space.build().exits(0);
    assert_eq!(run.nodes("made"), ["fused", "q4", "q8"], "{}", run.transcript());
    assert_eq!(artifacts(&space), artifacts(&here));
}

#[test]
fn a_checkout_starts_no_workers_where_no_command_may_run() {
    let team = Team::on(Bucket::folder());
    let space = team.join(Space::pico(), 0);
    let trap = space.path("trapped");
    let worker = format!(
        "workers: {{w: {{executor: slurm, submit: [sh, -c, \"touch {}; false\"], for: [fuse]}}}}\n",
        trap.display()
    );
    space.edit("version: 1\n", &format!("version: 1\n{worker}"));
    let _ = space.run(&["status"]).exits(0);
    let _ = space.run(&["build", "--no-commands"]).exits(0);
    assert!(!trap.exists());
    space.edit("bits: 4", "bits: 5").edit("adapter: adapter}", "adapter: adapter, dtype: float16}");
    let _ = space.run(&["build"]).exits(1);
    assert!(trap.exists());
}

#[test]
fn what_the_remote_has_lost_is_made_again_once() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(Space::pico(), &team, &hosts, "fuse, quantize");
    let _ = space.build_with(&["q4"]).exits(0);
    let lose = || team.bucket.names_in("chunks/").iter().for_each(|name| team.bucket.remove(name));
    lose();
    // Somebody who has nothing but the remote, and whose workers have it all in their caches.
    let other = team.second(&space);
    let run = other.build_with(&["q4"]).exits(0);
    assert!(run.nodes("made").contains(&"q4".to_owned()), "{}", run.transcript());
    assert_eq!(other.bytes("artifacts/q4/model.safetensors"), space.bytes("artifacts/q4/model.safetensors"));
}

#[test]
fn no_variable_of_the_one_who_asks_reaches_a_job() {
    let Some(queue) = Queue::start() else { return };
    let team = Team::on(Bucket::folder());
    let mut space = slow(1, 0);
    space.edit(&format!("env: [{COUNT}]"), &format!("env: [{COUNT}, SESSION]"));
    space.edit("echo {i} >> {out}/made", "echo nothing$SESSION >> {out}/made");
    space.set_variable("SESSION", "s3cr3t");
    let space = placed(space, &team, &queue, "run");
    // A login node that passes on whatever it gets.
    let submit = queue.folder().join("submit");
    let text = fs::read_to_string(&submit).unwrap().replace("exec env -i ", "exec env ");
    fs::write(&submit, text).unwrap();
    let _ = space.build().exits(0);
    assert_eq!(space.read("artifacts/n1/made"), "hello\nnothing\n");
}

#[test]
fn a_job_that_somebody_else_cancels_begins_again() {
    let Some(queue) = Queue::start() else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(slow(1, 15), &team, &queue, "run");
    let child = start(&space, &queue, 1);
    queue.submit(&["scancel", "--user", "root"]);
    let run = space.finish(child.wait_with_output().unwrap()).exits(0);
    assert!(run.stderr.contains("the worker `queue` lost `n1`, and it begins again"), "{}", run.transcript());
    assert_eq!(queue.runs(), ["1"]);
}

#[test]
fn a_job_that_others_preempt_is_put_back_and_finishes() {
    let Some(queue) = Queue::start() else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(slow(1, 30), &team, &queue, "run");
    let child = start(&space, &queue, 1);
    for _ in 0..3 {
        queue.submit(&[
            "sbatch",
            "--partition=urgent",
            "--exclusive",
            "--output=/dev/null",
            "--wrap",
            "sleep 1",
        ]);
    }
    let run = space.finish(child.wait_with_output().unwrap()).exits(0);
    assert!(run.stderr.contains("n1: waits on queue: "), "{}", run.transcript());
    assert_eq!(queue.runs(), ["1"]);
}

#[test]
fn one_broken_connection_to_the_only_host_is_no_failure() {
    let Some(hosts) = Hosts::start(1) else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(slow(2, 10), &team, &hosts, "run");
    let child = start(&space, &hosts, 1);
    hosts.cut();
    let run = space.finish(child.wait_with_output().unwrap()).exits(0);
    assert!(run.stderr.contains("it begins again"), "{}", run.transcript());
}

#[test]
fn garbage_in_the_place_of_an_answer_is_no_answer() {
    let Some(queue) = Queue::start() else { return };
    let team = Team::on(Bucket::folder());
    let space = placed(slow(1, 15), &team, &queue, "run");
    let child = start(&space, &queue, 1);
    let request = team.bucket.names_in("requests/").remove(0);
    team.bucket.write(&request.replace("requests/", "outcomes/"), b"garbage");
    queue.kill_worker();
    let run = space.finish(child.wait_with_output().unwrap()).exits(0);
    assert!(
        run.stderr.contains("it begins again: what its worker answers is not believed"),
        "{}",
        run.transcript()
    );
}

#[test]
fn an_interrupt_of_the_terminal_ends_the_jobs_and_not_the_way_to_them() {
    for machines in both() {
        let team = Team::on(Bucket::folder());
        let space = placed(slow(2, 100), &team, machines.as_ref(), "run");
        // A terminal sends the signal to all processes of the foreground.
        let script = format!("setsid sh -c 'echo $$ > pid; exec {} build'", env!("CARGO_BIN_EXE_pipeline"));
        let mut command = space.command_of("sh");
        let child =
            command.args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for(machines.as_ref(), 2);
        let group = format!("-{}", space.read("pid").trim());
        assert!(std::process::Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        let run = space.finish(child.wait_with_output().unwrap()).exits(130);
        assert!(!run.stderr.contains("may still run"), "{}", run.transcript());
        machines.is_quiet();
        assert_eq!(space.names("cache/jobs"), [""; 0]);
    }
}

#[test]
fn a_build_leaves_its_jobs_and_a_later_one_finds_them() {
    for machines in both() {
        let team = Team::on(Bucket::folder());
        let space = placed(slow(2, 15), &team, machines.as_ref(), "run");
        let left = space.build_with(&["--detach"]).exits(0);
        assert_eq!(
            left.events("finished")[0]["left"],
            serde_json::json!(["n1", "n2"]),
            "{}",
            left.transcript()
        );
        let status = space.run(&["status"]).exits(0).stdout;
        assert_eq!(status.matches("; on the worker ").count(), 2, "{status}");
        let run = space.build().exits(0);
        assert_eq!(run.nodes("made"), ["n1", "n2"], "{}", run.transcript());
        assert_eq!(machines.runs(), ["1", "2"], "each ran once");
        assert_eq!(space.names("cache/jobs"), [""; 0]);
        machines.is_quiet();
    }
}

#[test]
fn an_interrupt_cancels_the_jobs() {
    for machines in both() {
        let team = Team::on(Bucket::folder());
        let space = placed(slow(2, 100), &team, machines.as_ref(), "run");
        let child = start(&space, machines.as_ref(), 2);
        signal(&child, "INT");
        let run = space.finish(child.wait_with_output().unwrap()).exits(130);
        assert!(!run.stderr.contains("may still run"), "{}", run.transcript());
        machines.is_quiet();
        assert_eq!(space.names("cache/jobs"), [""; 0]);
        assert_eq!(machines.runs(), [""; 0]);
    }
}

/// What fails while jobs run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The build is killed.
    Coordinator,
    /// A process of a worker is killed.
    Worker,
    /// A machine loses power, and comes back.
    Machine,
    /// The connection or the controller is lost.
    Connection,
}

/// Builds while a fault happens, and again; what is there then must be the same as without.
fn survives(
    machines: &dyn Machines,
    fault: Fault,
    break_it: &dyn Fn(Fault),
    pause: Duration,
    most_twice: usize,
) -> usize {
    let team = Team::on(Bucket::folder());
    let space = placed(slow(3, 12), &team, machines, "run");
    let _ = fs::remove_file(machines.folder().join("count"));
    let mut child = start(&space, machines, 2);
    thread::sleep(pause);
    if fault == Fault::Coordinator {
        child.kill().unwrap();
    } else {
        break_it(fault);
    }
    let first = space.finish(child.wait_with_output().unwrap());
    let said = first.transcript();
    let run = space.build();
    assert_eq!(run.code(), Some(0), "{fault:?}: {said}\n{}", run.transcript());
    for number in 1..=3 {
        let made = space.read(&format!("artifacts/n{number}/made"));
        assert_eq!(made, format!("hello\n{number}\n"), "{fault:?}: {said}");
    }
    let runs = machines.runs();
    let count = |number: usize| runs.iter().filter(|line| **line == number.to_string()).count();
    assert!((1..=3).all(|number| count(number) > 0), "{fault:?}: {runs:?}\n{said}");
    // A job may have run and not been sent when its worker was killed. The others run once.
    let twice = (1..=3).filter(|number| count(*number) > 1).count();
    assert!(twice <= most_twice, "{fault:?}: {runs:?}\n{said}");
    assert_eq!(space.names("cache/jobs"), [""; 0]);
    space.is_tidy();
    machines.is_quiet();
    twice
}

/// Does each of these faults once, or many times at random moments in a soak. Each has the number of nodes whose workers it
/// may kill.
fn rounds(machines: &dyn Machines, faults: [(Fault, usize); 4], break_it: &dyn Fn(Fault)) {
    let mut dice = Dice(seed());
    let count = if is_soak() { 15 } else { 1 };
    for (fault, killed) in faults {
        let pause = || Duration::from_millis(dice.roll() % 1200);
        let pauses: Vec<_> = std::iter::repeat_with(pause).take(count).collect();
        let twice: usize =
            pauses.into_iter().map(|pause| survives(machines, fault, break_it, pause, killed)).sum();
        println!(
            "{fault:?}: {count} times, {twice} jobs ran again that had run when their worker was killed"
        );
    }
}

#[test]
fn whatever_fails_over_ssh_the_same_is_made() {
    let Some(hosts) = Hosts::start(2) else { return };
    let faults = [(Fault::Coordinator, 2), (Fault::Worker, 1), (Fault::Machine, 1), (Fault::Connection, 1)];
    rounds(&hosts, faults, &|fault| match fault {
        Fault::Coordinator => {}
        Fault::Worker => hosts.kill_worker(),
        Fault::Machine => {
            hosts.kill(1);
            hosts.revive(1);
        }
        Fault::Connection => hosts.cut(),
    });
}

#[test]
fn whatever_fails_in_slurm_the_same_is_made() {
    let Some(queue) = Queue::start() else { return };
    // A queue outlives builds and controllers.
    let faults = [(Fault::Coordinator, 0), (Fault::Worker, 1), (Fault::Machine, 2), (Fault::Connection, 0)];
    rounds(&queue, faults, &|fault| match fault {
        Fault::Coordinator => {}
        Fault::Worker => queue.kill_worker(),
        Fault::Machine => {
            queue.script(&["kill-node", "cpu1"]);
            queue.script(&["start-node", "cpu1"]);
        }
        Fault::Connection => queue.script(&["restart-controller"]),
    });
}
