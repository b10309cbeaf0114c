//! The supervisor: starts one program, waits for it, and then ends all that it has left behind. It ends the program
//! itself when its standard input closes.
//! Knows nothing of the build. It runs in a process of its own, with the environment and in the folder of the program.
//!
//! The program gets a process group of its own, and all of the group ends together. A process that leaves the group
//! becomes a child of the supervisor when its parent ends, on Linux: such a child is ended too. On other systems it
//! gets away.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, setsid, waitid};
use serde::{Deserialize, Serialize};

use super::Program;

/// The argument with which the program `pipeline` is a supervisor. The command follows, after `--`.
const ARGUMENT: &str = "supervise";

/// How long a program that is asked to end may take, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long it takes at most until all of a program has ended.
pub(super) const LONGEST_END: Duration = Duration::from_secs(10);

/// What a supervisor says of its program, as lines of JSON: that it started, and how it ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// It has started, in the process group with this number.
    Started(i32),
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// Returns the command that supervises `program`. `pipeline` is the path of the program `pipeline`.
pub(super) fn command(pipeline: &Path, program: &Program) -> Command {
    let mut command = Command::new(pipeline);
    command
        .arg(ARGUMENT)
        .arg("--")
        .arg(&program.program)
        .args(&program.arguments)
        .current_dir(&program.folder)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Is the supervisor of `command`: a program and its arguments.
pub fn serve(command: &[OsString]) {
    // Ctrl-C does not reach a session of its own, and no program in it can wait for the terminal.
    let _ = setsid();
    tell(&supervise(command).unwrap_or_else(|error| Report::NotStarted(error.to_string())));
}

fn tell(report: &Report) {
    let json = serde_json::to_string(report).expect("BUG: a report has a JSON form");
    let mut stdout = io::stdout();
    // If nobody listens any more, there is nobody to tell.
    let _ = writeln!(stdout, "{json}").and_then(|()| stdout.flush());
}

fn supervise(command: &[OsString]) -> io::Result<Report> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(Report::NotStarted("no command is given".to_owned()));
    };
    orphans::adopt();
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&child);
    tell(&Report::Started(group.as_raw_nonzero().get()));
    thread::Builder::new().spawn(move || end_with_the_input(group))?;
    wait(&mut child, group)
}

/// Waits for the end of the program, and ends what it has left.
fn wait(child: &mut Child, group: Pid) -> io::Result<Report> {
    // While the program is not yet taken off the list of processes, no other can have its number.
    while let Err(error) = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    orphans::end();
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Report::Code(code),
        (None, Some(signal)) => Report::Signal(signal),
        (None, None) => Report::NotStarted(status.to_string()),
    })
}

/// Waits until the standard input closes, and ends the program then: first it is asked to, then it is killed.
fn end_with_the_input(group: Pid) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let _ = kill_process_group(group, Signal::TERM);
    thread::sleep(GRACE);
    let _ = kill_process_group(group, Signal::KILL);
}

/// Processes whose parents have ended. On Linux they become children of the supervisor.
#[cfg(target_os = "linux")]
mod orphans {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait};

    /// How long it is tried to end them.
    const LONGEST: Duration = Duration::from_secs(5);

    pub(super) fn adopt() {
        // Without this, only the process group is ended.
        let _ = set_child_subreaper(Some(getpid()));
    }

    /// Ends all children, and the children that become ours by that.
    pub(super) fn end() {
        let start = Instant::now();
        loop {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let children = children();
            if children.is_empty() || start.elapsed() > LONGEST {
                return;
            }
            for child in children {
                let _ = kill_process(child, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn children() -> Vec<Pid> {
        let own = getpid().as_raw_nonzero().get();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_ours = |number: &i32| {
            let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            // The name of the program comes before, in brackets, and may have spaces and brackets itself.
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(own)
        };
        numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod orphans {
    pub(super) fn adopt() {}

    pub(super) fn end() {}
}
