//! A shared cache on a server that is slow, silent, broken or full: builds do without it, and interrupted
//! transfers are resumed.
//! Knows nothing of how long the program waits for what, only of how long a command may take in all.

use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::bucket::{self, Bucket};
use crate::kills::{Dice, seed};
use crate::pico::{PICO, SLOW, Size};
use crate::proxy::{Fault, Proxy};
use crate::remote::{Team, traffic};
use crate::space::{ALL, Run, Space};

/// How long a command may take with a silent server, with some reserve for a busy machine.
const BOUND: Duration = Duration::from_secs(45);

/// Returns the fault of a connection, by the seed and the number of the connection.
type Choice = fn(u64, usize) -> Fault;

const FAULTS: [(&str, Choice); 11] = [
    ("refuse", |_, _| Fault::Refuse),
    ("cut at once", |_, _| Fault::Cut(1)),
    ("cut later", |_, _| Fault::Cut(20_000)),
    ("500", |_, _| Fault::Status("500 Internal Server Error")),
    ("403", |_, _| Fault::Status("403 Forbidden")),
    ("busy", |_, number| if number < 2 { Fault::Status("503 Slow Down") } else { Fault::None }),
    ("stall", |_, _| Fault::Freeze(0)),
    ("freeze", |_, _| Fault::Freeze(20_000)),
    ("truncate", |_, _| Fault::Truncate),
    ("slow", |_, _| Fault::Slow(1600)),
    ("mixture", mixture),
];

/// Breaks three of ten connections, each in its own way.
fn mixture(seed: u64, number: usize) -> Fault {
    let mut dice = Dice(seed ^ (number as u64) << 32);
    if dice.share() > 0.3 {
        return Fault::None;
    }
    match dice.roll() % 6 {
        0 => Fault::Refuse,
        1 => Fault::Cut(dice.roll() % 30_000),
        2 => Fault::Status("500 Internal Server Error"),
        3 => Fault::Status("503 Slow Down"),
        4 => Fault::Truncate,
        _ => Fault::Slow(2000),
    }
}

/// Connects a space to the server through a proxy.
fn through(space: &mut Space, choose: impl FnMut(usize) -> Fault + Send + 'static) -> Proxy {
    let proxy = Proxy::to(bucket::server().s3, choose);
    space.set_variable("AWS_ENDPOINT_URL", &proxy.endpoint());
    proxy
}

/// Connects a space to the server directly from now on.
fn directly(space: &mut Space) {
    space.set_variable("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", bucket::server().s3));
}

/// One fault, a team whose remote has everything, and the project of its first member.
struct Case<'t> {
    name: &'static str,
    choose: Choice,
    seed: u64,
    full: &'t Team,
    first: &'t Space,
}

impl Case<'_> {
    /// Runs a command with the fault, and checks that it ends within the bound.
    fn run<'s>(&self, space: &'s mut Space, args: &[&str]) -> Run<'s> {
        let (choose, seed) = (self.choose, self.seed);
        let _proxy = through(space, move |number| choose(seed, number));
        let begin = Instant::now();
        let run = space.run(args);
        let (name, took) = (self.name, begin.elapsed());
        assert!(took < BOUND, "{name}: `{}` took {took:?}: {}", args[0], run.transcript());
        run
    }

    /// Checks a build that could fetch everything, and one that could send everything.
    fn build(&self) {
        let mut fetching = self.full.second(self.first);
        let empty = Team::on(Bucket::s3());
        let mut sending = empty.join(self.first.cloned(), 0);
        sending.set_variable("PIPELINE_REMOTE", &empty.bucket.url());
        for space in [&mut fetching, &mut sending] {
            let run = self.run(space, &["build", "--json"]).exits(0);
            let warnings = run.events("notice").len();
            assert!(warnings <= 1, "{}: {}", self.name, run.transcript());
            assert_eq!(space.files("artifacts"), self.first.files("artifacts"), "{}", self.name);
            assert_eq!(space.read("pipeline.lock"), self.first.read("pipeline.lock"), "{}", self.name);
        }
    }

    /// Checks that the next pull fetches what this one could not.
    fn pull(&self) {
        let mut space = self.full.second(self.first);
        let code = self.run(&mut space, &["pull", "--json"]).code();
        assert!(matches!(code, Some(0 | 1)), "{}: {code:?}", self.name);
        directly(&mut space);
        drop(space.run(&["pull", "--json"]).exits(0));
        assert_eq!(space.files("artifacts"), self.first.files("artifacts"), "{}", self.name);
    }

    /// Checks that the next push sends what this one could not, and that others can then fetch it.
    fn push(&self) {
        let team = Team::on(Bucket::s3());
        let mut space = team.join(self.first.cloned(), 0);
        space.set_variable("PIPELINE_REMOTE", &team.bucket.url());
        space.build_with(&["--no-remote"]).ran(ALL);
        let code = self.run(&mut space, &["push", "--json"]).code();
        assert!(matches!(code, Some(0 | 1)), "{}: {code:?}", self.name);
        directly(&mut space);
        drop(space.run(&["push", "--json"]).exits(0));
        let mut other = team.join(self.first.cloned(), 0);
        other.set_variable("PIPELINE_REMOTE", &team.bucket.url());
        let run = other.run(&["pull", "--json"]).exits(0);
        assert_eq!(other.files("artifacts"), self.first.files("artifacts"), "{}", run.transcript());
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn whatever_ails_the_server_no_build_fails() {
    let seed = seed();
    let (full, first) = Team::with_first(Bucket::s3());
    let cases = FAULTS.map(|(name, choose)| Case { name, choose, seed, full: &full, first: &first });
    thread::scope(|scope| {
        for case in &cases {
            for part in [Case::build, Case::pull, Case::push] {
                scope.spawn(move || part(case));
            }
        }
    });
    eprintln!("{} faults of the server, 4 commands under each, 0 builds failed", cases.len());
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_pull_that_broke_off_fetches_only_the_rest() {
    let team = Team::on(Bucket::s3());
    let first = team.join(Space::of(SLOW), 0);
    first.build().ran(ALL);
    let fetched = |run: &Run<'_>| traffic(run)["fetched"].as_u64().unwrap();
    let whole = fetched(&team.second(&first).run(&["pull", "--json"]).exits(0));
    let mut space = team.second(&first);
    let proxy = through(&mut space, |_| Fault::None);
    proxy.limit_down(whole / 2);
    drop(space.run(&["pull", "--json"]).exits(1));
    let before = proxy.down();
    proxy.limit_down(u64::MAX);
    let run = space.run(&["pull", "--json"]).exits(0);
    let (rest, again) = (fetched(&run), proxy.down() - before);
    eprintln!("a pull cut off half-way fetched {rest} of {whole} bytes the second time");
    assert!(rest < whole * 3 / 4, "{rest} of {whole} after half of it: {}", run.transcript());
    assert!(again < rest + whole / 20, "{again} bytes came to fetch {rest}");
    assert_eq!(space.files("artifacts"), first.files("artifacts"));
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_push_that_broke_off_sends_only_the_rest() {
    let team = Team::on(Bucket::s3());
    let mut space = team.join(Space::of(SLOW), 0);
    space.build_with(&["--no-remote"]).ran(ALL);
    let sent = |run: &Run<'_>| traffic(run)["sent"].as_u64().unwrap();
    let other = Bucket::s3();
    let whole = sent(&space.run(&["push", "--json", "--remote", &other.url()]).exits(0));
    let proxy = through(&mut space, |_| Fault::None);
    proxy.limit_up(whole / 2);
    drop(space.run(&["push", "--json"]).exits(1));
    let before = proxy.up();
    proxy.limit_up(u64::MAX);
    let run = space.run(&["push", "--json"]).exits(0);
    let (rest, again) = (sent(&run), proxy.up() - before);
    eprintln!("a push cut off half-way sent {rest} of {whole} bytes the second time");
    assert!(rest < whole * 3 / 4, "{rest} of {whole} after half of it: {}", run.transcript());
    assert!(again < rest + whole / 20, "{again} bytes went to send {rest}");
    let second = team.second(&space);
    drop(second.run(&["pull", "--json"]).exits(0));
    assert_eq!(second.files("artifacts"), space.files("artifacts"));
}

/// Runs `pipeline` with a file system of `size` mounted at `folder`. Returns `None` where none may be
/// mounted.
fn with_small_disk(space: &Space, folder: &str, size: &str, args: &str) -> Option<Output> {
    let may_mount =
        space.command_of("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "model"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={size} none '{folder}' && \"$0\" {args}; code=$?; ls cache/tmp; exit $code"
    );
    let pipeline = env!("CARGO_BIN_EXE_pipeline");
    Some(space.command_of("unshare").args(["-rm", "sh", "-c", &script, pipeline]).output().unwrap())
}

/// Runs a pull with a small file system for the cache or, where none may be mounted, with the shell's limit
/// on the size of a file.
fn pull_without_room(space: &Space) -> Output {
    let limited = || {
        let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" pull";
        let pipeline = env!("CARGO_BIN_EXE_pipeline");
        space.command_of("sh").args(["-c", limited, pipeline]).output().unwrap()
    };
    with_small_disk(space, "cache", "300k", "pull").unwrap_or_else(limited)
}

#[test]
fn a_full_disk_stops_a_pull_and_says_which_file() {
    let team = Team::on(Bucket::folder());
    let first = team.join(Space::of(Size { hidden: 256, ..PICO }), 0);
    first.build().ran(ALL);
    let second = team.second(&first);
    std::fs::create_dir(second.path("cache")).unwrap();
    let run = second.finish(pull_without_room(&second)).exits(1);
    let said = &run.stderr;
    assert!(said.contains("fused: failed: ") && said.contains("write "), "{}", run.transcript());
    assert!(said.contains("model.safetensors"), "which file? {said}");
    assert!(said.contains("hint: free some space and "), "what to do? {said}");
    assert!(!run.stdout.contains("run-"), "left in cache/tmp: {}", run.stdout);
    drop(second.run(&["pull"]).exits(0));
    assert_eq!(second.files("artifacts"), first.files("artifacts"));
    second.build().ran([]);
}

#[test]
fn a_remote_that_is_full_is_one_warning() {
    let team = Team::on(Bucket::folder());
    let space = team.join(Space::of(Size { hidden: 256, ..PICO }), 0);
    let Bucket::Folder(folder) = &team.bucket else { unreachable!() };
    let folder = folder.path().to_str().unwrap();
    let Some(output) = with_small_disk(&space, folder, "300k", "build") else { return };
    let run = space.finish(output).exits(0);
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{}", run.transcript());
    assert!(warnings[0].contains("`pipeline push` sends it later"), "{}", run.transcript());
    // With enough room, `push` does send it, and others can fetch it.
    drop(space.is_tidy().run(&["push"]).exits(0));
    let second = team.second(&space);
    assert_eq!(second.build().exits(0).nodes("built"), [""; 0]);
    assert_eq!(second.files("artifacts"), space.files("artifacts"));
}
