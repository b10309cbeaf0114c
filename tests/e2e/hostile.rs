//! A shared cache that somebody else can write to: what they put there is refused, the node is built here,
//! and nothing is written outside the artifact's folder.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::remote::Team;
use crate::space::{ALL, Space};
use engine::attestation::PAYLOAD_TYPE;
use engine::sign::{Envelope, SecretKey};

/// Somebody who can write to the storage, and the keys that they have.
struct Attack {
    team: Team,
    first: Space,
}

impl Attack {
    fn new() -> Self {
        let (team, first) = Team::with_first(Bucket::folder());
        Self { team, first }
    }

    /// Replaces the bytes of everything below `folder`.
    fn replace(&self, folder: &str, with: impl Fn(&str, Vec<u8>) -> Vec<u8>) {
        let names = self.team.bucket.names_in(folder);
        assert!(!names.is_empty());
        for name in names {
            let bytes = self.team.bucket.read(&name);
            self.team.bucket.write(&name, &with(&name, bytes));
        }
    }

    /// Alters the statements of all records, and signs them with a member's key. That is the worst that a
    /// member, or a thief of their key, can do.
    fn restate(&self, alter: impl Fn(&mut Value)) {
        self.replace("actions/", |_, bytes| {
            let mut statement = statement(&bytes);
            alter(&mut statement);
            Envelope::seal(PAYLOAD_TYPE, statement.to_string().into_bytes(), &self.team.keys[0]).to_json()
        });
    }

    /// Checks that the second member builds the nodes, gets the same artifacts as the first, and is told why.
    #[track_caller]
    fn is_refused(&self, why: &str) {
        let second = self.team.second(&self.first);
        let before = outside(&second);
        let run = second.build_with(&["--read-only"]).exits(0);
        assert_eq!(run.nodes("fetched"), [""; 0], "{}", run.transcript());
        assert!(run.nodes("built").contains(&"q4".to_owned()), "{}", run.transcript());
        let notices: Vec<_> =
            run.events("notice").iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect();
        assert!(notices.iter().any(|notice| notice.contains(why)), "`{why}` is not said: {notices:#?}");
        assert_eq!(second.files("artifacts"), self.first.files("artifacts"));
        assert_eq!(outside(&second), before, "something outside of the cache was written");
        second.is_tidy();
    }
}

fn statement(record: &[u8]) -> Value {
    serde_json::from_slice(&Envelope::parse(record).unwrap().payload).unwrap()
}

/// All files but those of the cache, the artifacts and the lock.
fn outside(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let mut files = space.files("");
    files.retain(|path, _| {
        !path.starts_with("cache/") && !path.starts_with("artifacts/") && path != "pipeline.lock"
    });
    files
}

#[test]
fn what_nobody_signed() {
    let attack = Attack::new();
    attack.replace("actions/", |_, bytes| {
        let mut envelope: Value = serde_json::from_slice(&bytes).unwrap();
        envelope["signatures"] = json!([]);
        envelope.to_string().into_bytes()
    });
    attack.is_refused("nobody signed it");
}

#[test]
fn what_a_stranger_signed() {
    let attack = Attack::new();
    let stranger = SecretKey::generate().unwrap();
    attack.replace("actions/", |_, bytes| {
        Envelope::seal(PAYLOAD_TYPE, Envelope::parse(&bytes).unwrap().payload, &stranger).to_json()
    });
    attack.is_refused(&format!("it is signed by {}, who is not trusted", stranger.public()));
}

#[test]
fn what_was_altered_after_it_was_signed() {
    let attack = Attack::new();
    attack.replace("actions/", |_, bytes| {
        let mut envelope = Envelope::parse(&bytes).unwrap();
        let text = String::from_utf8(envelope.payload).unwrap();
        envelope.payload = text.replace("\"size\":", "\"size\":1").into_bytes();
        envelope.to_json()
    });
    attack.is_refused("altered or forged");
}

#[test]
fn paths_that_lead_out() {
    for path in ["../../../evil", "/tmp/evil", "a/../../evil", "config.json/../../evil"] {
        let attack = Attack::new();
        attack.restate(|statement| statement["subject"][0]["name"] = json!(path));
        attack.is_refused("not a relative path");
    }
}

#[test]
fn a_file_that_is_the_folder_of_another() {
    let attack = Attack::new();
    attack.restate(|statement| {
        let first = statement["subject"][0]["name"].as_str().unwrap().to_owned();
        let mut inside = statement["subject"][0].clone();
        inside["name"] = json!(format!("{first}/inside"));
        statement["subject"].as_array_mut().unwrap().push(inside);
    });
    attack.is_refused("as the folder of another");
}

#[test]
fn the_record_of_another_action() {
    let attack = Attack::new();
    let names = attack.team.bucket.names_in("actions/");
    let records: Vec<_> = names.iter().map(|name| attack.team.bucket.read(name)).collect();
    // Each action gets the record of the next one.
    attack.replace("actions/", |name, _| {
        let next = names.iter().position(|other| other == name).unwrap() + 1;
        records[next % names.len()].clone()
    });
    attack.is_refused("it is the record of [DIGEST]");
}

#[test]
fn an_older_record_than_the_lock() {
    let attack = Attack::new();
    // The same recipe once gave another result, signed by a member. That record is replayed in place of the
    // right one.
    attack.restate(|statement| {
        statement["subject"][0]["digest"]["blake3"] = json!("0".repeat(64));
        statement["predicate"]["runDetails"]["metadata"]["finishedOn"] = json!("2020-01-02T03:04:05Z");
        restate_artifact(statement);
    });
    attack.is_refused("; the record is older than the lock: it was signed at 2020-01-02T03:04:05Z");
}

#[test]
fn sizes_that_are_wrong() {
    let attack = Attack::new();
    attack.first.remove("pipeline.lock");
    attack.restate(|statement| {
        for file in statement["subject"].as_array_mut().unwrap() {
            file["annotations"]["size"] = json!(file["annotations"]["size"].as_u64().unwrap() + 1);
        }
        restate_artifact(statement);
    });
    attack.is_refused("the remote does not have");
}

/// Computes again the digest that a statement gives for all its files together.
fn restate_artifact(statement: &mut Value) {
    let files = statement["subject"].as_array().unwrap().iter().map(|file| artifact::FileEntry {
        digest: file["digest"]["blake3"].as_str().unwrap().parse().unwrap(),
        path: file["name"].as_str().unwrap().to_owned(),
        size: file["annotations"]["size"].as_u64().unwrap(),
        volatile: file["annotations"]["volatile"].as_bool().unwrap(),
    });
    let digest = artifact::Artifact::new(files.collect()).digest();
    statement["predicate"]["runDetails"]["byproducts"][0]["digest"]["blake3"] = json!(digest);
}

#[test]
fn more_bytes_than_were_said() {
    let attack = Attack::new();
    attack.replace("chunks/", |_, bytes| [bytes, vec![0; 1 << 20]].concat());
    attack.is_refused("bytes instead of");
}

#[test]
fn a_zstd_bomb() {
    let attack = Attack::new();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    // It is short enough to pass for a chunk of weights.
    assert!(bomb.len() < 8000);
    attack.replace("chunks/", |_, bytes| if bytes.len() > bomb.len() { bomb.clone() } else { bytes });
    attack.is_refused("is damaged");
}

/// Turns a list of chunks into a false one.
type Lie = fn(&[u8]) -> Vec<u8>;

#[test]
fn lists_of_chunks_that_lie() {
    let lies: [Lie; 4] = [
        |_| b"[[\"../../x\", 1]]".to_vec(),
        |_| b"[".repeat(100_000),
        |list| String::from_utf8(list.to_vec()).unwrap().replacen(",", ",1", 1).into_bytes(),
        |list| {
            let mut chunks: Vec<Value> = serde_json::from_slice(list).unwrap();
            chunks.reverse();
            json!(chunks).to_string().into_bytes()
        },
    ];
    for lie in lies {
        let attack = Attack::new();
        attack.replace("files/", |_, bytes| lie(&bytes));
        attack.is_refused("the remote does not have `model.safetensors` as its record says");
    }
}

#[test]
fn links_in_a_shared_folder() {
    let attack = Attack::new();
    let secret = attack.first.path("model/config.json");
    let Bucket::Folder(folder) = &attack.team.bucket else { unreachable!() };
    for name in attack.team.bucket.names_in("chunks/") {
        let path = folder.path().join(name);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, path).unwrap();
    }
    attack.is_refused("the remote does not have");
    // A link in the place of an object is replaced; the file that it points at is not written.
    let before = std::fs::read(&secret).unwrap();
    let second = attack.team.second(&attack.first);
    drop(second.build().exits(0));
    assert_eq!(std::fs::read(&secret).unwrap(), before);
    assert_eq!(attack.team.second(&attack.first).build().exits(0).nodes("fetched"), ["fused", "q4", "q8"]);
}

#[test]
fn garbage_is_no_record() {
    for garbage in [&b""[..], b"{}", b"null", &[0xff; 100], &b"[".repeat(1_000_000)] {
        let attack = Attack::new();
        attack.replace("actions/", |_, _| garbage.to_vec());
        attack.is_refused("it is not a DSSE envelope");
    }
}

#[test]
fn who_is_not_trusted_any_more() {
    let attack = Attack::new();
    let fired = attack.team.keys[0].public();
    let second = attack.team.second(&attack.first);
    second.edit(&format!("member0: \"{fired}\", "), "");
    second.build_with(&["--read-only"]).ran(ALL);
}
