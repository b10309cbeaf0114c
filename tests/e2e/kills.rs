//! `kill -9` at hundreds of random moments of `build`, `push`, `pull` and `gc`: the next build is right
//! without help.
//! Knows nothing of what the killed command was doing: the moments come from a seeded generator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::bucket::Bucket;
use crate::pico::Size;
use crate::remote::Team;
use crate::soak::is_soak;
use crate::space::{ALL, Space};

/// The environment variable that sets the seed. Another seed gives other moments; the seed of a failed run
/// repeats its moments.
const SEED_VARIABLE: &str = "PIPELINE_TEST_SEED";
const SEED: u64 = 20_261_122;

/// How many kills a job has in `make test` and in `make soak`. Each command has three jobs.
const KILLS: [usize; 2] = [8, 45];

/// After one of this many kills of a command that sends, the remote is checked as the rest of the team sees
/// it.
const LOOK: usize = 10;

/// The command that is killed, and the project and storage that it runs on.
struct Job {
    command: &'static [&'static str],
    project: fn() -> Space,
    bucket: fn() -> Bucket,
}

const BUILD: &[&str] = &["build"];
const PUSH: &[&str] = &["push"];
const PULL: &[&str] = &["pull"];
const GC: &[&str] = &["gc", "--max-size", "0B", "--older-than", "0s"];

/// The longest jobs come first, so that two threads end at about the same time.
const JOBS: [Job; 12] = [
    Job { command: BUILD, project: tiny, bucket: Bucket::folder },
    Job { command: BUILD, project: small, bucket: Bucket::folder },
    Job { command: BUILD, project: commanded, bucket: Bucket::folder },
    Job { command: PUSH, project: small, bucket: Bucket::s3 },
    Job { command: PULL, project: small, bucket: Bucket::s3 },
    Job { command: PULL, project: small, bucket: Bucket::folder },
    Job { command: PULL, project: commanded, bucket: Bucket::folder },
    Job { command: PUSH, project: tiny, bucket: Bucket::folder },
    Job { command: PUSH, project: small, bucket: Bucket::folder },
    Job { command: GC, project: small, bucket: Bucket::folder },
    Job { command: GC, project: small, bucket: Bucket::folder },
    Job { command: GC, project: small, bucket: Bucket::folder },
];

/// The model and the adapter of examples/tiny.
fn tiny() -> Space {
    let space = Space::pico();
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/tiny");
    for (ours, theirs) in [("model", "base-4bit"), ("lora", "adapter")] {
        copy(&tiny.join(theirs), &space.remove(ours).path(ours));
    }
    space
        .edit("adapter: adapter}", "adapter: adapter, dtype: float16}")
        .edit("bits: 8", "bits: 8, group_size: 64")
        .edit("bits: 4", "bits: 4, group_size: 64");
    space
}

fn small() -> Space {
    Space::of(Size { hidden: 256, layers: 1 })
}

/// The same, with an adapter that a command makes.
fn commanded() -> Space {
    let space = small();
    let copy = "cp {file:lora/adapters.safetensors} {file:lora/adapter_config.json} {out}";
    let command = format!("{{stage: run, makes: adapter, command: [sh, -c, \"{copy}; sleep 0.05\"]}}");
    space.edit("{stage: adapter, source: lora}", &command);
    space
}

/// Copies a folder with its times, modes and links.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// A generator of random numbers, the same for the same seed (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.roll() >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// Returns the seed of this run, and prints it where a failing test shows it.
#[allow(clippy::print_stderr, reason = "whoever repeats a run needs its seed")]
pub(crate) fn seed() -> u64 {
    let said = std::env::var(SEED_VARIABLE).ok().map(|said| said.parse().unwrap());
    let seed = said.unwrap_or(SEED);
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

/// A project with everything that a job needs to start again after each kill.
struct Range {
    job: &'static Job,
    team: Team,
    space: Space,
    /// The cache and the artifacts before the command, for the commands that need them.
    before: Space,
    /// The storage of one round, if the command may write to it.
    own: Option<Bucket>,
    artifacts: BTreeMap<String, Vec<u8>>,
    links: [String; 5],
    lock: String,
}

impl Range {
    fn new(job: &'static Job) -> Self {
        let team = Team::on((job.bucket)());
        let space = team.join((job.project)(), 0);
        space.build().ran(ALL);
        let (artifacts, lock) = (space.files("artifacts"), space.read("pipeline.lock"));
        let links = ALL.map(|node| space.link(&format!("artifacts/{node}")));
        if job.command == GC {
            space.edit("bits: 4", "bits: 5").build().ran(["q4"]);
            space.edit("bits: 5", "bits: 4").build().linked(["q4"]);
        }
        let before = Space::empty();
        for folder in ["cache", "artifacts"] {
            copy(&space.path(folder), &before.path(folder));
        }
        Self { job, team, space, before, own: None, artifacts, links, lock }
    }

    /// Whether the command sends anything.
    fn may_write(&self) -> bool {
        matches!(self.job.command, BUILD | PUSH)
    }

    /// Restores the state before the command. A build finds the remote empty, with one node, or with all
    /// nodes.
    fn reset(&mut self, round: usize) {
        self.own = None;
        if self.job.command != PUSH {
            self.space.remove("cache").remove("artifacts");
        }
        if self.job.command == GC {
            for folder in ["cache", "artifacts"] {
                copy(&self.before.path(folder), &self.space.path(folder));
            }
        }
        if self.job.command == BUILD && round.is_multiple_of(2) {
            fs::remove_file(self.space.path("pipeline.lock")).unwrap();
        }
        let fresh = self.job.command == PUSH || (self.job.command == BUILD && !round.is_multiple_of(3));
        self.own = fresh.then(|| Bucket::like(&self.team.bucket));
        if self.job.command == BUILD && round % 3 == 1 {
            self.copy_fused();
        }
        let url = self.own.as_ref().unwrap_or(&self.team.bucket).url();
        self.space.set_variable("PIPELINE_REMOTE", &url);
    }

    /// Puts one node into the storage of this round. A build then fetches, runs and sends.
    fn copy_fused(&self) {
        let giver = self.team.join(self.space.cloned(), 0);
        for folder in ["cache", "artifacts"] {
            copy(&self.before.path(folder), &giver.path(folder));
        }
        let url = self.own.as_ref().unwrap().url();
        drop(giver.run(&["push", "fused", "--remote", &url]).exits(0));
    }

    /// Runs the command undisturbed, and returns how long it took.
    fn measure(&mut self, round: usize) -> Duration {
        self.reset(round);
        let begin = Instant::now();
        drop(self.space.run(self.job.command).exits(0));
        let whole = begin.elapsed();
        drop(self.space.build().exits(0));
        whole
    }

    /// Runs the command and kills it. Returns whether it was still running.
    fn kill(&self, after: Duration) -> bool {
        let mut command = self.space.command();
        command.args(self.job.command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap().code().is_none()
    }

    /// Checks that the next build succeeds, and that everything is as if nothing had happened.
    fn is_right(&self, case: &str) {
        let run = self.space.run(&["build"]).exits(0);
        assert!(!run.stderr.contains("warning: the re"), "{case}: {}", run.transcript());
        self.has_all(&self.space, case);
        let run = self.space.run(&["verify", "--store"]).exits(0);
        assert!(run.stdout.ends_with(" 0 damaged\n"), "{case}: {}", run.transcript());
        let left = self.space.names("cache/tmp");
        assert!(left.iter().all(|name| name.ends_with(".partial")), "{case} left {left:?}");
    }

    fn has_all(&self, space: &Space, case: &str) {
        let mut artifacts = space.files("artifacts");
        if self.job.command == GC {
            // What the collector was to remove may or may not be there.
            artifacts.retain(|path, _| self.artifacts.contains_key(path));
        }
        assert!(artifacts == self.artifacts, "{case}: {:?}", artifacts.keys());
        assert_eq!(ALL.map(|node| space.link(&format!("artifacts/{node}"))), self.links, "{case}");
        assert_eq!(space.read("pipeline.lock"), self.lock, "{case}");
    }

    /// Checks that others can use what is in the remote, and that it does them no harm.
    fn look_at_remote(&self, case: &str) {
        let clone = || {
            let mut clone = self.team.join(self.space.cloned(), 1);
            clone.set_variable("PIPELINE_REMOTE", &self.own.as_ref().unwrap_or(&self.team.bucket).url());
            clone
        };
        // First as the kill left the remote, then with the rest sent.
        let early = clone();
        let run = early.build_with(&["--read-only"]).exits(0);
        assert_eq!(run.events("notice").len(), 0, "{case}: {}", run.transcript());
        self.has_all(&early, case);
        drop(self.space.run(&["push"]).exits(0));
        let late = clone();
        let run = late.build().exits(0);
        let did = (run.nodes("built"), run.events("notice").len());
        assert_eq!(did, (Vec::new(), 0), "{case}: {}", run.transcript());
        self.has_all(&late, case);
    }
}

fn kills_per_job() -> usize {
    KILLS[usize::from(is_soak())]
}

/// Does one job. Returns how many kills met a running command.
fn run(number: usize, job: &'static Job, seed: u64) -> usize {
    let mut dice = Dice(seed ^ (number as u64) << 32);
    let mut range = Range::new(job);
    // Only the work of a build depends on what the remote has.
    let kinds = if job.command == BUILD { 3 } else { 1 };
    let lengths: Vec<_> = (0..kinds).map(|round| range.measure(round)).collect();
    let mut hits = 0;
    for round in 0..kills_per_job() {
        range.reset(round);
        let after = lengths[round % kinds].mul_f64(dice.share());
        hits += usize::from(range.kill(after));
        let case = format!("seed {seed}, job {number}, round {round}: `{}` after {after:?}", job.command[0]);
        range.is_right(&case);
        if range.may_write() && round % LOOK == number % LOOK {
            range.look_at_remote(&case);
        }
    }
    hits
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn whatever_is_killed_the_next_build_is_right() {
    let seed = seed();
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(job) = JOBS.get(number)
        {
            hits.fetch_add(run(number, job, seed), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let (kills, hits) = (kills_per_job() * JOBS.len(), hits.into_inner());
    assert!(2 * hits >= kills, "only {hits} of {kills} met a running command");
    eprintln!("{kills} kills, {hits} while it ran, 0 losses");
}
