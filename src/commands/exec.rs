//! `pipeline exec`: the work of a worker. An engine such as `ssh`, Slurm or Ray starts it on another machine.
//! Knows nothing of who asks for the work: that is in the remote.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use clap::Args;

use crate::outcome::Outcome;
use crate::shared_args::RemoteArgs;
use crate::terminal::{print, print_json, say, watch_for_interrupt};
use artifact::Digest;
use engine::executor::{DETACH, Heard, PULSE};
use engine::project::{Project, ProjectPath, WorkListener, WorkOptions};
use engine::request::Ending;

/// How long an attached worker goes on without a word from the machine that asks.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often progress is told at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The key of what is asked for
    #[arg(long, value_name = "KEY")]
    key: Digest,
    /// What this attempt is called; the machine that asks knows it by this name
    #[arg(long, value_name = "NAME", default_value = "by-hand")]
    attempt: String,
    /// Wait until one of so many slots of this machine is free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    slots: Option<u16>,
    /// Print what happens as JSON lines, and end when standard input ends
    #[arg(long)]
    attached: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) fn run(args: &ExecArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let cancel = watch_for_interrupt();
    if args.attached {
        thread::Builder::new().spawn(move || follow(cancel))?;
        thread::Builder::new().spawn(beat)?;
    }
    let mut project = Project::open(path)?;
    let options = WorkOptions {
        key: args.key,
        attempt: args.attempt.clone(),
        slots: args.slots.map(usize::from),
        remote: args.remote.choice(),
        cancel,
    };
    let listener = Listener { attached: args.attached, told: Mutex::new(None) };
    let outcome = match project.work(&options, &listener) {
        Err(error) if error.is_interrupted() => return Ok(Outcome::Interrupted),
        outcome => outcome?,
    };
    if !args.attached {
        outcome.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    let short = args.key.short();
    match outcome.ending {
        Ending::Failed { error, .. } => {
            say(&format!("error: {error}"));
            Ok(Outcome::Failure)
        }
        _ if args.attached => Ok(Outcome::Success),
        Ending::Made { seconds: Some(seconds) } => {
            print(&format!("made {short} in {seconds:.2} s, and sent it\n"))?;
            Ok(Outcome::Success)
        }
        Ending::Made { seconds: None } => {
            print(&format!("{short} is in the remote already\n"))?;
            Ok(Outcome::Success)
        }
    }
}

/// Tells what happens.
struct Listener {
    attached: bool,
    /// When progress was told last.
    told: Mutex<Option<Instant>>,
}

impl WorkListener for Listener {
    fn heard(&self, heard: Heard) {
        if matches!(heard, Heard::Progress { .. } | Heard::Waits(_)) {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_some_and(|told| told.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            *told = Some(Instant::now());
        }
        match heard {
            // Nobody may listen any more. The work goes on.
            heard if self.attached => drop(print_json(&heard)),
            Heard::Said(line) => say(&line),
            _ => {}
        }
    }
}

/// Says from time to time that this worker is alive.
fn beat() {
    while print_json(&Heard::Alive).is_ok() {
        thread::sleep(PULSE);
    }
}

/// Follows what the machine that asks writes. The work ends with it, unless it is let go.
fn follow(cancel: &AtomicBool) {
    let (sender, lines) = channel();
    let reader = thread::Builder::new().spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line == DETACH => {
                let _ = print_json(&Heard::Detached);
                return;
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    drop(reader);
    cancel.store(true, Ordering::Relaxed);
}
