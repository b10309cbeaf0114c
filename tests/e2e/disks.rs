//! Disks and machines that lack something, and caches that several people share. What they lack is imitated by
//! a library that is loaded before the program; see `tests/shims`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::faults::signal;
use crate::pico::SLOW;
use crate::space::{ALL, Space};

/// Compiles a shim; returns `None` where that is not possible, and prints why.
fn shim(name: &'static str) -> Option<PathBuf> {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    if !cfg!(target_os = "linux") {
        println!("skipped: only the dynamic linker of Linux loads tests/shims");
        return None;
    }
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let library = folder.path().join(format!("{name}-{:?}.so", std::thread::current().id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/shims/{name}.c"));
    let compile = |cc: &mut Command| {
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).arg("-ldl").output()
    };
    let Ok(output) = compile(&mut Command::new("cc")) else {
        println!("skipped: there is no C compiler for tests/shims");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

#[test]
fn a_file_system_may_lack_locks_modes_and_hard_links() {
    let Some(library) = shim("lacks") else { return };
    for (lacks, warnings) in
        [("flock", 1), ("chmod", 0), ("fsync", 0), ("hardlink", 0), ("flock,chmod,hardlink", 1)]
    {
        let space = Space::pico();
        let build = |args: &[&str]| {
            let mut command = space.command();
            command.env("LD_PRELOAD", &library).env("LACKS", lacks).args(args);
            space.finish(command.output().unwrap()).exits(0)
        };
        let run = build(&["build"]);
        assert_eq!(run.stderr.matches("has no locks").count(), warnings, "{lacks}: {}", run.transcript());
        assert_eq!(build(&["build"]).stdout, "nothing to do: 5 nodes up to date\n", "{lacks}");
        drop(build(&["verify", "--store"]));
        drop(build(&["gc"]));
        space.is_tidy().build().ran([]);
    }
}

#[test]
fn without_symbolic_links_it_is_refused_before_anything_runs() {
    let Some(library) = shim("lacks") else { return };
    let space = Space::pico();
    let mut command = space.command();
    command.env("LD_PRELOAD", &library).env("LACKS", "symlink,hardlink").arg("build");
    let run = space.finish(command.output().unwrap()).exits(1);
    assert!(run.stderr.contains("artifacts cannot hold symbolic links"), "{}", run.transcript());
    assert!(
        run.stderr.contains("hint: keep the project, or a folder that `artifacts` links to"),
        "{}",
        run.transcript()
    );
    assert!(!run.stderr.contains("running"), "{}", run.transcript());
}

#[test]
fn a_disk_that_does_not_tell_case_apart_holds_a_readme() {
    let Some(library) = shim("folds") else { return };
    let space = Space::pico();
    space.write("model/readme.md", "mine\n");
    let build = |args: &[&str]| {
        let mut command = space.command();
        let root = space.path("");
        let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
        command.env("LD_PRELOAD", &library).env("FOLDS", &root).args(["-C", &root]).args(args);
        space.finish(command.output().unwrap()).exits(0)
    };
    drop(build(&["build"]));
    assert!(space.read("artifacts/q8/README.md").contains("mine"));
    assert_eq!(build(&["build"]).stdout, "nothing to do: 5 nodes up to date\n");
}

/// Puts xfs or btrfs into a file, mounts it at `folder`, and says whether that is possible here.
fn mount(kind: &str, image: &Path, folder: &Path) -> bool {
    let run = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
    };
    let (image, folder) = (image.to_str().unwrap(), folder.to_str().unwrap());
    run(&["truncate", "-s", "400M", image])
        && run(&[&format!("mkfs.{kind}"), "-q", image])
        && run(&["mount", "-o", "loop", image, folder])
}

#[test]
fn clones_share_space_and_are_put_right_from() {
    for kind in ["xfs", "btrfs"] {
        let (space, disk) = (Space::pico(), Space::empty());
        fs::create_dir(disk.path("mnt")).unwrap();
        if !mount(kind, &disk.path("image"), &disk.path("mnt")) {
            println!("skipped: {kind} cannot be made and mounted here");
            continue;
        }
        for name in ["cache", "artifacts"] {
            fs::create_dir(disk.path("mnt").join(name)).unwrap();
        }
        symlink(disk.path("mnt/artifacts"), space.path("artifacts")).unwrap();
        space.edit(
            "version: 1\n",
            &format!("version: 1\ncache: {{dir: {}}}\n", disk.path("mnt/cache").display()),
        );
        drop(space.run(&["build"]).exits(0));
        let object = space.object("artifacts/q8/model.safetensors").replace("cache/", "mnt/cache/");
        disk.scribble(&object);
        drop(space.run(&["verify", "--store"]).exits(1));
        let run = space.run(&["build"]).exits(0);
        assert!(run.stderr.contains("put right from"), "{kind}: {}", run.transcript());
        drop(space.run(&["verify", "--store"]).exits(0));
        assert!(Command::new("umount").arg(disk.path("mnt")).status().unwrap().success());
    }
}

/// A user of the system, with a home and a project of their own, in the group of the team.
struct Member<'a> {
    id: u32,
    groups: &'static str,
    space: &'a Space,
}

impl Member<'_> {
    fn new<'a>(space: &'a Space, id: u32, groups: &'static str) -> Member<'a> {
        let member = Member { id, groups, space };
        let run = |words: &[&str]| {
            let status = Command::new(words[0]).args(&words[1..]).current_dir(space.path("")).status();
            assert!(status.unwrap().success(), "{words:?}");
        };
        run(&["cp", "-r", "project", &member.folder()]);
        run(&["chown", "-R", &format!("{id}:{id}"), &member.folder()]);
        member
    }

    fn folder(&self) -> String {
        format!("member{}", self.id)
    }

    /// Returns a command of the shell, run as this user in their project.
    fn command(&self, script: &str) -> Command {
        let mut command = self.space.command_of("setpriv");
        let id = self.id.to_string();
        command.args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--groups",
            self.groups,
            "--inh-caps=-all",
            "sh",
            "-c",
        ]);
        command.arg(format!("umask 002; {script}")).arg(self.space.path("pipeline"));
        command.current_dir(self.space.path(&self.folder()));
        let home = self.space.path(&self.folder());
        command.env("HOME", &home).env_remove("XDG_CONFIG_HOME").env("XDG_STATE_HOME", home.join("state"));
        command
    }

    fn run(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }
}

/// A folder that all users can reach, with the program, a project, and an empty cache for the group 1234.
fn shared_folder() -> Option<Space> {
    let words = ["--reuid", "1001", "--regid", "1001", "--groups", "1234", "true"];
    if !Command::new("setpriv").args(words).status().is_ok_and(|status| status.success()) {
        println!("skipped: only root can play two users, with `setpriv`");
        return None;
    }
    let (space, project) = (Space::empty(), Space::of(SLOW));
    let mode =
        |path: &str, mode| fs::set_permissions(space.path(path), PermissionsExt::from_mode(mode)).unwrap();
    mode("", 0o755);
    fs::copy(env!("CARGO_BIN_EXE_pipeline"), space.path("pipeline")).unwrap();
    for (path, bytes) in project.files("") {
        space.write(&format!("project/{path}"), bytes);
    }
    let cache = format!("version: 1\ncache: {{dir: {}}}\n", space.path("cache").display());
    space.edit_file("project/pipeline.yaml", "version: 1\n", &cache);
    fs::create_dir(space.path("cache")).unwrap();
    let owned = Command::new("chown").args(["1001:1234"]).arg(space.path("cache")).status();
    assert!(owned.unwrap().success());
    mode("cache", 0o2775);
    Some(space)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn several_people_share_a_cache() {
    let Some(space) = shared_folder() else { return };
    let (ana, ben) = (Member::new(&space, 1001, "1234"), Member::new(&space, 1002, "1234"));
    // Ana is killed in the middle of a build. What she left does not stop Ben, who may remove it.
    let mut killed = ana.command("exec \"$0\" build");
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !space.names("cache/tmp").iter().any(|name| name.starts_with("run-") && !name.ends_with("lock")) {
        assert!(killed.try_wait().unwrap().is_none(), "it ended too soon");
    }
    signal(&killed, "KILL");
    killed.wait().unwrap();
    let built = ben.run("\"$0\" build");
    assert!(built.status.success(), "{}", said(&built));
    assert_eq!(space.names("cache/tmp"), [""; 0]);
    // What Ben made, Ana need not make, and what she makes, he need not.
    let linked = ana.run("\"$0\" build --json");
    assert!(linked.status.success() && said(&linked).contains("\"ran\":[]"), "{}", said(&linked));
    let changed = ana.run(
        "sed -i s/bits:.8/bits:5/ pipeline.yaml; sed -i s/bits:5/bits:\\ 5/ pipeline.yaml; \"$0\" build",
    );
    assert!(changed.status.success(), "{}", said(&changed));
    let changed = ben.run("sed -i s/bits:.8/bits:\\ 5/ pipeline.yaml; \"$0\" build --json");
    assert!(changed.status.success() && said(&changed).contains("\"ran\":[]"), "{}", said(&changed));
    for member in [&ana, &ben] {
        let again = member.run("\"$0\" build && \"$0\" verify --store && \"$0\" gc");
        assert!(again.status.success() && said(&again).contains("nothing to do"), "{}", said(&again));
    }
    // The files follow the umask: the group may write them.
    for path in space.files("cache").keys().filter(|path| !path.contains("objects/")) {
        let mode = fs::metadata(space.path(path)).unwrap().mode();
        assert!(mode & 0o060 == 0o060, "{path} has the mode {mode:o}");
    }
}

#[test]
fn the_cache_of_another_user_is_refused_until_it_is_allowed() {
    let Some(space) = shared_folder() else { return };
    let ana = Member::new(&space, 1001, "1234");
    assert!(ana.run("\"$0\" build").status.success());
    let stranger = Member::new(&space, 1003, "1003");
    let refused = stranger.run("\"$0\" status");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("belongs to the user 1001"), "{}", said(&refused));
    let allowed = stranger.run("\"$0\" cache allow ../cache && \"$0\" status");
    assert!(
        allowed.status.success() && said(&allowed).contains("to link from the cache"),
        "{}",
        said(&allowed)
    );
    // They may read it, but not write to it.
    let build = stranger.run("\"$0\" build");
    assert_eq!(build.status.code(), Some(1), "{}", said(&build));
    assert!(
        said(&build).contains("Permission denied") && said(&build).contains("hint: "),
        "{}",
        said(&build)
    );
}

#[test]
fn a_limit_on_processes_is_an_error() {
    let Some(space) = shared_folder() else { return };
    let ana = Member::new(&space, 1001, "1234");
    let output = ana.run("ulimit -u 3; \"$0\" build -j 4");
    let said = said(&output);
    assert!(!said.contains("panicked") && !said.contains("BUG"), "{said}");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    assert!(output.status.success() || said.contains("ulimit -u"), "{said}");
    assert!(ana.run("\"$0\" build").status.success());
    assert_eq!(space.names("cache/tmp"), [""; 0]);
}

#[test]
fn only_our_own_is_deleted_or_written_through() {
    // A cache that is the project itself: nothing in it is touched.
    let space = Space::pico();
    space.write("tmp/thesis.tex", "mine").edit("version: 1\n", "version: 1\ncache: {dir: .}\n");
    let before = space.files("");
    for verb in ["build", "gc", "status"] {
        let run = space.run(&[verb]).exits(2);
        assert!(run.stderr.contains("is not a cache of pipeline"), "{}", run.transcript());
        assert_eq!(space.files(""), before);
    }
    // A link in the place of a folder of ours, and foreign names beside ours.
    let (space, victim) = (Space::built(), Space::empty());
    victim.write("run-deadab/thesis.tex", "mine").write("run-deadab.lock", "");
    space.write("cache/tmp/thesis.tex", "mine").write("cache/tmp/notes/a", "mine");
    space.write("cache/tmp/run-abcdef.lock/a", "mine");
    drop(space.run(&["build", "--force"]).exits(0));
    assert_eq!(space.names("cache/tmp"), ["notes", "run-abcdef.lock", "thesis.tex"]);
    space.remove("cache/tmp");
    symlink(victim.path(""), space.path("cache/tmp")).unwrap();
    for verb in [&["build"][..], &["build", "--force"], &["gc"], &["status"]] {
        drop(space.run(verb));
        assert_eq!(victim.read("run-deadab/thesis.tex"), "mine", "{verb:?}");
    }
    assert!(space.run(&["status"]).exits(2).stderr.contains("cache/tmp is a link"));
}

#[test]
fn a_planted_link_is_not_written_through() {
    let (team, first) = crate::remote::Team::with_first(crate::bucket::Bucket::folder());
    let victim = Space::empty();
    victim.write("secret", "mine");
    let second = team.second(&first);
    fs::create_dir_all(second.path("cache/tmp")).unwrap();
    fs::create_dir_all(second.path("cache/objects")).unwrap();
    fs::create_dir_all(second.path("cache/actions")).unwrap();
    let plant = |name: &str| symlink(victim.path("secret"), second.path(name)).unwrap();
    for file in first.files("artifacts").values() {
        let digest = artifact::Digest::of(file);
        let partial = second.path(&format!("cache/tmp/{digest}.partial"));
        if !partial.is_symlink() {
            symlink(victim.path("secret"), partial).unwrap();
        }
    }
    plant("cache/tmp/stats.lock");
    let run = second.build();
    assert_eq!(victim.read("secret"), "mine", "{}", run.transcript());
    for name in ["cache/gc.lock", "cache/stats", "cache/memo", "cache/witness"] {
        let _ = fs::remove_file(second.path(name));
        plant(name);
        let run = second.run(&["build", "--force"]).exits(2);
        assert!(run.stderr.contains(&format!("{name} is a link")), "{}", run.transcript());
        assert_eq!(victim.read("secret"), "mine");
        fs::remove_file(second.path(name)).unwrap();
    }
    let all = second.build().exits(0).space();
    assert_eq!(all.names("artifacts").len(), ALL.len() + 3);
}
