//! What came with a checkout is not trusted: a cache that somebody else filled does not decide what is used.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::remote::Team;
use crate::space::{ALL, Space};
use crate::verify::forge;

fn git(space: &Space, args: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(space.path("")).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args);
    assert!(command.output().unwrap().status.success(), "git {args:?}");
}

/// A user of their own: what this machine made is not what another machine made.
fn elsewhere(space: &mut Space) {
    let state = space.path("other-machine");
    space.set_variable("XDG_STATE_HOME", state.to_str().unwrap());
}

#[test]
fn a_parsed_pipeline_file_that_came_with_the_checkout_is_not_used() {
    let mut space = Space::built();
    // The state of a build of another pipeline file, under the name of this one.
    let good = space.read("pipeline.yaml");
    space.edit("bits: 8", "bits: 2").build().ran(["q8"]);
    let evil = space.bytes("cache/memo");
    let name = |text: &str| artifact::Digest::of(&[&10_u32.to_le_bytes(), text.as_bytes()].concat());
    let (from, to) = (name(&space.read("pipeline.yaml")), name(&good));
    let place = evil.windows(32).position(|window| window == from.as_bytes()).unwrap();
    let mut body = evil[32..].to_vec();
    body[place - 32..place].copy_from_slice(to.as_bytes());
    let forged = [artifact::Digest::of(&body).as_bytes().as_slice(), &body].concat();
    space.write("pipeline.yaml", good).write("cache/memo", forged);
    elsewhere(&mut space);
    let run = space.run(&["status", "q8"]).exits(0);
    assert!(
        run.stdout.contains("q8     linked from the cache") || run.stdout.contains("to link"),
        "{}",
        run.stdout
    );
    drop(space.build().exits(0));
    assert!(space.read("artifacts/q8/config.json").contains("\"bits\": 8"));
}

#[test]
fn a_cache_that_git_tracks_is_refused_until_it_is_allowed() {
    let space = Space::built();
    git(&space, &["init", "-q"]);
    git(&space, &["add", "."]);
    drop(space.build().exits(0));
    assert!(space.read("cache/.gitignore") == "*\n" && space.read("artifacts/.gitignore") == "*\n");
    git(&space, &["add", "-f", "cache/actions"]);
    space.edit("bits: 8", "bits: 6");
    for verb in [&["build"][..], &["status"], &["verify", "q4"], &["gc", "-n"], &["cache", "stats"]] {
        let run = space.run(verb).exits(2);
        assert!(run.stderr.starts_with("error: git tracks cache/actions/"), "{}", run.transcript());
        assert!(run.stderr.contains("`pipeline cache allow cache`"), "{}", run.transcript());
    }
    let mut allowed = space;
    let home = allowed.path("home");
    allowed.set_variable("XDG_CONFIG_HOME", home.to_str().unwrap());
    drop(allowed.run(&["cache", "allow"]).exits(0));
    allowed.build().ran(["q8"]);
    allowed.set_variable("XDG_CONFIG_HOME", "/nowhere");
    drop(allowed.run(&["status"]).exits(2));
    let folder = allowed.path("cache");
    allowed.set_variable("PIPELINE_ALLOWED_CACHES", folder.to_str().unwrap());
    drop(allowed.run(&["status"]).exits(0));
}

#[test]
fn init_keeps_the_cache_and_the_artifacts_out_of_git() {
    let space = Space::empty();
    drop(space.run(&["init"]).exits(0));
    assert_eq!(
        (space.read("cache/.gitignore"), space.read("artifacts/.gitignore")),
        ("*\n".into(), "*\n".into())
    );
    git(&space, &["init", "-q"]);
    git(&space, &["add", "."]);
    let listed = Command::new("git").current_dir(space.path("")).args(["ls-files"]).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "pipeline.yaml\n");
}

/// A clone of the team's project with a cache that somebody put there: q4 has other weights than the recipe
/// makes, and every digest fits. Nothing is signed.
fn with_a_planted_record() -> (Team, Space, Vec<u8>) {
    let (team, first) = Team::with_first(Bucket::folder());
    let right = first.bytes("artifacts/q4/model.safetensors");
    let mut second = team.second(&first);
    drop(second.build_with(&["--no-remote"]).exits(0));
    second.remove("cache/attestations");
    second.run(&["build"]).exits(0).space();
    forge(&second, "q4");
    elsewhere(&mut second);
    second.remove("artifacts");
    (team, second, right)
}

#[test]
fn a_planted_record_is_not_used_by_a_locked_build() {
    let (_team, space, right) = with_a_planted_record();
    space.remove("pipeline.lock");
    // The lock of the attacker has the forged digest; that of the team is restored below.
    drop(space.run(&["build", "--no-remote"]).exits(0));
    assert_ne!(space.bytes("artifacts/q4/model.safetensors"), right, "the plant is good");
    let (_, first) = Team::with_first(Bucket::folder());
    space.write("pipeline.lock", first.read("pipeline.lock"));
    let run = space.run(&["build", "--locked", "--no-remote", "--json"]).exits(0);
    assert!(run.nodes("built").contains(&"q4".to_owned()), "{}", run.transcript());
    assert_eq!(space.bytes("artifacts/q4/model.safetensors"), right);
}

#[test]
fn a_planted_record_is_not_signed_by_a_push() {
    let (team, space, _) = with_a_planted_record();
    let before = team.bucket.names_in("actions/");
    let run = space.run(&["push", "q4"]).exits(1);
    assert!(run.stderr.contains("q4: warning: it was not made here"), "{}", run.transcript());
    assert!(run.stdout.contains("not signed"), "{}", run.transcript());
    assert_eq!(team.bucket.names_in("actions/"), before);
    drop(space.run(&["push", "--adopt", "q4"]).exits(0));
}

#[test]
fn whose_key_is_revoked_is_not_signed_again() {
    let (team, first) = Team::with_first(Bucket::folder());
    let second = team.second(&first);
    drop(second.build().exits(0));
    second.edit(&format!("member0: \"{}\", ", team.keys[0].public()), "");
    let run = second.run(&["status", "q4", "--no-remote"]).exits(0);
    assert!(run.stderr.contains("`q4` was made elsewhere, and it is signed by"), "{}", run.transcript());
    let bucket = Bucket::folder();
    let url = bucket.url();
    let run = second.run(&["push", "q4", "--remote", &url]).exits(1);
    assert_eq!(run.stderr.matches("it was not made here").count(), 4, "{}", run.transcript());
    assert_eq!(bucket.names(), [""; 0], "something was sent");
    // Once it was made again with the same result, it may be signed.
    drop(second.run(&["verify"]).exits(0));
    drop(second.run(&["push", "q4", "--remote", &url]).exits(0));
    assert_eq!(bucket.names_in("actions/").len(), 4);
    assert_eq!(second.run(&["status", "q4", "--no-remote"]).exits(0).stderr, "");
}

#[test]
fn whom_a_change_under_review_trusts_is_not_asked() {
    let (team, first) = Team::with_first(Bucket::folder());
    let mut second = team.second(&first);
    second.write("trusted.yaml", format!("base: \"{}\"\n", team.keys[1].public()));
    let keys = ["--trusted-keys", "trusted.yaml"];
    let run = second.build_with(&[&keys[..], &["--read-only"]].concat()).exits(0);
    assert_eq!(run.nodes("fetched"), [""; 0], "{}", run.transcript());
    assert!(run.stdout.contains("is not trusted"), "{}", run.transcript());
    second.set_variable("PIPELINE_TRUSTED_KEYS", "missing.yaml");
    let run = second.run(&["build"]).exits(2);
    assert!(run.stderr.contains("the trusted keys in missing.yaml"), "{}", run.transcript());
    second.write("missing.yaml", "PIPELINE_SIGNING_KEY=hush");
    let run = second.run(&["status"]).exits(2);
    assert!(!run.stderr.contains("hush") && run.stderr.contains("line 1"), "{}", run.transcript());
}

/// Signs every record again as a member, after a change to its statement.
pub(crate) fn restate(team: &Team, alter: impl Fn(&mut Value)) {
    for name in team.bucket.names_in("actions/") {
        let envelope = engine::sign::Envelope::parse(&team.bucket.read(&name)).unwrap();
        let mut statement: Value = serde_json::from_slice(&envelope.payload).unwrap();
        alter(&mut statement);
        let payload = statement.to_string().into_bytes();
        let kind = engine::attestation::PAYLOAD_TYPE;
        team.bucket.write(&name, &engine::sign::Envelope::seal(kind, payload, &team.keys[0]).to_json());
    }
}

#[test]
fn files_that_a_record_calls_volatile_count_too() {
    let (team, first) = Team::with_first(Bucket::folder());
    // A thief of a key adds a file to the record that the lock has. The locked digest leaves out volatile files.
    let evil = b"{% evil %}";
    let digest = artifact::Digest::of(evil);
    let text = digest.to_string();
    team.bucket.write(&format!("chunks/{}/{}", &text[..2], &text[2..]), evil);
    restate(&team, |statement| {
        let file = json!({"name": "chat_template.jinja", "digest": {"blake3": digest},
            "annotations": {"size": evil.len(), "volatile": true}});
        statement["subject"].as_array_mut().unwrap().push(file);
        let files = statement["subject"].as_array().unwrap().iter().map(|file| artifact::FileEntry {
            digest: file["digest"]["blake3"].as_str().unwrap().parse().unwrap(),
            path: file["name"].as_str().unwrap().to_owned(),
            size: file["annotations"]["size"].as_u64().unwrap(),
            volatile: file["annotations"]["volatile"].as_bool().unwrap(),
        });
        let all = artifact::Artifact::new(files.collect()).digest();
        statement["predicate"]["runDetails"]["byproducts"][0]["digest"]["blake3"] = json!(all);
    });
    let second = team.second(&first);
    let run = second.build_with(&["--locked", "--read-only", "q4"]).exits(0);
    assert_eq!(run.nodes("fetched"), [""; 0], "{}", run.transcript());
    assert!(run.stdout.contains("it marks `chat_template.jinja` as volatile"), "{}", run.transcript());
    assert!(!second.path("artifacts/q4/chat_template.jinja").exists());
}

#[test]
fn the_secret_key_is_not_in_the_process_that_builds() {
    let (_team, first) = Team::with_first(Bucket::folder());
    if !Path::new("/proc/self/environ").exists() {
        return;
    }
    first.edit("bits: 8", "bits: 3").edit("bits: 4", "bits: 2");
    let mut child = first.command().args(["build", "--no-remote"]).spawn().unwrap();
    let environment = format!("/proc/{}/environ", child.id());
    let mut seen = 0;
    while child.try_wait().unwrap().is_none() {
        // At the very start, the process is still the test's own.
        let look = || std::fs::read(&environment).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let Ok(text) = look() else { continue };
        if text.contains("XDG_STATE_HOME") && text.contains("xxxxxxxxxxxxxxx") {
            seen += 1;
            // A look may fall between two variables that are being overwritten.
            let is_there = || look().is_ok_and(|text| text.contains("ed25519-secret"));
            assert!(!text.contains("ed25519-secret") || !is_there(), "the key is in {environment}");
        }
    }
    assert!(seen > 0, "the process was never looked at");
    drop(first.run(&["verify", "--attestation", "q8"]).exits(0));
    let statement = first.files("cache/attestations");
    assert!(statement.len() >= ALL.len());
}
