//! Sources on the Hugging Face hub: what a build requests and when, and what it makes of that. The hub is
//! that of `server.rs`, on loopback.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::server::{REPO, Server, git_sha1};
use crate::space::{ALL, Space};

const SOURCE: &str = "source: model";

/// A hub with one commit on `main`, a project whose base is on it, and that commit.
pub(crate) fn hub() -> (Server, Space, String) {
    let (server, mut space) = (Server::start(), Space::pico());
    let commit = server.commit("main", model(&space));
    space.remove("model");
    space.edit(SOURCE, &format!("source: 'hf:{REPO}'"));
    space.set_variable("HF_ENDPOINT", &server.endpoint());
    space.set_variable("HF_HOME", space.path("home").to_str().unwrap());
    (server, space, commit)
}

/// The files of the pico model, and files that a repository has beside them.
fn model(space: &Space) -> BTreeMap<String, Vec<u8>> {
    let files = space.files("model").into_iter();
    let mut files: BTreeMap<_, _> =
        files.map(|(path, bytes)| (path.strip_prefix("model/").unwrap().to_owned(), bytes)).collect();
    files.insert(".gitattributes".to_owned(), b"*.safetensors filter=lfs".to_vec());
    files.insert("pytorch_model.bin".to_owned(), b"the same in another format".to_vec());
    files.insert("docs/read me #1.txt".to_owned(), b"Hello.\n".to_vec());
    files
}

/// The folder with the files of a commit.
fn snapshot(commit: &str) -> String {
    format!("home/hub/models--org--pico/snapshots/{commit}")
}

#[test]
fn an_ordinary_build() {
    let (server, space, commit) = hub();
    let _ = space.build().ran(ALL);
    let snapshot = space.path(&snapshot(&commit));
    assert_eq!(fs::read_link(space.path("artifacts/base")).unwrap(), snapshot);
    let lock = space.read("pipeline.lock");
    let line = lock.lines().find(|line| line.starts_with("\"base\"")).unwrap();
    let pin = format!(", commit: {commit}, source: \"hf:{REPO}@main\"}}");
    assert!(line.ends_with(&pin), "{line}");
    assert_eq!(lock.matches("commit:").count(), 1, "{lock}");
    // The card of a model says what it was made from.
    let card = space.read("artifacts/q4/README.md");
    assert!(card.contains(&format!("base_model: {REPO}\n")), "{card}");
    assert!(card.contains(&format!("base_model_revision: {commit}\n")), "{card}");

    // Only files of the model are requested, each once, by its commit.
    let asked = server.requests();
    let info = |revision: &str| format!("/api/models/{REPO}/revision/{revision}?blobs=true");
    let file = |name: &str| format!("/{REPO}/resolve/{commit}/{name}");
    let files = ["LICENSE", "config.json", "docs/read%20me%20%231.txt", "model.safetensors"];
    let mut expected = vec![info("main"), info(&commit)];
    expected.extend(files.map(file));
    expected.push(asked[6].clone());
    expected.push(file("tokenizer.json"));
    assert!(asked[6].starts_with("/cdn/"), "{asked:?}");
    assert_eq!(asked, expected);
}

#[test]
fn the_cache_is_that_of_the_python_library() {
    let (server, space, commit) = hub();
    let license = server.state().commits[&commit]["LICENSE"].clone();
    // This is what `huggingface_hub` leaves when the user has downloaded the licence.
    let etag = git_sha1(&license);
    space.write(&format!("home/hub/models--org--pico/blobs/{etag}"), &license);
    let _ = space.build().ran(ALL);
    assert_eq!(server.requests().iter().filter(|path| path.contains("LICENSE")).count(), 0);
    let target = fs::read_link(space.path(&format!("{}/LICENSE", snapshot(&commit)))).unwrap();
    assert_eq!(target.to_str().unwrap(), format!("../../blobs/{etag}"));
    let deep = fs::read_link(space.path(&format!("{}/docs/read me #1.txt", snapshot(&commit)))).unwrap();
    assert!(deep.starts_with("../../../blobs"), "{deep:?}");
    assert_eq!(space.read("home/hub/models--org--pico/refs/main"), commit);
}

#[test]
fn a_build_with_nothing_to_do_asks_nobody() {
    let (server, space, commit) = hub();
    let _ = space.build().ran(ALL);
    server.requests();
    space.build().ran([]);
    let _ = space.run(&["status"]).exits(0);
    let _ = space.run(&["build", "--locked"]).exits(0);
    // Nor if the build answers from `cache/witness`, which the last build left.
    space.settle();
    assert_eq!(space.run(&["build"]).exits(0).stdout, "nothing to do: 5 nodes up to date\n");
    // Nor if `cache/memo` is lost, nor if the files are gone but not needed.
    space.remove("cache/memo").build().ran([]);
    space.remove("home").build().ran([]);
    let status = space.run(&["status"]).exits(0);
    assert!(
        status.stdout.contains("up to date (file LICENSE is gone from the hub's cache"),
        "{}",
        status.stdout
    );
    assert_eq!(server.requests(), [""; 0]);

    // A node that must run needs the files; `q4` needs them to measure what is left of the fine-tuning. They
    // are also needed if the base is named as a target.
    space.edit("bits: 4", "bits: 6").build().ran(["base", "q4"]);
    assert!(server.requests().len() > 2);
    space.remove("home").edit("adapter: adapter}", "adapter: adapter, dtype: float32}");
    let run = space.run(&["build", "-n"]).exits(0);
    assert!(run.stdout.contains("base     must run (file LICENSE is gone"), "{}", run.stdout);
    space.build().ran(["base", "fused", "q4", "q8"]);
    assert!(server.requests().len() > 2);
    space.remove("home").run(&["build", "--json", "base"]).ran(["base"]);
    assert!(space.path(&snapshot(&commit)).join("config.json").exists());
}

#[test]
fn a_damaged_file_in_the_cache_is_downloaded_again() {
    let (server, space, commit) = hub();
    let _ = space.build().ran(ALL);
    let path = space.path(&format!("{}/model.safetensors", snapshot(&commit)));
    let (whole, blob) = (fs::read(&path).unwrap(), fs::canonicalize(&path).unwrap());
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&blob, damaged).unwrap();
    server.requests();
    space.edit("adapter: adapter}", "adapter: adapter, dtype: float32}");
    space.build().ran(["base", "fused", "q4", "q8"]);
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(server.requests().len(), 3, "the list, and one file with its redirect");
}

#[test]
fn a_build_stays_where_the_lock_is_until_it_is_told_to_move() {
    let (server, space, first) = hub();
    let _ = space.build().ran(ALL);
    let mut files = server.state().commits[&first].clone();
    files.insert("LICENSE".to_owned(), b"Ask first.\n".to_vec());
    let second = server.commit("main", files);
    server.requests();
    space.build().ran([]);
    // A fresh clone with the lock gets the same commit. It sends no request if the files are those of the
    // lock.
    space.remove("cache").remove("artifacts").build().ran(ALL);
    assert_eq!(server.requests(), [""; 0]);
    space.remove("cache").remove("artifacts").remove("home").build().ran(ALL);
    assert!(server.requests()[0].contains(&format!("/revision/{first}?")));
    assert!(space.read("pipeline.lock").contains(&first));

    space.build_with(&["--update"]).ran(["base", "fused", "q4", "q8"]);
    assert!(space.read("pipeline.lock").contains(&format!("commit: {second}")));
    assert_eq!(space.read("artifacts/q4/LICENSE"), "Ask first.\n");
    server.requests();
    space.build_with(&["--update"]).ran([]);
    assert_eq!(server.requests().len(), 1, "to look again is one request");
    assert!(space.run(&["build", "--update", "--locked"]).exits(2).stderr.contains("cannot be used with"));
}

#[test]
fn another_revision_in_the_pipeline_file_is_resolved_anew() {
    let (server, space, first) = hub();
    let second = server.commit("next", model_with(&server, &first, "LICENSE", b"Ask first.\n"));
    let _ = space.build().ran(ALL);
    server.requests();
    space.edit(&format!("hf:{REPO}"), &format!("hf:{REPO}@next"));
    insta::assert_snapshot!(space.run(&["status"]).exits(0).stdout, @r"
    base     must run (revision next of org/pico is not resolved yet: a build asks the hub)
    adapter  up to date
    fused    waits for base
    q8       waits for fused
    q4       waits for fused
    1 to run, 3 waiting for an input
    ");
    let run = space.run(&["build", "--locked"]).exits(1);
    insta::assert_snapshot!(run.stderr, @r"
    error: pipeline.yaml:3:31: node `base`: pipeline.lock has no commit of `hf:org/pico@next`; build without --locked and commit the lock
    ");
    assert_eq!(server.requests(), [""; 0]);
    space.build().ran(["base", "fused", "q4", "q8"]);
    assert!(space.read("pipeline.lock").contains(&second));

    // A full commit needs no request, and it is the one that the model came from before.
    space.edit("@next", &format!("@{first}"));
    insta::assert_snapshot!(space.run(&["why", "base"]).exits(0).stdout, @r"
    base: made before; it is linked from the cache
      origin: org/pico@[DIGEST] -> org/pico@[DIGEST]
    ");
    space.build().linked(["base", "fused", "q4", "q8"]);
}

fn model_with(server: &Server, commit: &str, name: &str, bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = server.state().commits[commit].clone();
    files.insert(name.to_owned(), bytes.to_vec());
    files
}

#[test]
fn looking_never_asks() {
    let (server, space, commit) = hub();
    insta::assert_snapshot!(space.run(&["status"]).exits(0).stdout, @r"
    base     must run (revision main of org/pico is not resolved yet: a build asks the hub)
    adapter  must run (it was never built here)
    fused    waits for base, adapter (it was never built here)
    q8       waits for fused (it was never built here)
    q4       waits for fused (it was never built here)
    2 to run, 3 waiting for an input
    ");
    space.edit(&format!("hf:{REPO}"), &format!("hf:{REPO}@{commit}"));
    insta::assert_snapshot!(space.run(&["why", "base"]).exits(0).stdout, @r"
    base: must run
      org/pico@[DIGEST] was never downloaded
    ");
    for verb in [&["build", "-n"][..], &["status"], &["graph"], &["why", "q4"], &["build", "-n", "--force"]] {
        let _ = space.run(verb).exits(0);
    }
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(space.names("home"), [""; 0]);
}

#[test]
fn an_adapter_may_be_on_the_hub_too() {
    let (server, mut space) = (Server::start(), Space::pico());
    let files = space.files("lora").into_iter();
    let files = files.map(|(path, bytes)| (path.strip_prefix("lora/").unwrap().to_owned(), bytes)).collect();
    let commit = server.commit("v1/final", files);
    space.edit("source: lora", &format!("source: 'hf:{REPO}@v1/final'"));
    space.set_variable("HF_ENDPOINT", &server.endpoint());
    space.set_variable("HF_HUB_CACHE", space.path("elsewhere").to_str().unwrap());
    let _ = space.build().ran(ALL);
    assert!(server.requests()[0].contains("/revision/v1%2Ffinal?"));
    let snapshot = space.path(&format!("elsewhere/models--org--pico/snapshots/{commit}"));
    assert_eq!(fs::read_link(space.path("artifacts/adapter")).unwrap(), snapshot);
}

#[test]
fn weights_know_the_commit_they_descend_from() {
    let (server, space, first) = hub();
    let _ = space.build().ran(ALL);
    let origins = |space: &Space| -> BTreeMap<String, String> {
        let actions = space.files("cache/actions").into_values();
        let recipes = actions.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap()["recipe"].clone());
        let origin = |recipe: &Value| {
            let stage = recipe["stage"]["stage"].as_str().unwrap().to_owned();
            Some((stage, format!("{}@{}", recipe["origin"]["repo"], recipe["origin"]["commit"])))
        };
        recipes.filter(|recipe| recipe.get("origin").is_some()).filter_map(|recipe| origin(&recipe)).collect()
    };
    let origin = format!("\"{REPO}\"@\"{first}\"");
    let expected = ["base", "fuse", "quantize"].map(|stage| (stage.to_owned(), origin.clone()));
    assert_eq!(origins(&space), BTreeMap::from(expected));

    // A commit that changes no file still makes the weights again, because their origin is written beside
    // them.
    let same = server.state().commits[&first].clone();
    let second = server.commit("main", same);
    space.edit(&format!("hf:{REPO}"), &format!("hf:{REPO}@{second}"));
    let why = space.run(&["why", "q4"]).exits(0).stdout;
    assert!(why.contains("waits for fused\n  origin: org/pico@[DIGEST] -> org/pico@[DIGEST]\n"), "{why}");
    space.build().ran(["base", "fused", "q4", "q8"]);
    // Folders have no origin.
    assert_eq!(origins(Space::pico().build().ran(ALL)), BTreeMap::new());
}

#[test]
fn other_files_in_the_shared_cache_change_nothing() {
    let (_server, space, commit) = hub();
    let _ = space.build().ran(ALL);
    let lock = space.read("pipeline.lock");
    // Another program downloads a file that we leave out.
    space.write(&format!("{}/pytorch_model.bin", snapshot(&commit)), "the same in another format");
    space.build().ran([]);
    space.remove("cache").remove("artifacts").build().ran(ALL);
    assert_eq!(space.read("pipeline.lock"), lock);
    assert!(!space.names("artifacts/q4").contains(&"pytorch_model.bin".to_owned()));
}
