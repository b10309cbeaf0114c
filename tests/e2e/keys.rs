//! The user's own key and those that pipeline.yaml trusts: who can read what, and what is written where.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::space::Space;

const KEY_FILE: &str = "home/.config/pipeline/signing-key";

/// The public key of RFC 8032, section 7.1, test 2.
const CI: &str = "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

/// A pico project, and a home folder without a key.
fn at_home() -> Space {
    let mut space = Space::pico();
    fs::create_dir(space.path("home")).unwrap();
    let home = space.path("home");
    space.set_variable("HOME", home.to_str().unwrap());
    space
}

fn mode(space: &Space, path: &str) -> u32 {
    fs::metadata(space.path(path)).unwrap().permissions().mode() & 0o777
}

fn init(space: &Space) -> String {
    space.run(&["keys", "init"]).exits(0).stdout.lines().next().unwrap().to_owned()
}

#[test]
fn a_key_is_made_once_and_is_nobody_elses() {
    let space = at_home();
    let run = space.run(&["keys", "init"]).exits(0);
    let key = run.stdout.lines().next().unwrap().to_owned();
    insta::assert_snapshot!(run.transcript().replace(&key, "[KEY]"), @r#"
    exit 0
    stdout:
    [KEY]

    wrote the secret half to [DIR]/home/.config/pipeline/signing-key; it never leaves this machine.
    For results of yours to be believed, this goes into pipeline.yaml:

      pipeline keys trust NAME [KEY]

    or by hand:

      cache:
        trusted_keys:
          NAME: "[KEY]"
    "#);
    assert_eq!((mode(&space, KEY_FILE), mode(&space, "home/.config/pipeline")), (0o600, 0o700));
    assert_eq!(space.names("home/.config/pipeline"), ["signing-key"]);
    let secret = space.read(KEY_FILE);
    assert!(secret.starts_with("ed25519-secret:") && !run.stdout.contains(secret.trim()));
    let again = space.run(&["keys", "init"]).exits(1).transcript();
    insta::assert_snapshot!(again, @r"
    exit 1
    stderr:
    error: there is a key in [DIR]/home/.config/pipeline/signing-key already; `pipeline keys show` prints its public half
    ");
    assert_eq!(space.read(KEY_FILE), secret);
}

#[test]
fn the_configuration_folder_may_be_elsewhere() {
    let mut space = at_home();
    let folder = space.path("elsewhere");
    space.set_variable("XDG_CONFIG_HOME", folder.to_str().unwrap());
    init(&space);
    assert_eq!(mode(&space, "elsewhere/pipeline/signing-key"), 0o600);
    assert_eq!(space.names("home"), [""; 0]);
}

#[test]
fn a_key_is_shown_with_what_the_project_calls_it() {
    let space = at_home();
    insta::assert_snapshot!(space.run(&["keys", "show"]).exits(1).transcript(), @r"
    exit 1
    stderr:
    error: there is no signing key here; `pipeline keys init` makes one
    ");
    let key = init(&space);
    let shown = |args: &[&str]| space.run(args).exits(0).stdout.replace(&key, "[KEY]");
    insta::assert_snapshot!(shown(&["keys", "show"]), @r"
    [KEY]
    not trusted in pipeline.yaml; `pipeline keys trust NAME [KEY]` changes that
    ");
    let _ = space.run(&["keys", "trust", "ana", &key]).exits(0);
    insta::assert_snapshot!(shown(&["keys", "show"]), @r"
    [KEY]
    trusted in pipeline.yaml as `ana`
    ");
    assert_eq!(shown(&["keys", "show", "--json"]), "{\"key\":\"[KEY]\",\"trusted_as\":\"ana\"}\n");
    space.remove("pipeline.yaml");
    assert_eq!(shown(&["keys", "show"]), "[KEY]\n");
    assert_eq!(shown(&["keys", "show", "--json"]), "{\"key\":\"[KEY]\",\"trusted_as\":null}\n");
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let space = at_home();
    init(&space);
    fs::set_permissions(space.path(KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
    insta::assert_snapshot!(space.run(&["keys", "show"]).exits(1).transcript(), @r"
    exit 1
    stderr:
    error: others may read the secret key in [DIR]/home/.config/pipeline/signing-key; close it with: chmod 600 [DIR]/home/.config/pipeline/signing-key
    ");
}

#[test]
fn the_variable_comes_before_the_file_and_is_never_repeated() {
    let mut space = at_home();
    let file = init(&space);
    space.set_variable("PIPELINE_SIGNING_KEY", "");
    assert!(space.run(&["keys", "show"]).exits(0).stdout.starts_with(&file), "an empty one is none");
    // The secret key of RFC 8032, section 7.1, test 2.
    space.set_variable(
        "PIPELINE_SIGNING_KEY",
        "ed25519-secret:TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=\n",
    );
    assert!(space.run(&["keys", "show"]).exits(0).stdout.starts_with(CI));
    space.set_variable("PIPELINE_SIGNING_KEY", "hush");
    insta::assert_snapshot!(space.run(&["keys", "show"]).exits(1).transcript(), @r"
    exit 1
    stderr:
    error: PIPELINE_SIGNING_KEY holds no key as `pipeline keys init` writes it: a secret key begins with `ed25519-secret:`
    ");
}

#[test]
fn a_key_is_added_to_the_file_as_it_is_laid_out() {
    let space = at_home();
    space.build().ran(crate::space::ALL);
    let before = space.read("pipeline.yaml");
    let run = space.run(&["keys", "trust", "ci", CI]).exits(0);
    insta::assert_snapshot!(run.stdout, @"`ci` is trusted in pipeline.yaml; it counts for others once that is committed");
    let added = format!("version: 1\ncache:\n  trusted_keys:\n    ci: \"{CI}\"\n");
    assert_eq!(space.read("pipeline.yaml"), before.replace("version: 1\n", &added));
    space.build().ran([]);
    let again = space.run(&["keys", "trust", "ci", CI]).exits(0);
    assert_eq!(again.stdout, "`ci` is trusted in pipeline.yaml already\n");
}

#[test]
fn the_file_stays_what_it_was_but_for_its_text() {
    let space = at_home();
    fs::create_dir(space.path("real")).unwrap();
    fs::rename(space.path("pipeline.yaml"), space.path("real/file.yaml")).unwrap();
    symlink("real/file.yaml", space.path("pipeline.yaml")).unwrap();
    fs::set_permissions(space.path("real/file.yaml"), fs::Permissions::from_mode(0o664)).unwrap();
    let _ = space.run(&["keys", "trust", "ci", CI]).exits(0);
    assert!(space.path("pipeline.yaml").is_symlink());
    assert!(space.read("real/file.yaml").contains(CI));
    assert_eq!(mode(&space, "real/file.yaml"), 0o664);
    assert_eq!(space.names("real"), ["file.yaml"]);
}

#[test]
fn what_cannot_be_added_is_said_and_nothing_is_written() {
    let space = at_home();
    let refused = |args: [&str; 2]| {
        let before = space.files("");
        let said = space.run(&["keys", "trust", args[0], args[1]]).exits(2).transcript();
        assert_eq!(space.files(""), before, "something was written");
        said
    };
    insta::assert_snapshot!(refused(["ana", "ed25519-secret:hush"]), @r"
    exit 2
    stderr:
    error: KEY is no public key: this is a secret key: take it away from here; `pipeline keys show` prints the public one
    ");
    insta::assert_snapshot!(refused(["a b", CI]), @r"
    exit 2
    stderr:
    error: pipeline.yaml: `a b` cannot name a key: use letters, digits, `-`, `_`, `+`, `.` and `@`
    ");
    space.edit("version: 1\n", "version: 1\ncache: null\n");
    insta::assert_snapshot!(refused(["ana", CI]), @r#"
    exit 2
    stderr:
    error: pipeline.yaml: it is laid out in a way that only you should edit; nothing was written. Add these lines:
    cache:
      trusted_keys:
        ana: "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
    "#);
    space.edit("cache: null", "cash: {}");
    insta::assert_snapshot!(refused(["ana", CI]), @r"
    exit 2
    stderr:
    error: pipeline.yaml:2:1: unknown key `cash` in the pipeline file; did you mean `cache`?
      2 | cash: {}
        | ^
    ");
}
