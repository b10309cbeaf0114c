//! What those who did not build can check: the lock, the attestations, and what the remote keeps.

use crate::bucket::Bucket;
use crate::remote::Team;
use crate::space::{ALL, Space};
use crate::verify::forge;

/// A team whose first member sent and locked weights that the recipe does not make.
fn with_forged_weights(bucket: Bucket) -> (Team, Space) {
    let team = Team::on(bucket);
    let first = team.join(Space::pico(), 0);
    first.build_with(&["--no-remote"]).ran(ALL);
    // The statement of the honest build does not describe what is sent.
    first.remove("cache/attestations");
    forge(&first, "q4");
    drop(first.run(&["push", "--adopt", "q4"]).exits(0));
    (team, first)
}

#[test]
fn a_build_that_differs_from_the_lock_names_the_tensor() {
    for bucket in Bucket::all() {
        let (team, first) = with_forged_weights(bucket);
        let second = team.second(&first);
        // A result that a member signed and the lock has is trusted. If the node is made again, one chunk of
        // the old weights is enough to find the difference.
        drop(second.build_with(&["--locked", "q4"]).exits(0));
        let third = team.second(&first);
        let run = third.run(&["build", "--locked", "--force", "--read-only", "-j1", "q4"]).exits(1);
        assert_eq!(
            run.stderr.lines().last().unwrap(),
            "q4: failed: its artifact is [DIGEST], but pipeline.lock has [DIGEST]: `model.safetensors` differs: tensor `model.norm.weight` differs from byte 127 on"
        );
        // The same if the old weights are here.
        let run = second.run(&["build", "--locked", "--force", "--no-remote", "-j1", "q4"]).exits(1);
        assert_eq!(
            run.stderr.lines().last().unwrap(),
            "q4: failed: its artifact is [DIGEST], but pipeline.lock has [DIGEST]: `model.safetensors` differs: tensor `model.norm.weight` differs from element 63 on (byte 127)"
        );
    }
}

#[test]
fn what_is_made_again_tells_the_forger() {
    let (team, first) = with_forged_weights(Bucket::folder());
    let second = team.second(&first);
    drop(second.build().exits(0));
    let run = second.run(&["verify", "q4"]).exits(1);
    assert!(run.stdout.starts_with("q4: model.safetensors differs: tensor"), "{}", run.transcript());
    // It is also known who signed it.
    let run = second.run(&["verify", "--attestation", "q4"]).exits(0);
    let forger = team.keys[0].public().short();
    assert!(
        run.stdout.starts_with(&format!("q4: member0 ({forger}) vouches for it")),
        "{}",
        run.transcript()
    );
}

#[test]
fn an_attestation_says_who_vouches_for_what() {
    let (team, first) = Team::with_first(Bucket::folder());
    let second = team.second(&first);
    drop(second.build_with(&["q4"]).exits(0));
    let keys = [team.keys[0].public().short(), team.keys[1].public().short()];
    let said = |args: &[&str], code| {
        let run = second.run(&[&["verify", "--attestation"], args].concat()).exits(code);
        run.stdout.replace(&keys[0], "[KEY 0]").replace(&keys[1], "[KEY 1]")
    };
    insta::assert_snapshot!(said(&["base", "fused", "q4"], 0), @r"
    base: member0 ([KEY 0]) vouches for it
    fused: member0 ([KEY 0]) vouches for it
    q4: member0 ([KEY 0]) vouches for it
    3 nodes checked, 0 failed
    ");
    second.edit("bits: 8", "bits: 5");
    drop(second.build_with(&["q8"]).exits(0));
    insta::assert_snapshot!(said(&["q8"], 0), @r"
    q8: member1 ([KEY 1]) vouches for it
    1 node checked, 0 failed
    ");
    // First all statements are altered, then they are removed.
    let statements = second.files("cache/attestations");
    for (path, statement) in &statements {
        let text = String::from_utf8(statement.clone()).unwrap();
        second.write(path, text.replace("\"payload\":\"ey", "\"payload\":\"fy"));
    }
    insta::assert_snapshot!(said(&["q4"], 1), @r"
    q4: it says that [KEY 0] signed it, but the signature is not of this text: it was altered or forged
    1 node checked, 1 failed
    ");
    second.remove("cache/attestations");
    insta::assert_snapshot!(said(&["q4"], 1), @r"
    q4: nobody attested it; what is built with a signing key is, see `pipeline keys init`
    1 node checked, 1 failed
    ");
}

#[test]
fn a_lock_in_conflict_is_resolved_by_a_build() {
    let space = Space::built();
    let (before, lock) = (space.read("pipeline.lock"), space.read("pipeline.lock"));
    let (head, tail) = lock.split_once("\"fused\"").unwrap();
    // The other branch has other parameters, so each key begins with another digit.
    let mut other = String::new();
    for part in format!("\"fused\"{tail}").split_inclusive("key: ") {
        other += &if other.is_empty() {
            part.to_owned()
        } else {
            format!("{}{}", if part.starts_with('0') { '1' } else { '0' }, &part[1..])
        };
    }
    space.write(
        "pipeline.lock",
        format!("{head}<<<<<<< ours\n\"fused\"{tail}=======\n{other}>>>>>>> theirs\n"),
    );
    drop(space.run(&["build"]).exits(0));
    assert_eq!(space.read("pipeline.lock"), before);
}

#[test]
fn the_remote_is_collected_with_a_grace_period() {
    for bucket in Bucket::all() {
        let (team, first) = Team::with_first(bucket);
        first.edit("bits: 4", "bits: 3");
        drop(first.build_with(&["q4"]).exits(0));
        let all = team.bucket.names();
        // Objects within the grace period stay, whatever they are.
        let run = first.run(&["gc", "--remote", "--older-than", "0s"]).exits(0);
        assert!(run.stdout.starts_with("removed 1 record and 0 contents"), "{}", run.transcript());
        assert_eq!(team.bucket.names().len(), all.len() - 1);
        let dry = first.run(&["gc", "--remote", "--grace", "0s", "--dry-run"]).exits(0).stdout;
        let names = team.bucket.names();
        let run = first.run(&["gc", "--remote", "--grace", "0s"]).exits(0);
        assert_eq!(dry.replace("would remove", "removed"), run.stdout);
        assert!(team.bucket.names().len() < names.len(), "{}", run.transcript());
        // What is current is complete, and the rest is built.
        let second = team.second(&first);
        assert_eq!(second.build().exits(0).nodes("fetched"), ["fused", "q4", "q8"]);
        second.edit("bits: 3", "bits: 4");
        second.build_with(&["q4"]).ran(["q4"]);
        // Nothing is left to be removed.
        let run = first.run(&["gc", "--remote", "--grace", "1h"]).exits(0);
        assert!(run.stdout.starts_with("removed 0 records and 0 contents"), "{}", run.transcript());
    }
}

/// Returns the records in the remote, byte for byte.
fn records(team: &Team) -> Vec<(String, Vec<u8>)> {
    let names = team.bucket.names_in("actions/");
    names.into_iter().map(|name| (name.clone(), team.bucket.read(&name))).collect()
}

#[test]
fn what_differs_from_the_lock_is_not_sent() {
    let (team, first) = Team::with_first(Bucket::folder());
    let before = records(&team);
    let second = team.second(&first);
    let lock = second.read("pipeline.lock");
    let (head, tail) = lock.split_once("\"q4\": {key: ").unwrap();
    let (key, rest) = tail.split_once(", artifact: ").unwrap();
    let other = if rest.starts_with('0') { "1" } else { "0" };
    second.write("pipeline.lock", format!("{head}\"q4\": {{key: {key}, artifact: {other}{}", &rest[1..]));
    let run = second.build_with(&["--locked", "q4"]).exits(1);
    assert_eq!(
        (run.nodes("failed"), run.nodes("sent")),
        (vec!["q4".to_owned()], Vec::new()),
        "{}",
        run.transcript()
    );
    assert_eq!(records(&team), before);
}

#[test]
fn a_record_that_is_believed_stays_whoever_builds_it_again() {
    let (team, first) = Team::with_first(Bucket::folder());
    let before = records(&team);
    let second = team.second(&first);
    drop(second.build_with(&["--force"]).exits(0));
    assert_eq!(records(&team), before);
}

#[test]
fn what_is_here_is_told_from_what_is_not() {
    let (team, first) = Team::with_first(Bucket::folder());
    let second = team.second(&first);
    drop(second.build_with(&["q4"]).exits(0));
    let run = second.run(&["diff"]).exits(0);
    insta::assert_snapshot!(run.stdout, @r"
    base     as in the lock
    adapter  as in the lock
    fused    not built as it is now; `pipeline build` makes it
    q8       not built as it is now; `pipeline build` makes it
    q4       as in the lock
    ");
    let run = second.run(&["status", "--no-remote", "fused"]).exits(0);
    assert!(
        run.stdout.contains("must run (its files are not here, nor in a remote that was asked)"),
        "{}",
        run.stdout
    );
    let run = second.run(&["verify", "q4"]).exits(1);
    assert!(run.stdout.contains("its input `fused` is not here; `pipeline pull fused`"), "{}", run.stdout);
    drop(second.run(&["pull", "fused"]).exits(0));
    drop(second.run(&["verify", "q4"]).exits(0));
}
