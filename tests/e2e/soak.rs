//! Inputs, caches and storages that were changed at random: nothing panics, nothing hangs, nothing is lost, and
//! nothing is believed that was not made or signed. Full disks, too.
//! A run of `make test` has a few of each; `make soak` has thousands, and its figures are in the README.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::kills::{Dice, copy, seed};
use crate::remote::Team;
use crate::space::{ALL, Space};

/// The environment variable that asks for the large numbers.
const VARIABLE: &str = "PIPELINE_SOAK";

/// How long a command may take. The longest takes a tenth of a second.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether this is a run of `make soak`.
pub(crate) fn is_soak() -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| !value.is_empty())
}

/// Runs `round` for each number below `count`, on two threads.
fn rounds(count: usize, round: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && number < count
        {
            round(number);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

/// Changes bytes as a bad disk, a bad network, an editor or an attacker does.
fn mutate(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = |length: usize| usize::try_from(dice.roll()).unwrap_or(0) % length.max(1);
    let (place, other, kind) = (at(bytes.len()), at(bytes.len()), at(10));
    let (from, to) = (place.min(other), place.max(other));
    match kind {
        0 | 1 if !bytes.is_empty() => bytes[place] ^= 1 << at(8),
        2 => drop(bytes.drain(from..to)),
        3 => bytes.truncate(place),
        4 => drop(bytes.splice(place..place, bytes.clone()[from..to.min(from + 4096)].to_vec())),
        5 => {
            let noise: Vec<_> = (0..at(64)).map(|_| u8::try_from(at(256)).unwrap()).collect();
            drop(bytes.splice(place..place, noise));
        }
        6 => {
            let words = [
                "-1",
                "1e999",
                "18446744073709551616",
                "null",
                "[[[[[[[[",
                "\"",
                "../../x",
                "\u{1b}[2J",
                "NaN",
            ];
            drop(bytes.splice(from..to.min(from + 4), words[at(words.len())].bytes().collect::<Vec<_>>()));
        }
        7 if bytes.len() > 8 => bytes[..8].copy_from_slice(&(at(usize::MAX) as u64).to_le_bytes()),
        8 => {
            bytes =
                [&b""[..], b"{}", b"null", &b"[".repeat(100_000), &[0; 4096], b"\xff\xfe"][at(6)].to_vec();
        }
        _ => bytes.reverse(),
    }
    bytes
}

/// Runs a command, and checks that it ends in time, with an exit code of its own, and without a panic.
#[track_caller]
fn ends_well(space: &Space, args: &[&str], case: &str) -> i32 {
    let mut child = space.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    // The output is short, so the pipes do not fill up.
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("{case}: {args:?} hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
    let run = space.finish(child.wait_with_output().unwrap());
    let said = run.transcript();
    assert!(!said.contains("panicked") && !said.contains("BUG"), "{case}: {said}");
    assert!(matches!(run.code(), Some(0..=3)), "{case}: {said}");
    run.code().unwrap()
}

/// A project that is built, a copy of its cache and its artifacts, and what the artifacts must be.
struct Range {
    space: Space,
    before: Space,
    artifacts: BTreeMap<String, Vec<u8>>,
}

impl Range {
    fn new(space: Space) -> Self {
        drop(space.build().exits(0));
        let before = Space::empty();
        for name in ["cache", "artifacts", "pipeline.lock", "pipeline.yaml"] {
            copy(&space.path(name), &before.path(name));
        }
        let artifacts = space.files("artifacts");
        Self { space, before, artifacts }
    }

    fn reset(&self) {
        for name in ["cache", "artifacts", "pipeline.lock", "pipeline.yaml"] {
            let _ =
                fs::remove_dir_all(self.space.path(name)).or_else(|_| fs::remove_file(self.space.path(name)));
            copy(&self.before.path(name), &self.space.path(name));
        }
    }
}

/// Returns a range for each thread, taken in turns.
fn with_range<T>(ranges: &[std::sync::Mutex<Range>], number: usize, use_it: impl FnOnce(&Range) -> T) -> T {
    let free = ranges.iter().cycle().skip(number).take(1000).find_map(|range| range.try_lock().ok());
    let range = free.unwrap_or_else(|| ranges[number % ranges.len()].lock().unwrap());
    use_it(&range)
}

fn ranges() -> [std::sync::Mutex<Range>; 2] {
    [Range::new(Space::pico()).into(), Range::new(Space::pico()).into()]
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn inputs_that_were_changed_at_random_do_no_harm() {
    let (seed, count) = (seed(), if is_soak() { 3000 } else { 120 });
    let (ranges, failed) = (ranges(), AtomicUsize::new(0));
    rounds(count, &|number| {
        with_range(&ranges, number, |range| {
            let space = &range.space;
            let mut dice = Dice(seed ^ (number as u64) << 20);
            let inputs: Vec<_> = space
                .files("")
                .into_keys()
                .filter(|path| !path.starts_with("cache/") && !path.starts_with("artifacts/"))
                .collect();
            let path = &inputs[usize::try_from(dice.roll()).unwrap_or(0) % inputs.len()];
            let bytes = space.bytes(path);
            space.write(path, mutate(&bytes, &mut dice));
            let case = format!("seed {seed}, input {number}: {path}");
            let verb = [&["build"][..], &["build", "--locked"], &["status"], &["verify"]][number % 4];
            failed.fetch_add(usize::from(ends_well(space, verb, &case) != 0), Ordering::Relaxed);
            space.write(path, bytes);
            range.reset();
        });
    });
    eprintln!("{count} changed inputs: {} refused or failed, 0 panics, 0 hangs", failed.into_inner());
    let range = ranges[0].lock().unwrap();
    range.space.build().ran([]);
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_cache_that_was_changed_at_random_is_put_right() {
    let (seed, count) = (seed(), if is_soak() { 1500 } else { 60 });
    let ranges = ranges();
    rounds(count, &|number| {
        with_range(&ranges, number, |range| {
            let space = &range.space;
            let mut dice = Dice(seed ^ 1 ^ (number as u64) << 20);
            let files: Vec<_> = space.files("cache").into_keys().collect();
            let path = &files[usize::try_from(dice.roll()).unwrap_or(0) % files.len()];
            let changed = mutate(&space.bytes(path), &mut dice);
            // A new file, as a restore puts it there: what is hard-linked to the old one stays.
            fs::remove_file(space.path(path)).unwrap();
            space.write(path, changed);
            if number % 2 == 0 {
                space.remove("artifacts");
            }
            let case = format!("seed {seed}, cache {number}: {path}");
            assert_eq!(ends_well(space, &["verify", "--store"], &case) & !1, 0, "{case}");
            assert_eq!(ends_well(space, &["build"], &case), 0, "{case}");
            assert!(space.files("artifacts") == range.artifacts, "{case}");
            assert_eq!(ends_well(space, &["verify", "--store"], &case), 0, "{case}");
            range.reset();
        });
    });
    eprintln!("{count} changed files of a cache: 0 lost, 0 believed");
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_remote_that_was_changed_at_random_is_not_believed() {
    let (seed, count) = (seed(), if is_soak() { 1000 } else { 40 });
    let (team, first) = Team::with_first(Bucket::folder());
    let (right, names) = (first.files("artifacts"), team.bucket.names());
    let clones = [team.second(&first), team.second(&first)].map(std::sync::Mutex::new);
    // Two rounds change different objects, and each puts its own back. A clone that meets the object of the
    // other round has to cope with two.
    rounds(count, &|number| {
        let mut dice = Dice(seed ^ 2 ^ (number as u64) << 20);
        let second = clones.iter().cycle().find_map(|clone| clone.try_lock().ok()).unwrap();
        let name = &names[usize::try_from(dice.roll()).unwrap_or(0) % names.len()];
        let bytes = first_bytes(&team, name, &first);
        team.bucket.write(name, &mutate(&bytes, &mut dice));
        let case = format!("seed {seed}, remote {number}: {name}");
        assert_eq!(ends_well(&second, &["build", "--read-only"], &case), 0, "{case}");
        assert!(second.files("artifacts") == right, "{case}");
        team.bucket.write(name, &bytes);
        for folder in ["cache", "artifacts"] {
            second.remove(folder);
        }
    });
    eprintln!("{count} changed objects of a remote: 0 builds failed, 0 records believed");
}

/// Returns the right bytes of an object, even while another thread has changed it: as they were sent.
fn first_bytes(team: &Team, name: &str, first: &Space) -> Vec<u8> {
    static SENT: std::sync::OnceLock<BTreeMap<String, Vec<u8>>> = std::sync::OnceLock::new();
    let sent = SENT.get_or_init(|| {
        let again = Bucket::folder();
        drop(first.run(&["push", "--remote", &again.url()]).exits(0));
        again.names().into_iter().map(|name| (name.clone(), again.read(&name))).collect()
    });
    sent.get(name).cloned().unwrap_or_else(|| team.bucket.read(name))
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_disk_that_fills_up_loses_nothing() {
    let (seed, count) = (seed(), if is_soak() { 200 } else { 8 });
    let (ranges, stopped) = (ranges(), AtomicUsize::new(0));
    rounds(count, &|number| {
        with_range(&ranges, number, |range| {
            let space = &range.space;
            let mut dice = Dice(seed ^ 3 ^ (number as u64) << 20);
            space.remove("cache").remove("artifacts").remove("pipeline.lock");
            // No file may be longer than this many blocks of 512 bytes.
            let limit = usize::try_from(dice.roll()).unwrap_or(0) % 200;
            let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" build");
            let mut command = space.command_of("sh");
            let run =
                space.finish(command.args(["-c", &script, env!("CARGO_BIN_EXE_pipeline")]).output().unwrap());
            let case = format!("seed {seed}, disk {number}, {limit} blocks: {}", run.transcript());
            assert!(matches!(run.code(), Some(0 | 1)) && !case.contains("panicked"), "{case}");
            stopped.fetch_add(usize::from(run.code() == Some(1)), Ordering::Relaxed);
            assert_eq!(ends_well(space, &["build"], &case), 0, "{case}");
            assert!(space.files("artifacts") == range.artifacts, "{case}");
            assert_eq!(ALL.len(), 5);
            range.reset();
        });
    });
    eprintln!("{count} full disks: {} builds stopped, 0 files lost", stopped.into_inner());
}
