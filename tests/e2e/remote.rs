//! The team's cache: what one member built, nobody builds again. Every storage passes the same tests.

use crate::bucket::Bucket;
use crate::pico::write_adapter;
use crate::space::{ALL, Run, Space};

/// A team. Each member has a folder, a cache and a signing key of their own.
pub(crate) struct Team {
    pub(crate) bucket: Bucket,
    pub(crate) keys: Vec<engine::sign::SecretKey>,
}

impl Team {
    /// A team of two members.
    pub(crate) fn on(bucket: Bucket) -> Self {
        let key = || engine::sign::SecretKey::generate().unwrap();
        Self { bucket, keys: vec![key(), key()] }
    }

    /// Gives a project the team's cache and the key of a member. All members are trusted.
    pub(crate) fn join(&self, mut space: Space, member: usize) -> Space {
        let trusted = self.keys.iter().enumerate().map(|(n, key)| format!("member{n}: \"{}\"", key.public()));
        let trusted = trusted.collect::<Vec<_>>().join(", ");
        let url = self.bucket.url();
        let cache = format!("version: 1\ncache: {{remote: \"{url}\", trusted_keys: {{{trusted}}}}}\n");
        if space.read("pipeline.yaml").starts_with("version: 1\nnodes") {
            space.edit("version: 1\n", &cache);
        }
        for (name, value) in self.bucket.variables() {
            space.set_variable(name, &value);
        }
        space.set_variable("PIPELINE_SIGNING_KEY", &self.keys[member].to_text());
        space
    }

    /// A team, and the project of its first member, built and sent.
    pub(crate) fn with_first(bucket: Bucket) -> (Self, Space) {
        let team = Self::on(bucket);
        let space = team.join(Space::pico(), 0);
        space.build().ran(ALL);
        (team, space)
    }

    /// The project of the second member after `git clone`, with nothing built.
    pub(crate) fn second(&self, first: &Space) -> Space {
        self.join(first.cloned(), 1)
    }
}

/// Returns the files of all artifacts, by path.
fn artifacts(space: &Space) -> std::collections::BTreeMap<String, Vec<u8>> {
    space.files("artifacts")
}

/// Returns how many bytes of content a command moved.
pub(crate) fn traffic(run: &Run<'_>) -> serde_json::Value {
    run.events("finished")[0]["traffic"].clone()
}

#[test]
fn what_one_member_built_nobody_builds_again() {
    for bucket in Bucket::all() {
        let (team, first) = Team::with_first(bucket);
        let second = team.second(&first);
        let run = second.build().exits(0);
        assert_eq!(run.nodes("built"), [""; 0], "{}", run.transcript());
        assert_eq!(run.nodes("fetched"), ["fused", "q4", "q8"], "{}", run.transcript());
        assert_eq!(artifacts(&second), artifacts(&first));
        assert_eq!(second.read("pipeline.lock"), first.read("pipeline.lock"));
        second.is_tidy().build().ran([]);
        assert!(second.run(&["verify", "--store"]).exits(0).stdout.ends_with(" 0 damaged\n"));
    }
}

#[test]
fn only_what_is_needed_travels() {
    for bucket in Bucket::all() {
        let (team, first) = Team::with_first(bucket);
        let second = team.second(&first);
        let run = second.build_with(&["q4"]).exits(0);
        assert_eq!((run.nodes("fetched"), run.nodes("built")), (vec!["q4".to_owned()], vec![]));
        assert_eq!(second.names("artifacts"), ["adapter", "base", "q4", &second.link("artifacts/q4")]);
        let fused = first.object("artifacts/fused/model.safetensors");
        assert!(!second.path(&fused).exists(), "the weights above were fetched too");
        // Nothing more is needed, even without the network.
        second.build_with(&["q4", "--no-remote"]).ran([]);
        // A node that reads the weights fetches them.
        second.edit("bits: 8", "bits: 5");
        let run = second.build_with(&["q8"]).exits(0);
        assert_eq!(
            (run.nodes("fetched"), run.nodes("built")),
            (vec!["fused".to_owned()], vec!["q8".to_owned()])
        );
    }
}

/// The ways to damage a stored chunk. Each returns whether the chunk is still there.
const DAMAGES: [fn(&mut Vec<u8>) -> bool; 3] = [
    |_| false,
    |bytes| {
        bytes[0] ^= 1;
        true
    },
    |bytes| {
        bytes.truncate(9);
        true
    },
];

#[test]
fn what_is_gone_or_damaged_is_built_again_with_one_warning() {
    for bucket in Bucket::all() {
        for damage in DAMAGES {
            let (team, first) = Team::with_first(Bucket::like(&bucket));
            let chunks = team.bucket.names_in("chunks/");
            for name in &chunks {
                let mut bytes = team.bucket.read(name);
                if damage(&mut bytes) { team.bucket.write(name, &bytes) } else { team.bucket.remove(name) }
            }
            let second = team.second(&first);
            let run = second.build_with(&["q4"]).exits(0);
            assert_eq!(run.nodes("built"), ["fused", "q4"], "{}", run.transcript());
            let notices = run.events("notice");
            assert_eq!(notices.len(), 2, "one for each node: {notices:?}");
            assert_eq!(
                second.bytes("artifacts/q4/model.safetensors"),
                first.bytes("artifacts/q4/model.safetensors")
            );
            // The second member's build repaired the remote.
            let third = team.second(&first);
            let run = third.build_with(&["q4"]).exits(0);
            assert_eq!(run.nodes("fetched"), ["q4"], "{}", run.transcript());
        }
    }
}

#[test]
fn two_fine_tunings_share_what_training_did_not_touch() {
    for bucket in Bucket::all() {
        let team = Team::on(bucket);
        let first = team.join(Space::of(crate::pico::SLOW), 0);
        first.build_with(&["--no-remote"]).ran(ALL);
        let whole = traffic(&first.run(&["push", "--json"]).exits(0));
        let second = team.second(&first);
        write_adapter(&second.path("lora"), crate::pico::SLOW.hidden, 1);
        let run = second.build_with(&["--no-remote"]).exits(0);
        drop(run);
        let sent = traffic(&second.run(&["push", "--json"]).exits(0));
        let bytes = |traffic: &serde_json::Value, what: &str| traffic[what].as_u64().unwrap();
        assert!(bytes(&sent, "sent") * 5 < bytes(&whole, "sent"), "{sent} of {whole}");
        // A third member has the first's artifacts, and fetches only what is new in the second's.
        let third = team.second(&first);
        drop(third.run(&["pull", "--json"]).exits(0));
        write_adapter(&third.path("lora"), crate::pico::SLOW.hidden, 1);
        let run = third.run(&["pull", "--json"]).exits(0);
        let got = traffic(&run);
        assert!(bytes(&got, "fetched") < bytes(&sent, "sent") + 1000, "{got} of {sent}");
        assert!(bytes(&got, "already_here") > 4 * bytes(&got, "fetched"), "{got}");
        assert_eq!(artifacts(&third), {
            let mut both = artifacts(&first);
            both.extend(artifacts(&second));
            both
        });
    }
}

#[test]
fn a_remote_that_is_not_there_is_one_warning() {
    let space = Space::pico();
    for url in ["s3://team/x", "file:///nowhere/at/all"] {
        let mut command = space.command();
        command
            .args(["build", "--force", "-j1", "--remote", url])
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x");
        let key = engine::sign::SecretKey::generate().unwrap();
        command.env("PIPELINE_SIGNING_KEY", key.to_text());
        let run = space.finish(command.output().unwrap()).exits(0);
        let warnings: Vec<_> =
            run.stderr.lines().filter(|line| line.contains("warning: the remote")).collect();
        assert_eq!(warnings.len(), 1, "{}", run.transcript());
    }
    let mut command = space.command();
    let key = engine::sign::SecretKey::generate().unwrap();
    command.env("PIPELINE_SIGNING_KEY", key.to_text());
    command.args(["push", "--remote", "file:///nowhere/at/all"]);
    let run = space.finish(command.output().unwrap()).exits(1);
    assert!(run.stderr.contains("is the share mounted?"), "{}", run.transcript());
    let run = space.run(&["pull"]).exits(2);
    assert!(run.stderr.contains("there is no remote"), "{}", run.transcript());
}

#[test]
fn nothing_is_sent_by_those_who_only_read() {
    let team = Team::on(Bucket::folder());
    let space = team.join(Space::pico(), 0);
    space.build_with(&["--read-only"]).ran(ALL);
    assert_eq!(team.bucket.names(), [""; 0]);
    let run = space.run(&["push", "q4"]).exits(0);
    assert_eq!(run.stdout, "4 nodes in the remote\n", "{}", run.transcript());
}
