//! Attacks that a fresh reader found: through links in a shared folder, through a cache that several people may
//! write to, and round the check of what git tracks.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::bucket::Bucket;
use crate::remote::Team;
use crate::space::{ALL, Space};

/// The folder of a team's storage.
fn folder(team: &Team) -> std::path::PathBuf {
    let Bucket::Folder(folder) = &team.bucket else { unreachable!() };
    folder.path().to_owned()
}

#[test]
fn links_in_the_storage_lead_nobody_out_of_it() {
    let (team, first) = Team::with_first(Bucket::folder());
    let victim = Space::empty();
    let old = SystemTime::now() - Duration::from_secs(3 * 86400);
    for name in ["home/.bashrc", "home/id_ed25519"] {
        victim.write(name, "mine").set_modified(name, old);
    }
    let remote = folder(&team);
    symlink(victim.path("home"), remote.join("chunks/zz")).unwrap();
    symlink(victim.path("home/.bashrc"), remote.join("files/link")).unwrap();
    drop(first.run(&["gc", "--remote", "--older-than", "0s", "--grace", "0s"]).exits(0));
    assert_eq!(victim.names("home"), [".bashrc", "id_ed25519"]);
    // Names that are not ours stay, too.
    fs::write(remote.join("chunks/notes.txt"), "mine").unwrap();
    fs::File::open(remote.join("chunks/notes.txt")).unwrap().set_modified(old).unwrap();
    drop(first.run(&["gc", "--remote"]).exits(0));
    assert!(remote.join("chunks/notes.txt").exists());
    // A push writes through no link.
    let other = Bucket::folder();
    let Bucket::Folder(other_folder) = &other else { unreachable!() };
    for name in ["actions", "chunks", "files"] {
        symlink(victim.path("home"), other_folder.path().join(name)).unwrap();
    }
    let run = first.run(&["push", "--remote", &other.url()]).exits(1);
    assert!(run.stderr.contains("is a link; somebody else put it there"), "{}", run.transcript());
    assert_eq!(victim.names("home"), [".bashrc", "id_ed25519"]);
}

/// Checks that a command ends within a few seconds.
#[track_caller]
fn ends(space: &Space, args: &[&str]) {
    let mut command = space.command();
    let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(15) {
            child.kill().unwrap();
            panic!("{args:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
    let pipe = |path: &std::path::Path| {
        let _ = fs::remove_file(path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let (team, first) = Team::with_first(Bucket::folder());
    for name in team.bucket.names() {
        pipe(&folder(&team).join(name));
    }
    let second = team.second(&first);
    for verb in [&["build"][..], &["status"], &["pull"], &["why", "q4"]] {
        ends(&second, verb);
    }
    drop(second.build_with(&["--no-remote"]).exits(0));
    for object in second.files("cache/objects").keys() {
        pipe(&second.path(object));
    }
    ends(&second, &["build", "--no-remote"]);
    let space = Space::built();
    space.remove("pipeline.yaml");
    pipe(&space.path("pipeline.yaml"));
    for verb in [&["keys", "show"][..], &["build"], &["report"], &["diff"]] {
        ends(&space, verb);
    }
}

#[test]
fn what_another_process_recorded_meanwhile_is_looked_at() {
    let space = Space::built();
    let weights = space.object("artifacts/q4/model.safetensors");
    let right = space.bytes(&weights);
    let key = space.files("cache/actions").into_iter().find_map(|(path, bytes)| {
        let text = String::from_utf8(bytes).unwrap();
        text.contains("\"bits\":4")
            .then(|| path["cache/actions/".len()..].strip_suffix(".json").unwrap().to_owned())
    });
    let key = key.unwrap();
    // While a build waits for the lock of a node, somebody else records it, with other bytes under the name.
    let record = format!("cache/actions/{key}.json");
    let text = space.bytes(&record);
    space.remove(&record).remove("cache/memo").remove("artifacts/q4");
    space.remove(&format!(
        "artifacts/{}",
        space.names("artifacts").iter().find(|name| name.starts_with("q4-")).unwrap()
    ));
    space.write(&format!("cache/tmp/{key}.lock"), "");
    let lock = fs::File::options().write(true).open(space.path(&format!("cache/tmp/{key}.lock"))).unwrap();
    lock.lock().unwrap();
    let mut build =
        space.command().args(["build"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(build.try_wait().unwrap().is_none(), "it does not wait");
    space.write(&record, text);
    let mut evil = right.clone();
    *evil.last_mut().unwrap() ^= 1;
    fs::remove_file(space.path(&weights)).unwrap();
    space.write(&weights, evil);
    drop(lock);
    fs::remove_file(space.path(&format!("cache/tmp/{key}.lock"))).unwrap();
    drop(space.finish(build.wait_with_output().unwrap()).exits(0));
    assert_eq!(space.bytes("artifacts/q4/model.safetensors"), right);
}

fn git(space: &Space, args: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(space.path("")).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
    assert!(command.output().unwrap().status.success(), "git {args:?}");
}

#[test]
fn there_is_no_way_round_what_git_tracks() {
    for (init, more, dir) in [
        (&["init", "-q"][..], None, "cache/objects/.."),
        (&["init", "-q", "--object-format=sha256"], None, "cache"),
        (&["init", "-q"], Some(&["update-index", "--split-index"][..]), "cache"),
        (&["init", "-q"], None, "./cache/"),
    ] {
        let space = Space::built();
        git(&space, init);
        git(&space, &["add", "-f", "cache/actions"]);
        more.into_iter().for_each(|more| git(&space, more));
        space.edit("version: 1\n", &format!("version: 1\ncache: {{dir: {dir}}}\n"));
        let run = space.run(&["build"]).exits(2);
        assert!(run.stderr.contains("came with the checkout"), "{dir}: {}", run.transcript());
    }
    // A link that came with the checkout decides where results are written.
    let (space, victim) = (Space::pico(), Space::empty());
    symlink(victim.path(""), space.path("artifacts")).unwrap();
    git(&space, &["init", "-q"]);
    git(&space, &["add", "artifacts"]);
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("artifacts is a link that came with the checkout"), "{}", run.transcript());
    assert_eq!(victim.names(""), [""; 0]);
    git(&space, &["rm", "-q", "--cached", "artifacts"]);
    space.build().ran(ALL);
}

#[test]
fn a_folder_that_is_a_link_is_not_in_place() {
    let (space, elsewhere) = (Space::built(), Space::empty());
    let folder = space.link("artifacts/q4");
    fs::rename(space.path(&format!("artifacts/{folder}")), elsewhere.path("q4")).unwrap();
    symlink(elsewhere.path("q4"), space.path(&format!("artifacts/{folder}"))).unwrap();
    space.build().linked(["q4"]);
    assert!(!space.path(&format!("artifacts/{folder}")).is_symlink());
    assert!(elsewhere.path("q4/model.safetensors").exists());
}

#[test]
fn a_secret_does_not_become_a_path() {
    let mut space = Space::pico();
    space.set_variable("HF_TOKEN", "hush");
    let text = space.read("pipeline.yaml");
    for (from, to) in [
        ("source: model", "source: \"/dev/$HF_TOKEN\""),
        ("version: 1\n", "version: 1\ncache: {dir: \"c-${HF_TOKEN}\"}\n"),
    ] {
        space.write("pipeline.yaml", text.replace(from, to));
        let run = space.run(&["build"]).exits(2);
        assert!(run.stderr.contains("whose name is that of a secret"), "{}", run.transcript());
        assert!(!run.stderr.contains("hush") && space.names("").len() == 3, "{}", run.transcript());
    }
    space.set_variable("PIPELINE_SIGNING_KEY", &engine::sign::SecretKey::generate().unwrap().to_text());
    let mut command = space.command();
    use std::os::unix::ffi::OsStrExt;
    command.arg("status").arg(std::ffi::OsStr::from_bytes(b"keys\xff"));
    let run = space.finish(command.output().unwrap()).exits(2);
    assert!(!run.stderr.contains("panicked"), "{}", run.transcript());
}

#[test]
fn a_hidden_shard_is_not_read() {
    let space = Space::pico();
    fs::rename(space.path("model/model.safetensors"), space.path("model/.hidden.safetensors")).unwrap();
    let index = r#"{"weight_map": {"model.norm.weight": ".hidden.safetensors"}}"#;
    space.write("model/model.safetensors.index.json", index);
    let run = space.run(&["build"]);
    assert!(run.stderr.contains("is not the name of a file beside it"), "{}", run.transcript());
}

#[test]
fn trusting_nobody_is_not_trusting_everybody() {
    let space = Space::built();
    crate::verify::forge(&space, "q4");
    let lock = Space::built().read("pipeline.lock");
    space.write("pipeline.lock", lock).write("nobody.yaml", "{}").remove("artifacts");
    let run = space.run(&["build", "--locked", "--json", "--trusted-keys", "nobody.yaml"]).exits(0);
    assert!(run.nodes("built").contains(&"q4".to_owned()), "{}", run.transcript());
    // What contradicts the lock is not even put in place.
    let space = Space::built();
    let lock = space.read("pipeline.lock");
    crate::verify::forge(&space, "q4");
    space.write("pipeline.lock", lock).remove("artifacts");
    drop(space.run(&["build", "--locked"]).exits(1));
    assert!(!space.path("artifacts/q4").exists(), "the forgery was linked");
}

#[test]
fn the_folders_of_other_programs_are_left_alone() {
    let space = Space::pico();
    // A cargo target has the same marker, with another text, and a folder called `tmp`.
    space.write("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# cargo\n");
    space
        .write("target/tmp/run-results/a", "mine")
        .edit("version: 1\n", "version: 1\ncache: {dir: target}\n");
    for verb in ["build", "gc"] {
        drop(space.run(&[verb]).exits(2));
        assert_eq!(space.read("target/tmp/run-results/a"), "mine");
    }
    let space = Space::built();
    let old = SystemTime::now() - Duration::from_secs(9 * 86400);
    for name in ["cache/tmp/thesis.partial/a", "cache/tmp/run-results/a", "cache/tmp/new-data/a"] {
        space.write(name, "mine").set_modified(name, old);
    }
    fs::File::open(space.path("cache/tmp/thesis.partial")).unwrap().set_modified(old).unwrap();
    drop(space.run(&["gc"]).exits(0));
    drop(space.run(&["build", "--force"]).exits(0));
    assert_eq!(space.names("cache/tmp"), ["new-data", "run-results", "thesis.partial"]);
}
