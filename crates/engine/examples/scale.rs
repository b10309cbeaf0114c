//! Drives the real scheduler with simulated workers: a graph of thousands of nodes, hundreds of workers, some jobs slow and
//! some lost. Prints one line of JSON: how long it took beside the bound of a greedy schedule without any overhead, and what
//! the coordinator took for it.
//!
//! `scale FOLDER NODES WORKERS SECONDS`; `pipeline` must lie beside this program, because it signs.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "it prints its figures")]
#![allow(clippy::disallowed_methods, reason = "it writes the project that it builds")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use engine::event::Silent;
use engine::executor::{Attempt, Condition, Executor, Job};
use engine::project::{BuildOptions, PlanOptions, Project, ProjectPath};
use engine::request::{Ending, OUTCOMES, REQUEST_TYPE, REQUESTS, WorkOutcome, WorkRequest};
use engine::share::{Outgoing, Settings, Share, SharePolicy, Signing};
use engine::sign::signer;
use engine::store::{Action, LocalStore};
use engine::{Artifact, Digest, FileEntry};

/// The length of a chain of nodes.
const CHAIN: usize = 5;

/// The last node, which reads the end of each chain.
const LAST: &str = "done";

/// How long the simulated cluster sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What becomes of an attempt: it is decided by the name of the node and by how often it was lost.
#[derive(Clone, Copy)]
struct Fate {
    seconds: f64,
    is_lost: bool,
}

/// One attempt in 20 takes four times as long, and one in 50 is lost half-way.
fn fate(node: &str, tries: usize, seconds: f64) -> Fate {
    let digest = Digest::of(format!("{node} {tries}").as_bytes());
    let [first, second, third, ..] = *digest.as_bytes();
    let spread = 0.5 + f64::from(first) / 255.0;
    let slow = if second < 13 { 4.0 } else { 1.0 };
    let is_lost = third < 5 && tries < 3;
    Fate { seconds: seconds * spread * slow * if is_lost { 0.5 } else { 1.0 }, is_lost }
}

/// Workers that make nothing, and send it.
struct Simulated {
    slots: usize,
    seconds: f64,
    cluster: Arc<Cluster>,
}

/// What runs on the simulated machines.
struct Cluster {
    share: Share,
    store: LocalStore,
    folder: PathBuf,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// How often each node was tried.
    tries: HashMap<String, usize>,
    /// The attempts that run, by name, and when they end.
    due: BinaryHeap<Reverse<(Instant, String)>>,
    running: HashMap<String, (Job, bool)>,
}

impl Cluster {
    /// Ends attempts when they are due.
    fn run(&self) {
        loop {
            let mut state = self.state.lock().unwrap();
            let now = Instant::now();
            let next = state.due.peek().map(|Reverse((due, _))| *due);
            if next.is_none_or(|due| due > now) {
                let wait = next.map_or(LONGEST_SLEEP, |due| due - now);
                drop(self.woken.wait_timeout(state, wait.min(LONGEST_SLEEP)).unwrap());
                continue;
            }
            let Reverse((_, name)) = state.due.pop().unwrap();
            let Some((job, is_lost)) = state.running.get(&name).cloned() else { continue };
            drop(state);
            if !is_lost {
                self.finish(&job);
            }
            self.state.lock().unwrap().running.remove(&name);
        }
    }

    /// Does what `pipeline exec` does at its end, with a made-up file.
    fn finish(&self, job: &Job) {
        let (text, _) = self.share.text(REQUESTS, &job.key, REQUEST_TYPE).unwrap().unwrap();
        let recipe = WorkRequest::parse(&text, &job.key).unwrap().recipe().unwrap();
        let path = self.folder.join(job.key.to_string());
        fs::write(&path, job.node.as_bytes()).unwrap();
        let size = job.node.len() as u64;
        let digest = Digest::of(job.node.as_bytes());
        let file = FileEntry { digest, path: "made".to_owned(), size, volatile: false };
        let artifact = Artifact::new(vec![file.clone()]);
        let recipe = serde_json::to_value(&recipe).unwrap();
        let action = Action { artifact, failure: None, recipe, seconds: 1.0, tool: None };
        let place = |_: &FileEntry| path.clone();
        self.share.send_contents(&self.store, &[(file, path.clone())], &|_, _| Ok(())).unwrap();
        // The content is there, so this writes only the record.
        let (key, signing, policy) = (&job.key, Signing::Allowed, &SharePolicy::Source);
        self.share
            .push(&self.store, &Outgoing { key, policy, action: &action, signing, place: &place }, &|_, _| {
                Ok(())
            })
            .unwrap();
        let outcome = WorkOutcome {
            key: job.key,
            attempt: job.attempt.name(),
            host: "simulated".to_owned(),
            machine: "simulated".to_owned(),
            ending: Ending::Made { seconds: Some(1.0) },
            warnings: Vec::new(),
        };
        self.share.put_text(OUTCOMES, &job.key, WorkOutcome::TYPE, outcome.to_json()).unwrap();
    }
}

impl Executor for Simulated {
    fn slots(&self) -> usize {
        self.slots
    }

    fn longest_batch(&self) -> engine::Result<usize> {
        Ok(1000)
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn submit(&self, jobs: &[Job]) -> engine::Result<()> {
        let mut state = self.cluster.state.lock().unwrap();
        for job in jobs {
            let tries = state.tries.entry(job.node.clone()).or_default();
            let fate = fate(&job.node, *tries, self.seconds);
            *tries += 1;
            let name = job.attempt.name();
            state.due.push(Reverse((Instant::now() + Duration::from_secs_f64(fate.seconds), name.clone())));
            state.running.insert(name, (job.clone(), fate.is_lost));
        }
        drop(state);
        self.cluster.woken.notify_all();
        Ok(())
    }

    fn poll(&self, attempts: &[Attempt]) -> engine::Result<Vec<Condition>> {
        let state = self.cluster.state.lock().unwrap();
        let condition = |attempt: &Attempt| match state.running.contains_key(&attempt.name()) {
            true => Condition::Runs { host: "simulated".to_owned(), heard: Vec::new() },
            false => Condition::Gone { how: None, is_lost: true },
        };
        Ok(attempts.iter().map(condition).collect())
    }

    fn cancel(&self, attempts: &[Attempt]) -> Vec<Option<String>> {
        vec![None; attempts.len()]
    }

    fn detach(&self, attempts: &[Attempt]) -> Vec<bool> {
        vec![true; attempts.len()]
    }

    fn log(&self, _: &Attempt) -> Option<String> {
        None
    }

    fn clean(&self, _: &[Attempt]) {}

    fn host(&self, _: &Attempt) -> Option<String> {
        None
    }
}

fn node(chain: usize, step: usize) -> String {
    format!("n{chain}-{step}")
}

/// An attempt in the greedy schedule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Started {
    chain: usize,
    step: usize,
    tries: usize,
}

/// Returns how long a greedy schedule takes in which nothing but the jobs takes time: whenever a worker is free and a node is
/// ready, it begins.
fn greedy(chains: usize, workers: usize, seconds: f64) -> f64 {
    let mut ready: VecDeque<Started> =
        (0..chains).map(|chain| Started { chain, step: 0, tries: 0 }).collect();
    let mut running: BinaryHeap<Reverse<(Duration, Started)>> = BinaryHeap::new();
    let (mut now, mut free) = (Duration::ZERO, workers);
    let fate_of = |one: &Started| fate(&node(one.chain, one.step), one.tries, seconds);
    loop {
        while free > 0
            && let Some(one) = ready.pop_front()
        {
            running.push(Reverse((now + Duration::from_secs_f64(fate_of(&one).seconds), one)));
            free -= 1;
        }
        let Some(Reverse((end, one))) = running.pop() else { break };
        (now, free) = (end, free + 1);
        let Started { chain, step, tries } = one;
        match fate_of(&one).is_lost {
            true => ready.push_back(Started { chain, step, tries: tries + 1 }),
            false if step + 1 < CHAIN => ready.push_back(Started { chain, step: step + 1, tries: 0 }),
            false => {}
        }
    }
    // The last node, with what it loses.
    let fates = (0..).map(|tries| fate(LAST, tries, seconds));
    let mut last = 0.0;
    for fate in fates {
        last += fate.seconds;
        if !fate.is_lost {
            break;
        }
    }
    now.as_secs_f64() + last
}

/// Writes the project: chains of commands, and one node that reads the end of each.
fn write(folder: &Path, chains: usize, workers: usize) {
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("data/a"), "a").unwrap();
    let mut text = format!(
        "version: 1\ncache: {{remote: \"file://{}/remote\"}}\nworkers:\n  simulated: {{executor: command, run: [\"{{line}}\"], \
         for: [run], slots: {workers}}}\nnodes:\n  data: {{stage: files, source: data}}\n",
        folder.display()
    );
    let mut ends = BTreeMap::new();
    for chain in 0..chains {
        let mut before = "data".to_owned();
        for step in 0..CHAIN {
            let name = node(chain, step);
            text += &format!(
                "  {name}: {{stage: run, makes: files, inputs: {{a: {before}}}, command: [simulate, \"{name}\", \"{{a}}\"]}}\n"
            );
            before = name;
        }
        ends.insert(format!("i{chain}"), before);
    }
    let inputs = ends.iter().map(|(role, node)| format!("{role}: {node}")).collect::<Vec<_>>().join(", ");
    text += &format!("  {LAST}: {{stage: run, makes: files, inputs: {{{inputs}}}, command: [simulate]}}\n");
    fs::write(folder.join("pipeline.yaml"), text).unwrap();
}

/// Returns a figure of `/proc/self/status` in kilobytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim_matches([':', ' ', '\t']).split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Returns how many seconds of processor time this process has taken.
fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<f64>() / 100.0)
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [folder, nodes, workers, seconds] = words.as_slice() else {
        panic!("scale FOLDER NODES WORKERS SECONDS")
    };
    let (folder, nodes) = (PathBuf::from(folder), nodes.parse::<usize>().unwrap());
    let (workers, seconds) = (workers.parse::<usize>().unwrap(), seconds.parse::<f64>().unwrap());
    let chains = nodes / CHAIN;
    write(&folder, chains, workers);
    let settings = || Settings {
        trusted: Vec::new(),
        own: signer().unwrap(),
        locked: HashMap::new(),
        lock_written: None,
        compress: false,
    };
    let mut store = LocalStore::new(folder.join("worker-cache"));
    store.prepare().unwrap();
    fs::create_dir_all(folder.join("made")).unwrap();
    let cluster = Arc::new(Cluster {
        share: Share::new(&format!("file://{}/remote", folder.display()), settings()),
        store,
        folder: folder.join("made"),
        state: Mutex::default(),
        woken: Condvar::new(),
    });
    for _ in 0..2 {
        let cluster = Arc::clone(&cluster);
        thread::spawn(move || cluster.run());
    }
    let simulated = Arc::new(Simulated { slots: workers, seconds, cluster: Arc::clone(&cluster) });
    let project = Project::open(&ProjectPath::in_folder(&folder)).unwrap();
    let mut project = project.with_executor("simulated", simulated);
    let plan = PlanOptions { targets: vec![LAST.to_owned()], ..PlanOptions::default() };
    let start = Instant::now();
    let built =
        project.build(&BuildOptions { plan, anyway: true, ..BuildOptions::default() }, &mut Silent).unwrap();
    let makespan = start.elapsed().as_secs_f64();
    assert!(built.is_success(), "{:?}", built.summary.failed.len());
    let bound = greedy(chains, workers, seconds);
    let tries = cluster.state.lock().unwrap().tries.values().sum::<usize>();
    println!(
        "{}",
        serde_json::json!({
            "nodes": built.summary.by_workers.len(), "workers": workers, "attempts": tries, "seconds": makespan,
            "greedy_seconds": bound, "ratio": makespan / bound, "nodes_per_second": nodes as f64 / makespan,
            "peak_memory_bytes": status("VmHWM") * 1024, "processor_seconds": processor_seconds(),
        })
    );
}
